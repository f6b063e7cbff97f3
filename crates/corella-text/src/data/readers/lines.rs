//! Lines of bounded length.

use std::io::{self, BufRead};

/// What came of reading a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line is in the buffer, without its end.
    Whole,
    /// A line was longer than allowed; it was passed over.
    TooLong,
    /// There are no more.
    End,
}

/// Reads lines and counts bytes.
pub(super) struct Lines<'a> {
    reader: &'a mut dyn BufRead,
    /// Bytes read so far.
    pub offset: u64,
    /// Most bytes of a line.
    limit: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(reader: &'a mut dyn BufRead, limit: usize) -> Lines<'a> {
        Lines { reader, offset: 0, limit }
    }

    /// The next line, without `\n` or `\r\n`.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Line> {
        line.clear();
        let mut too_long = false;
        let mut any = false;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let (used, ended) = match memchr::memchr(b'\n', chunk) {
                Some(at) => (at + 1, true),
                None => (chunk.len(), false),
            };
            if line.len() + used > self.limit {
                too_long = true;
                line.clear();
            }
            if !too_long {
                line.extend_from_slice(&chunk[..used]);
            }
            self.reader.consume(used);
            self.offset += used as u64;
            if ended {
                break;
            }
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(match (any, too_long) {
            (false, _) => Line::End,
            (true, true) => Line::TooLong,
            (true, false) => Line::Whole,
        })
    }

    /// Exactly `n` bytes, or fewer at the end of the stream.
    pub(super) fn take(&mut self, n: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        // A buffer that grew by doubling would take up to twice the memory. What is claimed but not there is never touched.
        into.reserve_exact(usize::try_from(n).unwrap_or(0));
        let read = io::Read::read_to_end(&mut io::Read::take(&mut *self.reader, n), into);
        self.offset += into.len() as u64;
        read.map(|_| ())
    }

    /// Passes over `n` bytes; returns how many there were.
    pub(super) fn skip(&mut self, n: u64) -> io::Result<u64> {
        let skipped = io::copy(&mut io::Read::take(&mut *self.reader, n), &mut io::sink())?;
        self.offset += skipped;
        Ok(skipped)
    }
}
