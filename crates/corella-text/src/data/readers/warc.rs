//! WARC (ISO 28500): the text of WET records, and of web pages in response records.

use std::io::BufRead;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::html::text_of;
use super::http::{Trouble, decoded};
use super::lines::{Line, Lines};
use super::{Place, ProblemKind, ReadOptions};
use crate::data::document::Flow;

/// Longest header line.
const LONGEST_LINE: usize = 64 << 10;
/// Most lines of a header.
const MOST_LINES: usize = 1000;

/// Most bytes of a record, and of what is inside its codings: a page is longer than its text.
fn most(max_document: usize) -> usize {
    max_document.saturating_mul(4)
}

/// The fields of a record's header that are looked at.
#[derive(Default)]
struct Header {
    kind: String,
    content_type: String,
    length: Option<u64>,
}

/// Reads record after record. Behind something that is no record it looks for the next line that begins one.
pub(super) fn read(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let limit = most(place.options.max_document) as u64;
    let mut lines = Lines::new(reader, LONGEST_LINE);
    let (mut line, mut body, mut record, mut lost) = (Vec::new(), Vec::new(), 0u64, false);
    // Records that may hold a page or its text, and records about pages.
    let (mut pages, mut about) = (0u64, 0u64);
    loop {
        let offset = lines.offset;
        match lines.next(&mut line) {
            Ok(Line::End) if pages == 0 && about > 0 => {
                let what =
                    format!("{about} records about pages and none with a page: of a WAT file take the WET or WARC");
                return place.report(ProblemKind::Unsupported, 0, 0, what);
            }
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
        pages += u64::from(wanted);
        about += u64::from(header.kind == "metadata");
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
    let found = match &header.content_type[..] {
        kind if kind.starts_with("text/plain") => return place.bytes(record, offset, body),
        kind if kind.starts_with("application/http") && header.kind == "response" => page(body, place.options),
        kind if kind.starts_with("text/html") => page_text(body, None, true, place.options).map(|text| (text, None)),
        _ => return Flow::Continue(()),
    };
    match found {
        Ok((text, problem)) => {
            if let Some((kind, what)) = problem {
                place.report(kind, record, offset, what)?;
            }
            // A response that is no page is no document, and no empty one either.
            if text.is_empty() { Flow::Continue(()) } else { place.document(record, offset, text) }
        }
        Err((kind, what)) => place.report(kind, record, offset, what),
    }
}

/// The text of an HTTP response, and what was wrong with it. The text is empty if the response is neither a page nor plain
/// text that was served successfully. Each step frees what it was given: a page may be as long as a record.
fn page(mut response: Vec<u8>, options: &ReadOptions) -> Result<(String, Option<Trouble>), Trouble> {
    let nothing = Ok((String::new(), None));
    let ends = [(&b"\r\n\r\n"[..], 4), (b"\n\n", 2)];
    let Some((head_end, body_start)) =
        ends.iter().find_map(|(end, length)| memchr::memmem::find(&response, end).map(|at| (at, at + length)))
    else {
        return nothing;
    };
    let head = String::from_utf8_lossy(&response[..head_end]).to_ascii_lowercase();
    let mut lines = head.lines();
    if lines.next().and_then(|status| status.split_whitespace().nth(1)) != Some("200") {
        return nothing;
    }
    let fields: Vec<(&str, &str)> = lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n, v.trim())).collect();
    let field = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let kind = field("content-type").unwrap_or("text/html");
    let is_html = kind.starts_with("text/html") || kind.starts_with("application/xhtml");
    if !is_html && !kind.starts_with("text/plain") {
        return nothing;
    }
    response.drain(..body_start);
    let codings = |name: &str| -> Vec<&str> {
        let all = fields.iter().filter(|(n, _)| *n == name).flat_map(|(_, v)| v.split(','));
        all.map(str::trim).filter(|c| !c.is_empty()).collect()
    };
    let (body, problem) = decoded(response, &codings("transfer-encoding"), &codings("content-encoding"), options)?;
    let charset = kind.split_once("charset=").map(|(_, c)| c.trim_matches(['"', '\'', ' ']));
    Ok((page_text(body, charset, is_html, options)?, problem))
}

