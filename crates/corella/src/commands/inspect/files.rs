//! The files of a model, and their sizes.

use std::path::Path;

use serde::Serialize;

use crate::units::size;

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

/// Whether a file is one of the parts that `first` is the first of: `NAME-00001-of-0000N.gguf`.
fn same_model(first: &Path, other: &Path) -> bool {
    let parts = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (name, count) = name.rsplit_once("-of-")?;
        let (name, number) = name.rsplit_once('-')?;
        Some((name.to_owned(), count.to_owned(), number.parse::<u32>().ok()?))
    };
    match (parts(first), parts(other)) {
        (Some(first), Some(other)) => (first.0, first.1) == (other.0, other.1),
        _ => first == other,
    }
}

/// A file with the others that hold parts of the same model, or the files of a folder; by their names.
pub fn files_of(at: &Path) -> Vec<FileRow> {
    let row = |path: &Path| {
        let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Some(FileRow { name, bytes: meta.len() })
    };
    let mut files: Vec<FileRow> = match std::fs::read_dir(at) {
        Ok(entries) => entries.flatten().filter_map(|entry| row(&entry.path())).collect(),
        Err(_) => {
            let beside = at.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
            let entries = beside.and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
            let others = entries.map(|entry| entry.path()).filter(|path| path.file_name() != at.file_name());
            row(at)
                .into_iter()
                .chain(others.filter(|path| same_model(at, path)).filter_map(|path| row(&path)))
                .collect()
        }
    };
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// The lines that say their sizes, with `all` those of every file.
pub fn file_lines(files: &[FileRow], all: bool) -> Vec<String> {
    let total = files.iter().map(|file| file.bytes).sum();
    let mut lines = vec![format!("files      {}, {} in all", files.len(), size(total))];
    let mut shown: Vec<&FileRow> = files.iter().collect();
    if !all && files.len() > SHOWN {
        shown.sort_by_key(|file| std::cmp::Reverse(file.bytes));
        shown.truncate(SHOWN);
    }
    lines.extend(shown.iter().map(|file| format!("           {:>10}  {}", size(file.bytes), file.name)));
    if shown.len() < files.len() {
        let rest = files.len() - shown.len();
        lines.push(format!("           … and {rest} smaller ones (--all prints every file)"));
    }
    lines
}
