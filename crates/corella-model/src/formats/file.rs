//! A model file open for reading: its size is known, every read is inside it, and a change is noticed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{Cause, FormatError};

/// A file read in pieces, never mapped: a file that is cut while it is read gives an error, not a signal.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    file: File,
    size: u64,
    modified: Option<SystemTime>,
}

impl ModelFile {
    /// Opens a file and notes its size and time of change.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let io = |e: std::io::Error| Cause::from(e).of(path);
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        Ok(ModelFile { path: path.to_path_buf(), file, size: metadata.len(), modified: metadata.modified().ok() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The open file, to read the header from.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `out` from `offset` on. A file that has become shorter is an error.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), FormatError> {
        read_exact_at(&self.file, out, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Cause::FileChanged.at(&self.path, offset),
            _ => Cause::from(e).at(&self.path, offset),
        })
    }

    /// The first bytes, fewer if the file is shorter.
    pub fn head(&self, len: usize) -> Result<Vec<u8>, FormatError> {
        let mut bytes = vec![0; len.min(usize::try_from(self.size).unwrap_or(len))];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// An error if size or time of change differ from when the file was opened.
    pub fn check_unchanged(&self) -> Result<(), FormatError> {
        let now = std::fs::metadata(&self.path).map_err(|e| Cause::from(e).of(&self.path))?;
        if now.len() != self.size || now.modified().ok() != self.modified {
            return Err(Cause::FileChanged.of(&self.path));
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !out.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, out, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        (out, offset) = (&mut out[n..], offset + n as u64);
    }
    Ok(())
}
