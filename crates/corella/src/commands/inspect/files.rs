//! The files of a model, and their sizes.

use std::path::Path;

use serde::Serialize;

use super::anatomy::bytes;

/// Files that are printed one by one; of more only the largest.
const SHOWN: usize = 12;

/// A file of a model.
#[derive(Debug, Serialize)]
pub struct FileRow {
    /// Its name in the model's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// A file, or the files of a folder by their names.
pub fn files_of(at: &Path) -> Vec<FileRow> {
    let row = |path: &Path| {
        let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Some(FileRow { name, bytes: meta.len() })
    };
    let mut files: Vec<FileRow> = match std::fs::read_dir(at) {
        Ok(entries) => entries.flatten().filter_map(|entry| row(&entry.path())).collect(),
        Err(_) => row(at).into_iter().collect(),
    };
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// Prints their sizes, with `all` those of every file.
pub fn print_files(files: &[FileRow], all: bool) {
    let total = files.iter().map(|file| file.bytes).sum();
    println!("files      {}, {} in all", files.len(), bytes(total));
    let mut shown: Vec<&FileRow> = files.iter().collect();
    if !all && files.len() > SHOWN {
        shown.sort_by_key(|file| std::cmp::Reverse(file.bytes));
        shown.truncate(SHOWN);
    }
    for file in &shown {
        println!("           {:>10}  {}", bytes(file.bytes), file.name);
    }
    if shown.len() < files.len() {
        println!("           … and {} smaller ones (--all prints every file)", files.len() - shown.len());
    }
}
