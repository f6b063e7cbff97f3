//! Plain text, documents divided by a separator.

use std::io::{BufRead, Read};

use super::{Place, ProblemKind};
use crate::data::document::Flow;

/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// Reads documents between separators. One that is longer than allowed is cut at a line end.
pub(super) fn read(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let separator = place.options.separator.as_bytes().to_vec();
    let finder = memchr::memmem::Finder::new(&separator);
    let max = place.options.max_document;
    let (mut buffer, mut searched) = (Vec::new(), 0usize);
    let (mut record, mut offset) = (0u64, 0u64);
    loop {
        let got = Read::read_to_end(&mut Read::take(&mut *reader, CHUNK as u64), &mut buffer);
        let mut start = 0;
        while let Some(at) = (!separator.is_empty()).then(|| finder.find(&buffer[searched..])).flatten() {
            let end = searched + at;
            place.bytes(record, offset, buffer[start..end].to_vec())?;
            record += 1;
            offset += (end - start + separator.len()) as u64;
            start = end + separator.len();
            searched = start;
        }
        buffer.drain(..start);
        // A separator may have begun at the end of what was read.
        searched = buffer.len().saturating_sub(separator.len().saturating_sub(1));
        if buffer.len() > max {
            let what = format!("a text of more than {max} bytes: cut at line ends");
            place.report(ProblemKind::Cut, record, offset, what)?;
            let rest = buffer.split_off(cut(&buffer, max));
            let part = std::mem::replace(&mut buffer, rest);
            let length = part.len() as u64;
            place.bytes(record, offset, part)?;
            (record, offset, searched) = (record + 1, offset + length, 0);
        }
        let done = match got {
            Ok(0) => true,
            Ok(_) => false,
            Err(e) => {
                place.broken(&e, record, offset + buffer.len() as u64)?;
                true
            }
        };
        if done {
            return place.bytes(record, offset, buffer);
        }
    }
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
