//! Transfer and content codings of HTTP bodies: chunks, gzip, deflate, zstd.

use std::io::{self, Read};

use super::{ProblemKind, ReadOptions};

/// What was wrong with a body.
pub(super) type Trouble = (ProblemKind, String);

/// Bytes of a body that tell text from compressed data.
const HEAD: usize = 1024;
/// Largest window of zstd in HTTP, as a power of two (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

/// Undoes codings, the last one first. Crawlers mostly store what they unpacked, with the original header: a body that is
/// none of what its header says is left alone. What comes before damage is kept, and the damage told.
pub(super) fn decoded(
    mut body: Vec<u8>,
    transfer: &[&str],
    content: &[&str],
    options: &ReadOptions,
) -> Result<(Vec<u8>, Option<Trouble>), Trouble> {
    let most = options.max_document.saturating_mul(4);
    let mut trouble = None;
    for coding in content.iter().chain(transfer).rev() {
        let (coding, packed) = (coding.trim_start_matches("x-"), is_packed(&body));
        let unpacked = match coding {
            "chunked" => {
                dechunk(&mut body);
                continue;
            }
            // Told by their first bytes below, whether or not a header names them.
            "gzip" | "zstd" => undo_known(&body, most),
            "deflate" if packed => {
                let zlib = unpack(flate2::read::ZlibDecoder::new(&body[..]), most);
                // Some servers send it without the wrapping that the standard asks for.
                Some(if zlib.0.is_empty() { unpack(flate2::read::DeflateDecoder::new(&body[..]), most) } else { zlib })
            }
            "deflate" | "identity" => None,
            _ if packed => {
                let what = format!("a body in the coding {coding}, which is not read; gzip, deflate and zstd are");
                return Err((ProblemKind::Unsupported, what));
            }
            _ => None,
        };
        trouble = settle(&mut body, unpacked, coding)?.or(trouble);
    }
    let unpacked = undo_known(&body, most);
    trouble = settle(&mut body, unpacked, "gzip or zstd")?.or(trouble);
    Ok((body, trouble))
}

/// Bytes out of a coding, and the error that ended them.
type Unpacked = (Vec<u8>, io::Result<()>);

/// Puts what was unpacked in the body's place.
fn settle(body: &mut Vec<u8>, unpacked: Option<Unpacked>, coding: &str) -> Result<Option<Trouble>, Trouble> {
    let Some((bytes, ended)) = unpacked else { return Ok(None) };
    let trouble = ended.err().map(|e| match e.kind() {
        io::ErrorKind::FileTooLarge => (ProblemKind::TooLarge, format!("a body in the coding {coding}: {e}")),
        _ => (ProblemKind::Damaged, format!("a body in the coding {coding}, damaged: {e}")),
    });
    if bytes.is_empty()
        && let Some(trouble) = trouble
    {
        return Err(trouble);
    }
    *body = bytes;
    Ok(trouble)
}

/// Unpacks what begins like gzip or zstd.
fn undo_known(body: &[u8], most: usize) -> Option<Unpacked> {
    if body.starts_with(b"\x1f\x8b") {
        return Some(unpack(flate2::read::MultiGzDecoder::new(body), most));
    }
    if body.starts_with(b"\x28\xb5\x2f\xfd") {
        let decoder = zstd::stream::read::Decoder::with_buffer(body).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW)?;
            Ok(decoder)
        });
        return Some(decoder.map_or_else(|e| (Vec::new(), Err(e)), |decoder| unpack(decoder, most)));
    }
    None
}

/// Reads at most `most` bytes.
fn unpack(decoder: impl Read, most: usize) -> Unpacked {
    let mut bytes = Vec::new();
    let mut decoder = decoder.take(most as u64 + 1);
    let ended = decoder.read_to_end(&mut bytes).map(|_| ());
    if bytes.len() > most {
        bytes.truncate(most);
        let what = format!("more than {most} bytes inside it");
        return (bytes, Err(io::Error::new(io::ErrorKind::FileTooLarge, what)));
    }
    (bytes, ended)
}

/// Whether bytes are no text: compressed data hold control characters, one in ten bytes.
fn is_packed(body: &[u8]) -> bool {
    let head = &body[..body.len().min(HEAD)];
    head.iter().any(|b| b.is_ascii_control() && !matches!(b, b'\t'..=b'\r' | 0x1b))
}

