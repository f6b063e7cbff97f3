//! Plain text, documents divided by a separator.

use std::io::{BufRead, Read};

use memchr::memmem::Finder;

use super::{Place, ProblemKind};
use crate::data::document::Flow;

/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// Reads documents between separators. One that is longer than allowed is cut at line ends.
///
/// Nothing but white space in front of the first separator, or behind the last, is no document: files have one in front of
/// each text, or behind each.
pub(super) fn read(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let separator = place.options.separator.clone();
    let finder = Finder::new(separator.as_bytes());
    let mut texts = Texts { max: place.options.max_document, buffer: Vec::new(), start: 0, at: At::default() };
    // A separator may begin at the end of what was read.
    let split = separator.len().saturating_sub(1);
    let mut searched = 0;
    loop {
        let got = Read::read_to_end(&mut Read::take(&mut *reader, CHUNK as u64), &mut texts.buffer);
        while let Some(found) = (!separator.is_empty()).then(|| finder.find(&texts.buffer[searched..])).flatten() {
            let end = searched + found;
            texts.end_at(place, end, texts.at.record == 0)?;
            texts.begin_behind(end, separator.len());
            searched = texts.start;
        }
        // What is longer by less than a separator may still be a text of the greatest length with one behind it.
        texts.shorten(place, texts.buffer.len(), texts.max + split)?;
        texts.forget();
        searched = texts.buffer.len().saturating_sub(split);
        let done = match got {
            Ok(0) => true,
            Ok(_) => false,
            Err(e) => {
                place.broken(&e, texts.at.record, texts.at.offset + texts.buffer.len() as u64)?;
                true
            }
        };
        if done {
            return texts.end_at(place, texts.buffer.len(), texts.at.record > 0);
        }
    }
}

/// Where the text that is read begins in the source.
#[derive(Default)]
struct At {
    record: u64,
    offset: u64,
    /// It is a part of a text, whose beginning was handed on.
    is_rest: bool,
}

/// The text that is read, and what lies behind it already. What is handed on is dropped once for each piece that is read,
/// not with each text: otherwise many short texts would be moved as often as there are.
struct Texts {
    max: usize,
    buffer: Vec<u8>,
    /// Where the text begins in the buffer.
    start: usize,
    at: At,
}

impl Texts {
    /// Hands on the text that ends at `end`; `is_edge` says that it lies in front of the first separator or behind the last.
    fn end_at(&mut self, place: &mut Place<'_>, end: usize, is_edge: bool) -> Flow {
        self.shorten(place, end, self.max)?;
        let text = &self.buffer[self.start..end];
        if is_edge && is_blank(text) {
            return Flow::Continue(());
        }
        place.bytes(self.at.record, self.at.offset, text.to_vec())
    }

    /// Hands on parts of the text up to `end` until at most `most` bytes of it are left.
    fn shorten(&mut self, place: &mut Place<'_>, end: usize, most: usize) -> Flow {
        while end - self.start > most {
            if !self.at.is_rest {
                let what = format!("a text of more than {} bytes: cut at line ends", self.max);
                place.report(ProblemKind::Cut, self.at.record, self.at.offset, what)?;
                self.at.is_rest = true;
            }
            let length = cut(&self.buffer[self.start..end], self.max);
            let part = self.buffer[self.start..self.start + length].to_vec();
            place.bytes(self.at.record, self.at.offset, part)?;
            self.start += length;
            self.at.offset += length as u64;
        }
        Flow::Continue(())
    }

    /// Goes on behind the separator at `end`.
    fn begin_behind(&mut self, end: usize, separator: usize) {
        let offset = self.at.offset + (end - self.start + separator) as u64;
        self.at = At { record: self.at.record + 1, offset, is_rest: false };
        self.start = end + separator;
    }

    fn forget(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
    }
}

fn is_blank(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).chars().all(|c| c.is_whitespace() || c == '\u{feff}')
}

/// Where to cut bytes so that at most `max` come before: behind the last line end, else between two characters.
pub(super) fn cut(bytes: &[u8], max: usize) -> usize {
    if bytes.len() <= max {
        return bytes.len();
    }
    let mut at = memchr::memrchr(b'\n', &bytes[..max]).map_or(max, |i| i + 1);
    while at > max.saturating_sub(4).max(1) && bytes[at] & 0xc0 == 0x80 {
        at -= 1;
    }
    at.max(1)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{BufReader, Read};

    use super::super::{Place, ReadOptions};
    use super::{CHUNK, read};
    use crate::data::document::{Document, Flow, Problem, Sink};

    /// Counts the bytes that were read and not handed on yet.
    struct Held<'a> {
        held: &'a Cell<usize>,
        most: usize,
        documents: usize,
        problems: usize,
    }

    impl Sink for Held<'_> {
        fn document(&mut self, document: Document) -> Flow {
            self.most = self.most.max(self.held.get());
            self.held.set(self.held.get() - document.text.len());
            self.documents += 1;
            Flow::Continue(())
        }

        fn problem(&mut self, _: Problem) -> Flow {
            self.problems += 1;
            Flow::Continue(())
        }
    }

    struct Source<'a> {
        left: usize,
        held: &'a Cell<usize>,
    }

    impl Read for Source<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = buffer.len().min(self.left);
            buffer[..n].fill(b'x');
            self.left -= n;
            self.held.set(self.held.get() + n);
            Ok(n)
        }
    }

    #[test]
    fn of_a_long_text_no_more_is_held_than_was_read_at_once() {
        for max in [1000, CHUNK - 1, CHUNK, 3 * CHUNK] {
            let (length, held) = (100 * CHUNK, Cell::new(0));
            let mut sink = Held { held: &held, most: 0, documents: 0, problems: 0 };
            let options = ReadOptions { max_document: max, ..ReadOptions::default() };
            let mut reader = BufReader::new(Source { left: length, held: &held });
            let _ = read(&mut Place::new("a.txt", &options, &mut sink), &mut reader);
            assert_eq!((sink.documents, sink.problems, held.get()), (length.div_ceil(max), 1, 0));
            assert!(sink.most <= max + 2 * CHUNK, "{} bytes of texts of {max}", sink.most);
        }
    }
}
