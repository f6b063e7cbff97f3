//! gzip (all members) and zstd (all frames), with a limit on how far data may expand.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use super::{Place, ProblemKind};
use crate::data::document::Flow;

/// Data may always expand to this size,
const FREE: u64 = 64 << 20;
/// and beyond it to this multiple of what was read. Text seldom reaches 10.
const RATIO: u64 = 1000;

/// Reads what is inside gzip.
pub(super) fn gzip(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let (counted, read) = Counted::new(reader);
    let decoder = Guard::new(MultiGzDecoder::new(BufReader::new(counted)), read);
    place.inside().stream(&mut BufReader::with_capacity(1 << 16, decoder))
}

/// Reads what is inside zstd.
pub(super) fn zstd(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let (counted, read) = Counted::new(reader);
    let mut decoder = match zstd::stream::read::Decoder::new(counted) {
        Ok(decoder) => decoder,
        Err(e) => return place.broken(&e, 0, 0),
    };
    if let Err(e) = decoder.window_log_max(place.options.zstd_window_log) {
        return place.report(ProblemKind::Unsupported, 0, 0, e.to_string());
    }
    place.inside().stream(&mut BufReader::with_capacity(1 << 16, Guard::new(decoder, read)))
}

/// Counts what passes.
struct Counted<R> {
    inner: R,
    read: Rc<Cell<u64>>,
}

impl<R> Counted<R> {
    fn new(inner: R) -> (Self, Rc<Cell<u64>>) {
        let read = Rc::new(Cell::new(0));
        (Counted { inner, read: Rc::clone(&read) }, read)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

/// Ends a stream that expands beyond proportion.
pub(super) struct Guard<R> {
    inner: R,
    read: Rc<Cell<u64>>,
    written: u64,
}

impl<R> Guard<R> {
    fn new(inner: R, read: Rc<Cell<u64>>) -> Self {
        Guard { inner, read, written: 0 }
    }

    /// A guard for something whose compressed size is known.
    pub(super) fn of_size(inner: R, compressed: u64) -> Self {
        Guard::new(inner, Rc::new(Cell::new(compressed)))
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.written += n as u64;
        if self.written > FREE.max(self.read.get().saturating_mul(RATIO)) {
            return Err(io::Error::other(Bomb { from: self.read.get(), to: self.written }));
        }
        Ok(n)
    }
}

/// The error of a [`Guard`].
#[derive(Debug)]
struct Bomb {
    from: u64,
    to: u64,
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes expand to {} and more; up to {RATIO} times is allowed", self.from, self.to)
    }
}

impl std::error::Error for Bomb {}

/// Whether an error comes from a [`Guard`].
pub(super) fn is_bomb(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Bomb>())
}