/// Joins a body's chunks in their place; leaves a body alone that is not in chunks.
fn dechunk(body: &mut Vec<u8>) {
    let mut at = 0;
    loop {
        match chunk(body, at) {
            Some((0, ..)) => break,
            Some((size, start)) => at = start + size,
            None => return,
        }
    }
    let (mut at, mut end) = (0, 0);
    while let Some((size, start)) = chunk(body, at).filter(|(size, _)| *size > 0) {
        body.copy_within(start..start + size, end);
        (at, end) = (start + size, end + size);
    }
    body.truncate(end);
}

/// Length and start of the chunk whose line begins at `at`, behind the line end of the chunk before.
fn chunk(body: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = &body[at..];
    let rest = if at == 0 { rest } else { rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")).unwrap_or(rest) };
    let line = memchr::memchr(b'\n', rest)?;
    let size = std::str::from_utf8(rest[..line].trim_ascii()).ok()?.split(';').next()?;
    let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
    let start = body.len() - rest.len() + line + 1;
    (size <= body.len() - start).then_some((size, start))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Trouble, decoded};
    use crate::data::ProblemKind;
    use crate::data::readers::ReadOptions;

    const PAGE: &[u8] = "<p>Straße, rue, улица: a page in many codings, one after the other.".as_bytes();

    fn undo(body: &[u8], transfer: &[&str], content: &[&str]) -> Result<(Vec<u8>, Option<Trouble>), Trouble> {
        let options = ReadOptions { max_document: 1 << 20, ..ReadOptions::default() };
        decoded(body.to_vec(), transfer, content, &options)
    }

    fn whole(body: &[u8], transfer: &[&str], content: &[&str]) -> Vec<u8> {
        let (bytes, trouble) = undo(body, transfer, content).expect("a body");
        assert_eq!(trouble, None);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).expect("written");
        out.finish().expect("written")
    }

    fn chunked(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for chunk in bytes.chunks(7) {
            write!(out, "{:x};name=value\r\n", chunk.len()).expect("written");
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    }

    #[test]
    fn chunks_are_joined_and_other_bodies_left_alone() {
        assert_eq!(whole(b"4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n", &["chunked"], &[]), b"Wikipedia");
        for other in [&b"<html>"[..], b"ffffffffffffffff\r\nx", b"5\r\nab", b""] {
            assert_eq!(whole(other, &["chunked"], &[]), other);
        }
    }

    #[test]
    fn every_coding_is_undone_and_unpacked_bodies_are_left_alone() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(PAGE).expect("written");
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        raw.write_all(PAGE).expect("written");
        let zstd = zstd::encode_all(PAGE, 1).expect("compressed");
        for (body, coding) in [
            (zlib.finish().expect("written"), "deflate"),
            (raw.finish().expect("written"), "deflate"),
            (zstd, "zstd"),
            (gzip(PAGE), "gzip"),
            (gzip(PAGE), "x-gzip"),
        ] {
            assert_eq!(whole(&body, &[], &[coding]), PAGE, "{coding}");
            assert_eq!(whole(&chunked(&body), &[coding, "chunked"], &[]), PAGE, "{coding}, chunked");
            assert_eq!(whole(&chunked(&gzip(&body)), &["chunked"], &[coding, "gzip"]), PAGE, "{coding}, gzip");
        }
        for coding in ["deflate", "zstd", "gzip", "br", "identity"] {
            assert_eq!(whole(PAGE, &[], &[coding]), PAGE, "{coding} undone already");
        }
    }

    #[test]
    fn what_cannot_be_undone_is_told_and_no_text() {
        // PAGE as Google's encoder packs it, which is a frame around the text for one as short.
        let brotli = [&b"\x0b\x24\x80"[..], PAGE, b"\x03"].concat();
        let found = undo(&brotli, &[], &["br"]).expect_err("brotli");
        assert!(found.0 == ProblemKind::Unsupported && found.1.contains("br"), "{found:?}");
        let packed = gzip(&PAGE.repeat(100));
        let (bytes, trouble) = undo(&packed[..packed.len() - 8], &[], &["gzip"]).expect("a part");
        assert!(PAGE.repeat(100).starts_with(&bytes) && !bytes.is_empty());
        assert_eq!(trouble.map(|(kind, _)| kind), Some(ProblemKind::Damaged));
        assert_eq!(undo(&packed[..10], &[], &["gzip"]).map_err(|(kind, _)| kind), Err(ProblemKind::Damaged));
        let bomb = gzip(&vec![b' '; 5 << 20]);
        let (bytes, trouble) = undo(&bomb, &[], &["gzip"]).expect("a part");
        assert_eq!((bytes.len(), trouble.map(|(kind, _)| kind)), (4 << 20, Some(ProblemKind::TooLarge)));
    }
}
