//! The text of a JSON line that is longer than a document may be: decoded piece by piece and cut as other long texts are.

use std::borrow::Cow;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::jsonl::{no_object, no_text, rank};
use super::{Place, ProblemKind, TEXT_FIELDS, text};
use crate::data::document::Flow;

/// Bytes decoded at a time.
const STEP: usize = 1 << 16;

/// Reads the text field of one line.
pub(super) fn read(place: &mut Place<'_>, line: &[u8], wanted: Option<&str>, record: u64, offset: u64) -> Flow {
    if let Err(e) = check(line) {
        return no_object(place, &e, record, offset);
    }
    let mut found = [None; TEXT_FIELDS.len()];
    for_each_field(line, |key, value| {
        let rank = serde_json::from_slice::<Cow<'_, str>>(key).ok().and_then(|key| rank(&key, wanted));
        if let Some(rank) = rank {
            found[rank] = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
        }
    });
    let Some(raw) = found.into_iter().flatten().next() else { return no_text(place, wanted, record, offset) };
    // Nothing of a broken text is handed on.
    if let Some(e) = (Pieces { rest: raw }).find_map(Result::err) {
        return no_object(place, &e, record, offset);
    }
    let max = place.options.max_document;
    let (mut buffer, mut at, mut is_cut) = (String::new(), offset, false);
    for piece in (Pieces { rest: raw }).flatten() {
        buffer.push_str(&piece);
        while buffer.len() > max {
            if !is_cut {
                let what = format!("a text of more than {max} bytes: cut at line ends");
                place.report(ProblemKind::Cut, record, offset, what)?;
                is_cut = true;
            }
            let rest = buffer.split_off(text::cut(buffer.as_bytes(), max));
            let part = std::mem::replace(&mut buffer, rest);
            let length = part.len() as u64;
            place.hand_on(record, at, part)?;
            at += length;
        }
    }
    place.hand_on(record, at, buffer)
}

/// Checks that a line is an object, without keeping anything of it.
fn check(line: &[u8]) -> Result<(), serde_json::Error> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = ();

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_slice(line);
    (&mut json).deserialize_map(Object)?;
    json.end()
}

/// Calls `each` with key and value of every field of an object that was checked.
fn for_each_field<'a>(line: &'a [u8], mut each: impl FnMut(&'a [u8], &'a [u8])) {
    let (mut depth, mut start, mut at) = (0usize, 0, 0);
    let mut key = None;
    while at < line.len() {
        match line[at] {
            b'"' => at += string_end(&line[at + 1..]),
            b'{' | b'[' => {
                depth += 1;
                start = if depth == 1 { at + 1 } else { start };
            }
            b':' if depth == 1 => {
                key = Some(line[start..at].trim_ascii());
                start = at + 1;
            }
            b',' | b'}' | b']' => {
                if let Some(key) = key.take_if(|_| depth == 1) {
                    each(key, line[start..at].trim_ascii());
                    start = at + 1;
                }
                depth -= usize::from(line[at] != b',' && depth > 0);
            }
            _ => {}
        }
        at += 1;
    }
}

/// Bytes up to and with the quote that ends a string.
fn string_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    text.len()
}

/// The pieces of what stands between the quotes of a JSON string, decoded.
struct Pieces<'a> {
    rest: &'a [u8],
}

impl Iterator for Pieces<'_> {
    type Item = Result<String, serde_json::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (piece, rest) = self.rest.split_at(whole(self.rest, STEP));
        self.rest = rest;
        Some(serde_json::from_slice(&[b"\"", piece, b"\""].concat()))
    }
}

/// The end of a piece of some `step` bytes that divides neither a character nor an escape, nor two that are one character.
fn whole(raw: &[u8], step: usize) -> usize {
    if raw.len() <= step {
        return raw.len();
    }
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &raw[at..step]) {
        let start = at + found;
        at = start + escape(&raw[start..]);
        if at >= step {
            return if start > 0 { start } else { at.min(raw.len()) };
        }
    }
    let mut end = step;
    while end > at.max(1) && raw[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    end
}

/// Length of the escape that `raw` begins with; two surrogates are one.
fn escape(raw: &[u8]) -> usize {
    match raw {
        [_, b'u', b'd' | b'D', b'8' | b'9' | b'a'..=b'b' | b'A'..=b'B', _, _, b'\\', b'u', ..] => 12,
        [_, b'u', ..] => 6,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::{Pieces, for_each_field, whole};

    #[test]
    fn pieces_divide_nothing_that_belongs_together() {
        let text = r#"a\\n\\\"é\u00e9\ud83d\ude00😀\u2028\/x"#;
        let expected: String = serde_json::from_str(&format!("\"{text}\"")).expect("a string");
        for step in 12..text.len() + 2 {
            let (mut rest, mut out) = (text.as_bytes(), String::new());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(whole(rest, step));
                out += &serde_json::from_slice::<String>(&[b"\"", piece, b"\""].concat()).expect("a piece");
                rest = after;
            }
            assert_eq!(out, expected, "step {step}");
        }
        let long = text.repeat(10_000);
        let joined: String = (Pieces { rest: long.as_bytes() }).map(|p| p.expect("a piece")).collect();
        assert_eq!(joined, expected.repeat(10_000));
    }

    #[test]
    fn fields_are_those_of_the_object_itself() {
        let mut found = Vec::new();
        let line = br#" {"a":1, "b\\" : {"a":[1,{"c":","}],"d":"}"} ,"e":"\"x:,","f":[],"g":{}} "#;
        for_each_field(line, |key, value| found.push((String::from_utf8_lossy(key), String::from_utf8_lossy(value))));
        let expected = [
            (r#""a""#, "1"),
            (r#""b\\""#, r#"{"a":[1,{"c":","}],"d":"}"}"#),
            (r#""e""#, r#""\"x:,""#),
            (r#""f""#, "[]"),
            (r#""g""#, "{}"),
        ];
        assert_eq!(found, expected.map(|(k, v)| (k.into(), v.into())));
        for empty in [&b"{}"[..], b"{ }", b"", b"\"", b"}}"] {
            for_each_field(empty, |key, value| panic!("{key:?} {value:?}"));
        }
    }
}
