//! One JSON object per line.

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::lines::{Line, Lines};
use super::{Place, ProblemKind, TEXT_FIELDS, json_long};
use crate::data::document::Flow;

/// Bytes of a line for other fields than the text.
const FIELDS: usize = 1 << 16;

/// Reads the text field of each line.
pub(super) fn read(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    // Escapes make a text up to six times longer; other fields come on top.
    let limit = place.options.max_document.saturating_mul(6).saturating_add(FIELDS);
    // A longer line is not held a second and third time: its text is decoded piece by piece.
    let long = place.options.max_document.saturating_add(FIELDS);
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
                let body = if record == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
                if body.len() > long {
                    json_long::read(place, body, wanted.as_deref(), record, offset)?;
                } else if !body.trim_ascii().is_empty() {
                    one(place, body, wanted.as_deref(), record, offset)?;
                }
            }
            Err(e) => return place.broken(&e, record, lines.offset),
        }
    }
    Flow::Continue(())
}

fn one(place: &mut Place<'_>, line: &[u8], wanted: Option<&str>, record: u64, offset: u64) -> Flow {
    let mut json = serde_json::Deserializer::from_slice(line);
    let found = Field { wanted }.deserialize(&mut json).and_then(|found| json.end().map(|()| found));
    match found {
        Ok(Some(text)) => place.document(record, offset, text.into_owned()),
        Ok(None) => no_text(place, wanted, record, offset),
        Err(e) => no_object(place, &e, record, offset),
    }
}

/// Reports a line without a text.
pub(super) fn no_text(place: &mut Place<'_>, wanted: Option<&str>, record: u64, offset: u64) -> Flow {
    let what = match wanted {
        Some(field) => format!("no string in the field {field}"),
        None => format!("no string in any of the fields {}; name it with --field", TEXT_FIELDS.join(", ")),
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
