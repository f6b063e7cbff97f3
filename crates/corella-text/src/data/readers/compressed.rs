//! gzip (all members) and zstd (all frames), with a limit on how far data may expand.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::GzDecoder;

use super::{Place, ProblemKind};
use crate::data::document::Flow;

/// Data may always expand to this size,
const FREE: u64 = 64 << 20;
/// and beyond it to this multiple of what was read. Text seldom reaches 10.
const RATIO: u64 = 1000;

/// Reads what is inside gzip.
pub(super) fn gzip(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    place.inside().stream(&mut BufReader::with_capacity(1 << 16, of_gzip(reader)))
}

/// What is inside gzip.
pub(super) fn of_gzip<R: Read>(reader: R) -> impl Read {
    let (counted, read) = Counted::new(reader);
    Guard::new(Members::new(BufReader::new(counted)), read)
}

/// The members of a gzip file, one after the other. Zeros behind a member are padding (of tapes, and of programs that write whole
/// blocks) and no damage, as for GNU gzip and Python.
struct Members<R> {
    /// `None` behind the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(reader: R) -> Self {
        Members { member: Some(GzDecoder::new(reader)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let rest = self.member.take().map(GzDecoder::into_inner);
            self.member = rest.map(behind_zeros).transpose()?.flatten().map(GzDecoder::new);
        }
        Ok(0)
    }
}

/// The reader behind zeros; `None` where it ends there.
fn behind_zeros<R: BufRead>(mut reader: R) -> io::Result<Option<R>> {
    loop {
        let chunk = reader.fill_buf()?;
        let (zeros, all) = (chunk.iter().take_while(|byte| **byte == 0).count(), chunk.len());
        reader.consume(zeros);
        if zeros < all || all == 0 {
            return Ok((all > 0).then_some(reader));
        }
    }
}

/// Reads what is inside zstd.
pub(super) fn zstd(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let window = reader.fill_buf().ok().and_then(window).unwrap_or(0);
    if window > 1 << place.options.zstd_window_log {
        // An eighth of the memory, in powers of two, is what a window may take.
        let (window_mib, needed) = (window.div_ceil(1 << 20), window.next_power_of_two() >> 17);
        let what = format!("a window of {window_mib} MiB, which needs --memory {needed}MiB");
        return place.report(ProblemKind::Unsupported, 0, 0, what);
    }
    match of_zstd(reader, place.options.zstd_window_log) {
        Ok(inside) => place.inside().stream(&mut BufReader::with_capacity(1 << 16, inside)),
        Err(e) => place.broken(&e, 0, 0),
    }
}

/// What is inside zstd, with the largest window (a power of two) that may be allocated.
pub(super) fn of_zstd<R: Read>(reader: R, window_log: u32) -> io::Result<impl Read> {
    let (counted, read) = Counted::new(reader);
    let mut decoder = zstd::stream::read::Decoder::new(counted)?;
    decoder.window_log_max(window_log)?;
    Ok(Guard::new(decoder, read))
}

/// The window that the frame at the front asks for, in bytes (RFC 8878, 3.1.1.1); `None` where none begins there.
fn window(head: &[u8]) -> Option<u64> {
    let head = head.strip_prefix(b"\x28\xb5\x2f\xfd")?;
    let (descriptor, rest) = head.split_first()?;
    if descriptor & 0x20 == 0 {
        let (exponent, mantissa) = (rest.first()? >> 3, u64::from(rest.first()? & 7));
        let base = 1u64 << (10 + exponent);
        return Some(base + base / 8 * mantissa);
    }
    // One segment: the window is as large as the content.
    let size = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    let bytes = size.get(..[1, 2, 4, 8][usize::from(descriptor >> 6)])?;
    let number = bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    Some(if bytes.len() == 2 { number + 256 } else { number })
}

/// Whether zstd refused a later frame because of its window.
pub(super) fn is_window(error: &io::Error) -> bool {
    error.to_string().contains("requires too much memory")
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
