//! A file of tensors being written: a header, then the data of each tensor in turn.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::atomic::AtomicFile;
use super::error::{Cause, FormatError};

/// Values that are turned into bytes at once: no second copy of a large tensor.
const PIECE: usize = 1 << 18;
/// The widest alignment of a format.
const ZEROS: [u8; 64] = [0; 64];

/// Written under a temporary name; it gets its own when [`TensorsFile::finish`] has seen every tensor.
#[derive(Debug)]
pub struct TensorsFile {
    path: PathBuf,
    out: BufWriter<AtomicFile>,
    /// Name and bytes of each.
    tensors: Vec<(String, u64)>,
    /// Each tensor's data is filled up with zeros to a multiple of this.
    alignment: u64,
    /// The tensor whose data comes next, and how many bytes of it are written.
    next: usize,
    begun: u64,
}

impl TensorsFile {
    /// Writes the header. `alignment` is at most 64.
    pub(super) fn create(
        path: &Path,
        header: &[u8],
        tensors: Vec<(String, u64)>,
        alignment: u64,
    ) -> Result<Self, FormatError> {
        let start = || -> io::Result<_> {
            let mut out = BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?);
            out.write_all(header)?;
            Ok(out)
        };
        let out = start().map_err(|e| Cause::from(e).of(path))?;
        Ok(TensorsFile { path: path.to_path_buf(), out, tensors, alignment, next: 0, begun: 0 })
    }

    /// Appends the data of the next tensor, or its next piece. Panics if a tensor becomes longer than the header says.
    pub fn tensor(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let (name, size) = &self.tensors[self.next];
        self.begun += bytes.len() as u64;
        assert!(self.begun <= *size, "data of {name}");
        let mut written = self.out.write_all(bytes);
        if self.begun == *size {
            let padding = size.next_multiple_of(self.alignment) - size;
            written = written.and_then(|()| self.out.write_all(&ZEROS[..padding as usize]));
            (self.next, self.begun) = (self.next + 1, 0);
        }
        written.map_err(|e| Cause::from(e).of(&self.path))
    }

    /// Appends the values of the next tensor, which is an F32 one.
    pub fn f32_tensor(&mut self, values: &[f32]) -> Result<(), FormatError> {
        let mut bytes = Vec::new();
        values.chunks(PIECE).try_for_each(|values| {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            self.tensor(&bytes)
        })
    }

    /// Syncs the file and gives it its name. Panics if a tensor is missing.
    pub fn finish(self) -> Result<(), FormatError> {
        assert_eq!(self.next, self.tensors.len(), "every tensor is written");
        let path = self.path;
        self.out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(AtomicFile::commit)
            .map_err(|e| Cause::from(e).of(&path))
    }
}
