//! Documents out of text files and folders.

use std::fs;
use std::path::{Path, PathBuf};

use super::DataError;
use crate::tokenizer::END_OF_TEXT;

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it comes from.
    pub name: String,
    /// Its text, lines ending in `\n`.
    pub text: String,
}

/// The documents of a UTF-8 file, or of every file below a folder in the order of their names.
///
/// `<|endoftext|>` on its own separates documents inside a file. A byte order mark is dropped, CRLF becomes LF, bytes
/// that are not UTF-8 become the replacement character, and empty documents are left out.
pub fn read_documents(path: &Path) -> Result<Vec<Document>, DataError> {
    let mut files = Vec::new();
    collect(path, &mut files)?;
    let mut documents = Vec::new();
    for file in files {
        let bytes = fs::read(&file).map_err(DataError::io(&file))?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
        let name = file.display().to_string();
        let texts = text.split(END_OF_TEXT).map(str::trim).filter(|t| !t.is_empty());
        documents.extend(texts.map(|text| Document { name: name.clone(), text: text.to_owned() }));
    }
    if documents.is_empty() {
        return Err(DataError::bad(path, "holds no text"));
    }
    Ok(documents)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(DataError::io(path))?;
    let mut inside: Vec<PathBuf> =
        entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(DataError::io(path))?;
    inside.sort();
    // Hidden files (version control, editors' leavings) are not text of the user's.
    inside.retain(|p| !p.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    inside.iter().try_for_each(|p| collect(p, files))
}
