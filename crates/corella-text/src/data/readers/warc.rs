//! WARC (ISO 28500): the text of WET records, and of web pages in response records.

use std::io::{BufRead, Read};

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

use super::html::text_of;
use super::lines::{Line, Lines};
use super::{Place, ProblemKind};
use crate::data::document::Flow;

/// Longest header line.
const LONGEST_LINE: usize = 64 << 10;
/// Most lines of a header.
const MOST_LINES: usize = 1000;

/// The fields of a record's header that are looked at.
#[derive(Default)]
struct Header {
    kind: String,
    content_type: String,
    length: Option<u64>,
}

/// Reads record after record. Behind something that is no record it looks for the next line that begins one.
pub(super) fn read(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let limit = place.options.max_document.saturating_mul(4) as u64;
    let mut lines = Lines::new(reader, LONGEST_LINE);
    let (mut line, mut body, mut record, mut lost) = (Vec::new(), Vec::new(), 0u64, false);
    loop {
        let offset = lines.offset;
        match lines.next(&mut line) {
            Ok(Line::End) => return Flow::Continue(()),
            Ok(_) if line.starts_with(b"WARC/") => {}
            Ok(_) => {
                if !line.is_empty() && !lost {
                    place.report(ProblemKind::BadRecord, record, offset, "no WARC record begins here")?;
                    lost = true;
                }
                continue;
            }
            Err(e) => return place.broken(&e, record, lines.offset),
        }
        lost = false;
        let header = match header(&mut lines, &mut line) {
            Ok(header) => header,
            Err(e) => return place.broken(&e, record, lines.offset),
        };
        let Some(length) = header.length else {
            place.report(ProblemKind::BadRecord, record, offset, "a header without a usable Content-Length")?;
            record += 1;
            continue;
        };
        let wanted = matches!(&header.kind[..], "conversion" | "response" | "resource");
        let there = if wanted && length <= limit {
            lines.take(length, &mut body).map(|()| body.len() as u64)
        } else {
            lines.skip(length)
        };
        match there {
            Ok(n) if n < length => {
                let what = format!("the record claims {length} bytes, but the source ends after {n}");
                return place.report(ProblemKind::Damaged, record, lines.offset, what);
            }
            Err(e) => return place.broken(&e, record, lines.offset),
            Ok(_) if wanted && length > limit => {
                let what = format!("a record of {length} bytes, more than {limit}");
                place.report(ProblemKind::TooLarge, record, offset, what)?;
            }
            Ok(_) if wanted => hand_on(place, &header, std::mem::take(&mut body), record, offset)?,
            Ok(_) => {}
        }
        record += 1;
    }
}

fn header(lines: &mut Lines<'_>, line: &mut Vec<u8>) -> std::io::Result<Header> {
    let mut header = Header::default();
    for _ in 0..MOST_LINES {
        if lines.next(line)? == Line::End || line.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(line);
        let Some((name, value)) = text.split_once(':') else { continue };
        let value = value.trim();
        match &name.to_ascii_lowercase()[..] {
            "warc-type" => header.kind = value.to_ascii_lowercase(),
            "content-type" => header.content_type = value.to_ascii_lowercase(),
            "content-length" => header.length = value.parse().ok(),
            _ => {}
        }
    }
    Ok(header)
}

fn hand_on(place: &mut Place<'_>, header: &Header, body: Vec<u8>, record: u64, offset: u64) -> Flow {
    match &header.content_type[..] {
        kind if kind.starts_with("text/plain") => place.bytes(record, offset, body),
        kind if kind.starts_with("application/http") && header.kind == "response" => {
            match page(&body, place.options.max_document) {
                Some(text) => place.document(record, offset, text),
                None => Flow::Continue(()),
            }
        }
        kind if kind.starts_with("text/html") => place.document(record, offset, text_of(&decode(&body, None))),
        _ => Flow::Continue(()),
    }
}

