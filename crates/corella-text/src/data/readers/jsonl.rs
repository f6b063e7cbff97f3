//! One JSON object per line; several on a line are taken, too.

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;
use std::ops::ControlFlow;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::lines::{Line, Lines};
use super::{Place, ProblemKind, TEXT_FIELDS, json_long, json_stream};
use crate::data::document::Flow;

/// Bytes of a line for other fields than the text.
const FIELDS: usize = 1 << 16;

/// Most bytes of an object: escapes make a text up to six times longer; other fields come on top.
pub(super) fn most(place: &Place<'_>) -> usize {
    place.options.max_document.saturating_mul(6).saturating_add(FIELDS)
}

/// Reads the text field of each line.
pub(super) fn read(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let limit = most(place);
    let wanted = place.options.field.clone();
    let mut lines = Lines::new(reader, limit);
    let mut line = Vec::new();
    for record in 0.. {
        let offset = lines.offset;
        match lines.next(&mut line) {
            Ok(Line::End) => break,
            Ok(Line::TooLong) => {
                place.report(ProblemKind::TooLarge, record, offset, format!("a line of more than {limit} bytes"))?;
            }
            Ok(Line::Whole) => {
                let mark = if record == 0 && line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
                value(place, &mut line[mark..], wanted.as_deref(), record, offset)?;
            }
            Err(e) => return place.broken(&e, record, lines.offset),
        }
    }
    Flow::Continue(())
}

/// Reads the text field of one object, or of several that stand on one line.
pub(super) fn value(place: &mut Place<'_>, json: &mut [u8], wanted: Option<&str>, record: u64, offset: u64) -> Flow {
    if json.trim_ascii().is_empty() {
        return Flow::Continue(());
    }
    // What is longer is not held a second and third time: its text is decoded piece by piece.
    let is_long = json.len() > place.options.max_document.saturating_add(FIELDS);
    let error = if is_long { None } else { one(place, json, wanted, record, offset)? };
    if !is_long && error.is_none() {
        return Flow::Continue(());
    }
    let parts = json_stream::several(json);
    if !parts.is_empty() {
        return parts.into_iter().try_for_each(|part| {
            let at = offset + part.start as u64;
            value(place, &mut json[part], wanted, record, at)
        });
    }
    if mend_halves(json) > 0 {
        let what = "half of a character in an escape (\\ud800 to \\udfff alone); it became the replacement character";
        place.report(ProblemKind::BadUtf8, record, offset, what)?;
        return value(place, json, wanted, record, offset);
    }
    match error {
        Some(error) => no_object(place, &error, record, offset),
        None => json_long::read(place, json, wanted, record, offset),
    }
}

/// Hands on the text of one object; the error where it is none.
fn one(
    place: &mut Place<'_>,
    json: &[u8],
    wanted: Option<&str>,
    record: u64,
    offset: u64,
) -> ControlFlow<(), Option<serde_json::Error>> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    let found = Field { wanted }.deserialize(&mut parser).and_then(|found| parser.end().map(|()| found));
    match found {
        Ok(Some(text)) => place.document(record, offset, text.into_owned())?,
        Ok(None) => no_text(place, wanted, record, offset)?,
        Err(e) => return ControlFlow::Continue(Some(e)),
    }
    ControlFlow::Continue(None)
}

/// Puts the replacement character where an escape stands for half of a character and the other half is missing, as programs
/// write that cut texts between the two. How many there were.
fn mend_halves(json: &mut [u8]) -> usize {
    let half = |json: &[u8], at: usize| -> Option<u16> {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(|unit| unit & 0xf800 == 0xd800)
    };
    let (mut at, mut mended) = (0, 0);
    while let Some(found) = memchr::memchr(b'\\', json.get(at..).unwrap_or_default()) {
        at += found;
        match half(json, at) {
            Some(first) if first < 0xdc00 && half(json, at + 6).is_some_and(|second| second >= 0xdc00) => at += 12,
            Some(_) => {
                json[at..at + 6].copy_from_slice(b"\\ufffd");
                mended += 1;
                at += 6;
            }
            None => at += 2,
        }
    }
    mended
}

/// Reports a line without a text.
pub(super) fn no_text(place: &mut Place<'_>, wanted: Option<&str>, record: u64, offset: u64) -> Flow {
    let what = match wanted {
        Some(field) => format!("no string in the field {field}"),
        None => format!("no string in any of the fields {}", TEXT_FIELDS.join(", ")),
    };
    place.report(ProblemKind::NoText, record, offset, what)
}

/// Reports a line that is no object.
pub(super) fn no_object(place: &mut Place<'_>, error: &serde_json::Error, record: u64, offset: u64) -> Flow {
    place.report(ProblemKind::BadRecord, record, offset, format!("not a JSON object: {error}"))
}

/// The best place of a key among the fields that may hold the text: the one wanted, else the usual ones in their order.
pub(super) fn rank(key: &str, wanted: Option<&str>) -> Option<usize> {
    match wanted {
        Some(wanted) => (key == wanted).then_some(0),
        None => TEXT_FIELDS.iter().position(|f| key == *f),
    }
}

/// Picks one string out of an object and passes over the rest without keeping it.
struct Field<'w> {
    wanted: Option<&'w str>,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        // Of fields with the same key the last one counts, as in Python.
        let mut found = [const { None }; TEXT_FIELDS.len()];
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match rank(&key, self.wanted) {
                Some(rank) if found[..rank].iter().all(Option::is_none) => {
                    found[rank] = map.next_value::<MaybeText<'de>>()?.0;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found.into_iter().flatten().next())
    }
}

/// A string, or anything else, which counts as none.
struct MaybeText<'de>(Option<Cow<'de, str>>);

impl<'de> serde::Deserialize<'de> for MaybeText<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = MaybeText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Borrowed(v))))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Owned(v.to_owned()))))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }
        }
        json.deserialize_any(V)
    }
}
