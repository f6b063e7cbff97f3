//! Reading a header front to back, never past the end of the file, and never allocating what is not there.

use std::io::Read;
use std::path::Path;

use crate::formats::error::{Cause, FormatError};

/// Longest text or key that is taken from a header.
pub const LONGEST_TEXT: u64 = 1 << 26;

/// A reader that knows how much of the file is left.
pub struct Cursor<'a, R> {
    input: R,
    path: &'a Path,
    offset: u64,
    size: u64,
}

impl<'a, R: Read> Cursor<'a, R> {
    /// At the start of `input`, which has `size` bytes.
    pub fn new(input: R, size: u64, path: &'a Path) -> Self {
        Cursor { input, path, offset: 0, size }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that follow.
    pub fn left(&self) -> u64 {
        self.size - self.offset
    }

    /// The cause, here.
    pub fn error(&self, cause: Cause) -> FormatError {
        cause.at(self.path, self.offset)
    }

    /// The next N bytes; `field` names them in the error.
    pub fn bytes<const N: usize>(&mut self, field: &str) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        self.fill(&mut out, field)?;
        Ok(out)
    }

    fn fill(&mut self, out: &mut [u8], field: &str) -> Result<(), FormatError> {
        if out.len() as u64 > self.left() {
            return Err(self.error(Cause::Truncated { field: field.to_owned() }));
        }
        self.input.read_exact(out).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => self.error(Cause::FileChanged),
            _ => self.error(e.into()),
        })?;
        self.offset += out.len() as u64;
        Ok(())
    }

    /// A little-endian number.
    pub fn u32(&mut self, field: &str) -> Result<u32, FormatError> {
        self.bytes(field).map(u32::from_le_bytes)
    }

    /// A little-endian number.
    pub fn u64(&mut self, field: &str) -> Result<u64, FormatError> {
        self.bytes(field).map(u64::from_le_bytes)
    }

    /// A length and that many bytes of UTF-8.
    pub fn text(&mut self, field: &str) -> Result<String, FormatError> {
        let start = self.offset;
        let found = self.u64(field)?;
        let allowed = self.left().min(LONGEST_TEXT);
        if found > allowed {
            let cause = Cause::LengthBeyondFile { field: field.to_owned(), found, allowed };
            return Err(cause.at(self.path, start));
        }
        let mut bytes = vec![0; found as usize];
        self.fill(&mut bytes, field)?;
        String::from_utf8(bytes).map_err(|_| Cause::NotUtf8 { field: field.to_owned() }.at(self.path, start))
    }

    /// How many records of at least `smallest` bytes follow: more than the file can hold is an error.
    pub fn count(&mut self, field: &'static str, smallest: u64) -> Result<usize, FormatError> {
        let start = self.offset;
        let found = self.u64(field)?;
        let allowed = self.left() / smallest;
        if found > allowed {
            return Err(Cause::CountTooLarge { field, found, allowed }.at(self.path, start));
        }
        Ok(found as usize)
    }
}