/// The text of a page whose codings are undone.
fn page_text(body: Vec<u8>, charset: Option<&str>, is_html: bool, options: &ReadOptions) -> Result<String, Trouble> {
    let text = decode(body, charset, most(options.max_document))?;
    Ok(if is_html { text_of(&text) } else { text })
}

/// Decodes a page by the charset of its header, else of its `<meta>`, else as UTF-8, else as Windows-1252, which is what
/// browsers assume. More than `most` bytes of text are too large.
fn decode(body: Vec<u8>, charset: Option<&str>, most: usize) -> Result<String, Trouble> {
    let meta = || {
        let head = body[..body.len().min(1024)].to_ascii_lowercase();
        let at = memchr::memmem::find(&head, b"charset=")? + 8;
        let name: Vec<u8> = head[at..]
            .iter()
            .copied()
            .skip_while(|b| matches!(b, b'"' | b'\''))
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            .collect();
        // A page whose `<meta>` could be read is no UTF-16, whatever it says: the standard takes it for UTF-8.
        Encoding::for_label(&name).map(|e| if e == UTF_16LE || e == UTF_16BE { UTF_8 } else { e })
    };
    let named = charset.and_then(|c| Encoding::for_label(c.as_bytes())).or_else(meta);
    let encoding = named.unwrap_or_else(|| if std::str::from_utf8(&body).is_ok() { UTF_8 } else { WINDOWS_1252 });
    let body = match String::from_utf8(body) {
        Ok(text) if encoding == UTF_8 => return Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Ok(text) => text.into_bytes(),
        Err(e) => e.into_bytes(),
    };
    let text = encoding.decode(&body).0;
    if text.len() > most {
        let what = format!("a page of {} bytes as {}, {} in UTF-8", body.len(), encoding.name(), text.len());
        return Err((ProblemKind::TooLarge, format!("{what}, more than {most}")));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Trouble, page};
    use crate::data::ProblemKind;
    use crate::data::readers::ReadOptions;

    fn read(head: &str, body: &[u8]) -> Result<(String, Option<Trouble>), Trouble> {
        let response = [format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_bytes(), body.to_vec()].concat();
        page(response, &ReadOptions { max_document: 1 << 20, ..ReadOptions::default() })
    }

    fn with(kind: &str, body: &[u8]) -> Option<String> {
        read(&format!("Content-Type: {kind}"), body).ok().map(|(text, _)| text).filter(|text| !text.is_empty())
    }

    #[test]
    fn charsets_come_from_header_meta_or_the_browsers_default() {
        assert_eq!(with("text/html; charset=ISO-8859-2", b"\xb1").as_deref(), Some("ą"));
        assert_eq!(with("text/html", b"<meta charset='koi8-r'><p>\xc4\xc1").as_deref(), Some("да"));
        assert_eq!(with("text/html", b"caf\xe9").as_deref(), Some("café"));
        assert_eq!(with("text/html", "café".as_bytes()).as_deref(), Some("café"));
        assert_eq!(with("image/png", b"\x89PNG"), None);
        assert_eq!(with("text/html", "<meta charset=\"utf-16\">für".as_bytes()).as_deref(), Some("für"));
        assert_eq!(with("text/html; charset=utf-16le", b"h\0i\0").as_deref(), Some("hi"));
        assert_eq!(with("text/html", "\u{feff}für".as_bytes()).as_deref(), Some("für"));
        let gone = page(b"HTTP/1.1 404 Not Found\r\n\r\n<p>gone".to_vec(), &ReadOptions::default());
        assert_eq!(gone, Ok((String::new(), None)));
    }

    #[test]
    fn a_page_that_is_too_long_in_utf_8_is_reported() {
        let latin = vec![0xe9; 3 << 20];
        let found = read("Content-Type: text/html; charset=iso-8859-1", &latin);
        assert!(matches!(&found, Err((ProblemKind::TooLarge, _))), "{found:?}");
        let short = read("Content-Type: text/html; charset=iso-8859-1", &latin[..2 << 20]);
        assert_eq!(short.map(|(text, _)| text.len()), Ok(4 << 20));
    }
}
