//! Which format a stream has.

use std::io::{self, BufRead};

/// Bytes that are looked at.
const HEAD: usize = 4096;

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Empty,
    Gzip,
    Zstd,
    Tar,
    Zip,
    Parquet,
    Warc,
    /// Objects in any layout.
    Json,
    /// One object per line.
    Jsonl,
    Text,
    /// A known format that is read as if it were text.
    Raw(&'static str),
    /// A known format that is not read.
    Unsupported(&'static str),
    /// No text.
    Binary(&'static str),
}

/// Beginnings of formats that are not read.
const UNSUPPORTED: [(&[u8], &str); 8] = [
    (b"\x04\x22\x4d\x18", "lz4 is not read: compress with zstd or gzip instead"),
    (b"BZh", "bzip2 is not read: compress with zstd or gzip instead"),
    (b"\xfd7zXZ", "xz is not read: compress with zstd or gzip instead"),
    (b"7z\xbc\xaf", "7z is not read: pack as zip or tar instead"),
    (b"%PDF-", "PDF is not read: extract its text first, with pdftotext FILE.pdf"),
    (b"ARROW1", "Arrow is not read: save as Parquet instead"),
    (b"\xff\xfe", "UTF-16 is not read: save as UTF-8 instead"),
    (b"\xfe\xff", "UTF-16 is not read: save as UTF-8 instead"),
];

/// Reads the first bytes of a stream.
pub(super) fn peek(reader: &mut dyn BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    io::Read::read_to_end(&mut io::Read::take(&mut *reader, HEAD as u64), &mut head)
        .map(|_| ())
        .or_else(|e| if head.is_empty() { Err(e) } else { Ok(()) })?;
    Ok(head)
}

/// The format by content; the name's ending where content does not decide.
pub(super) fn detect(head: &[u8], name: &str, depth: usize) -> Format {
    let name = name.to_ascii_lowercase();
    let unwrapped = if depth > 0 { name.trim_end_matches(".gz").trim_end_matches(".zst") } else { &name[..] };
    let ending = unwrapped.rsplit('.').next().unwrap_or("");
    match head {
        [] => return Format::Empty,
        [0x1f, 0x8b, ..] => return Format::Gzip,
        // A frame, or the skippable frame that parallel compressors put first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => return Format::Zstd,
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => return Format::Zip,
        [b'P', b'A', b'R', b'1', ..] => return Format::Parquet,
        _ => {}
    }
    if head.get(257..262) == Some(b"ustar") {
        return Format::Tar;
    }
    if head.starts_with(b"WARC/") {
        return Format::Warc;
    }
    if let Some((_, what)) = UNSUPPORTED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Format::Unsupported(what);
    }
    if head.contains(&0) {
        return Format::Binary("it holds zero bytes, which text does not");
    }
    let body = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match ending {
        "json" => Format::Json,
        "jsonl" | "ndjson" if is_spread(body) => Format::Json,
        "jsonl" | "ndjson" => Format::Jsonl,
        "txt" | "md" | "text" => Format::Text,
        _ if begins_object(body) && is_spread(body) => Format::Json,
        _ if begins_object(body) => Format::Jsonl,
        _ if body.strip_prefix(b"[").is_some_and(|b| begins_object(b.trim_ascii_start())) => Format::Json,
        "html" | "htm" | "xhtml" => Format::Raw("HTML is taken as it is, tags included: extract its text first"),
        "xml" => Format::Raw("XML is taken as it is, tags included: extract its text first"),
        "csv" | "tsv" => Format::Raw("a table is taken as one text: write JSON lines or Parquet to read its rows"),
        _ => Format::Text,
    }
}

/// Whether an object begins here.
fn begins_object(body: &[u8]) -> bool {
    body.strip_prefix(b"{").is_some_and(|b| b.trim_ascii_start().starts_with(b"\""))
}

/// Whether the first line is a bracket alone: then the objects are written over several lines.
fn is_spread(body: &[u8]) -> bool {
    let mut lines = body.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default().trim_ascii();
    (first == b"{" || first == b"[") && lines.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::{Format, detect};

    #[test]
    fn content_decides_before_the_name() {
        assert_eq!(detect(b"\x1f\x8b\x08", "a.txt", 0), Format::Gzip);
        assert_eq!(detect(b"{\"text\": 1}", "a", 0), Format::Jsonl);
        assert_eq!(detect(b"{\"text\": 1}", "a.txt", 0), Format::Text);
        assert_eq!(detect(b"{ \t\"text\": 1}", "a", 0), Format::Jsonl);
        assert_eq!(detect(b"{ text }", "a", 0), Format::Text);
        assert_eq!(detect(b"no JSON", "A.JSONL.GZ", 1), Format::Jsonl);
        assert!(matches!(detect(b"a,b\n1,2\n", "a.CSV.gz", 1), Format::Raw(_)));
        assert_eq!(detect(b"no JSON", "a.jsonl.gz", 1), Format::Jsonl);
        assert_eq!(detect(b"WARC/1.0\r\n", "a.txt", 0), Format::Warc);
        assert!(matches!(detect(b"\x7fELF\x02\x00", "a", 0), Format::Binary(_)));
        assert_eq!(detect(b"[{}]", "a.json", 0), Format::Json);
    }

    #[test]
    fn the_layout_of_json_is_seen() {
        assert_eq!(detect(b"{\n  \"text\": 1\n}", "a.jsonl", 0), Format::Json);
        assert_eq!(detect(b"{\n  \"text\": 1\n}", "a", 0), Format::Json);
        assert_eq!(detect(b"[\r\n{\"text\": 1}]", "a.ndjson", 0), Format::Json);
        assert_eq!(detect(b"[{\"text\": 1}]", "a", 0), Format::Json);
        assert_eq!(detect(b"[1] a reference", "a", 0), Format::Text);
        assert_eq!(detect(b"[1]\n", "a.jsonl", 0), Format::Jsonl);
    }
}