/// The text of an HTTP response, if it is a page or plain text that was served successfully.
fn page(response: &[u8], max: usize) -> Option<String> {
    let (head_end, body_start) = match memchr::memmem::find(response, b"\r\n\r\n") {
        Some(at) => (at, at + 4),
        None => memchr::memmem::find(response, b"\n\n").map(|at| (at, at + 2))?,
    };
    let head = String::from_utf8_lossy(&response[..head_end]).to_ascii_lowercase();
    let mut lines = head.lines();
    if lines.next()?.split_whitespace().nth(1) != Some("200") {
        return None;
    }
    let fields: Vec<(&str, &str)> = lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n, v.trim())).collect();
    let field = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let kind = field("content-type").unwrap_or("text/html");
    let is_html = kind.starts_with("text/html") || kind.starts_with("application/xhtml");
    if !is_html && !kind.starts_with("text/plain") {
        return None;
    }
    let mut body = response[body_start..].to_vec();
    if field("transfer-encoding") == Some("chunked") {
        body = dechunk(&body).unwrap_or(body);
    }
    // Crawlers mostly store what they unpacked, with the original header.
    if body.starts_with(b"\x1f\x8b") {
        let mut unpacked = Vec::new();
        let gunzip = flate2::read::MultiGzDecoder::new(&body[..]);
        gunzip.take(max as u64 * 4).read_to_end(&mut unpacked).ok();
        body = unpacked;
    }
    let charset = kind.split_once("charset=").map(|(_, c)| c.trim_matches(['"', '\'', ' ']));
    let text = decode(&body, charset);
    Some(if is_html { text_of(&text) } else { text })
}

/// The body out of its chunks; `None` if it is not in chunks.
fn dechunk(body: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut whole) = (body, Vec::with_capacity(body.len()));
    loop {
        let line = memchr::memchr(b'\n', rest)?;
        let size = std::str::from_utf8(rest[..line].trim_ascii()).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[line + 1..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?;
        rest = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")).unwrap_or(rest);
    }
}

/// Decodes a page by the charset of its header, else of its `<meta>`, else as UTF-8, else as Windows-1252, which is what
/// browsers assume.
fn decode(body: &[u8], charset: Option<&str>) -> String {
    let meta = || {
        let head = body[..body.len().min(1024)].to_ascii_lowercase();
        let at = memchr::memmem::find(&head, b"charset=")? + 8;
        let name: Vec<u8> = head[at..]
            .iter()
            .copied()
            .skip_while(|b| matches!(b, b'"' | b'\''))
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            .collect();
        Encoding::for_label(&name)
    };
    let named = charset.and_then(|c| Encoding::for_label(c.as_bytes())).or_else(meta);
    let encoding = named.unwrap_or_else(|| if std::str::from_utf8(body).is_ok() { UTF_8 } else { WINDOWS_1252 });
    encoding.decode(body).0.into_owned()
}

#[cfg(test)]
mod tests {
    use super::{dechunk, page};

    #[test]
    fn chunks_are_joined_and_other_bodies_left_alone() {
        assert_eq!(dechunk(b"4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n").as_deref(), Some(&b"Wikipedia"[..]));
        assert_eq!(dechunk(b"<html>"), None);
        assert_eq!(dechunk(b"ffffffffffffffff\r\nx"), None);
    }

    #[test]
    fn charsets_come_from_header_meta_or_the_browsers_default() {
        let head = |kind: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n").into_bytes();
        let with = |kind: &str, body: &[u8]| page(&[head(kind), body.to_vec()].concat(), 1 << 20);
        assert_eq!(with("text/html; charset=ISO-8859-2", b"\xb1").as_deref(), Some("ą"));
        assert_eq!(with("text/html", b"<meta charset='koi8-r'><p>\xc4\xc1").as_deref(), Some("да"));
        assert_eq!(with("text/html", b"caf\xe9").as_deref(), Some("café"));
        assert_eq!(with("text/html", "café".as_bytes()).as_deref(), Some("café"));
        assert_eq!(with("image/png", b"\x89PNG"), None);
        assert_eq!(page(b"HTTP/1.1 404 Not Found\r\n\r\n<p>gone", 1 << 20), None);
    }
}
