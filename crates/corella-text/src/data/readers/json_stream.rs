//! JSON that is not one object per line: objects over several lines, one behind another, or the elements of an array. One object
//! at a time is in memory.

use std::io::{self, BufRead};
use std::ops::Range;

use super::{Place, ProblemKind, jsonl};
use crate::data::document::Flow;

/// Reads the text field of each object.
pub(super) fn read(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let (limit, wanted) = (jsonl::most(place), place.options.field.clone());
    let mut objects = Objects::of(reader, limit);
    let (mut object, mut lost) = (Vec::new(), false);
    for record in 0.. {
        let (start, found) = match objects.next(&mut object) {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(e) => return place.broken(&e, record, objects.offset),
        };
        let what = match found {
            Found::Whole => {
                lost = false;
                jsonl::value(place, &mut object, wanted.as_deref(), record, start)?;
                continue;
            }
            Found::TooLong => {
                let what = format!("an object of more than {limit} bytes");
                place.report(ProblemKind::TooLarge, record, start, what)?;
                continue;
            }
            Found::Broken => "a JSON object that ends in the middle",
            Found::Other => "not a JSON object",
        };
        // What is left of a broken object is told once, however many lines it has.
        if !std::mem::replace(&mut lost, true) {
            place.report(ProblemKind::BadRecord, record, start, what)?;
        }
    }
    Flow::Continue(())
}

/// The places of the objects of a line that holds several and nothing else; none where it does not.
pub(super) fn several(line: &[u8]) -> Vec<Range<usize>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(skipped) = line[at..].iter().position(|byte| !is_between(*byte)) {
        at += skipped;
        let (length, end) = Scan::default().over(&line[at..]);
        if line[at] != b'{' || end != Some(End::Whole) {
            return Vec::new();
        }
        parts.push(at..at + length);
        at += length;
    }
    if parts.len() > 1 { parts } else { Vec::new() }
}

/// What is next in a stream.
pub(super) enum Found {
    /// An object is in the buffer.
    Whole,
    /// An object was longer than allowed; it was passed over.
    TooLong,
    /// An object does not end before the next begins, a line ends inside a string, or the source ends.
    Broken,
    /// Something else; its line was passed over.
    Other,
}

/// Finds the objects of a stream.
pub(super) struct Objects<'a> {
    reader: &'a mut dyn BufRead,
    /// Bytes read so far.
    offset: u64,
    /// Most bytes of an object.
    limit: usize,
}

impl<'a> Objects<'a> {
    /// Of a stream from its beginning on; objects of more than `limit` bytes are passed over.
    pub(super) fn of(reader: &'a mut dyn BufRead, limit: usize) -> Objects<'a> {
        Objects { reader, offset: 0, limit }
    }

    /// What is next, and where it begins.
    pub(super) fn next(&mut self, object: &mut Vec<u8>) -> io::Result<Option<(u64, Found)>> {
        object.clear();
        let Some(first) = self.behind(is_between)? else { return Ok(None) };
        let start = self.offset;
        if first != b'{' {
            self.behind(|byte| byte != b'\n')?;
            return Ok(Some((start, Found::Other)));
        }
        let (mut scan, mut too_long) = (Scan::default(), false);
        loop {
            let chunk = self.reader.fill_buf()?;
            let (used, end) = if chunk.is_empty() { (0, Some(End::Broken)) } else { scan.over(chunk) };
            too_long |= object.len() + used > self.limit;
            if too_long {
                object.clear();
            } else {
                object.extend_from_slice(&chunk[..used]);
            }
            self.reader.consume(used);
            self.offset += used as u64;
            match end {
                None => {}
                Some(End::Broken) => return Ok(Some((start, Found::Broken))),
                Some(End::Whole) => return Ok(Some((start, if too_long { Found::TooLong } else { Found::Whole }))),
            }
        }
    }

    /// Passes over bytes of a kind; the first that is none of them, if there is one.
    fn behind(&mut self, is_passed: impl Fn(u8) -> bool) -> io::Result<Option<u8>> {
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let stop = chunk.iter().position(|byte| !is_passed(*byte));
            let (used, first) = (stop.unwrap_or(chunk.len()), stop.map(|at| chunk[at]));
            self.reader.consume(used);
            self.offset += used as u64;
            if first.is_some() {
                return Ok(first);
            }
        }
    }
}

/// What may stand between objects: white space, what belongs to an array around them, and the bytes of the mark at the beginning.
fn is_between(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b',' | b'[' | b']' | 0xef | 0xbb | 0xbf)
}

/// How an object ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// Follows brackets and strings through an object, whatever pieces it comes in.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The last byte outside of strings that is no white space.
    last: u8,
}

impl Scan {
    /// How many of these bytes belong to the object, and how it ends if it does.
    fn over(&mut self, chunk: &[u8]) -> (usize, Option<End>) {
        let mut at = 0;
        while at < chunk.len() {
            if std::mem::take(&mut self.escaped) {
                at += 1;
                continue;
            }
            if self.in_string {
                let Some(found) = memchr::memchr3(b'"', b'\\', b'\n', &chunk[at..]) else { break };
                at += found + 1;
                match chunk[at - 1] {
                    b'"' => self.in_string = false,
                    b'\\' => self.escaped = true,
                    // A string has no line end: the line was cut off.
                    _ => return (at, Some(End::Broken)),
                }
                continue;
            }
            let byte = chunk[at];
            match byte {
                b'"' => self.in_string = true,
                // The object before has no end.
                b'{' if self.depth > 0 && !matches!(self.last, b':' | b',' | b'[') => return (at, Some(End::Broken)),
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (at + 1, Some(End::Whole));
                    }
                }
                _ => {}
            }
            if !byte.is_ascii_whitespace() {
                self.last = byte;
            }
            at += 1;
        }
        (chunk.len(), None)
    }
}
