//! The token ids that a model's own files name.

use serde::Deserialize;
use serde_json::Value;

/// Begin and end of a text, as far as the files name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Stands in front of every document.
    pub bos: Option<u32>,
    /// Any of them ends a text.
    pub eos: Vec<u32>,
}

/// `bos_token_id` or `eos_token_id` of a config.json.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a token id or a list of token ids was expected")]
pub(crate) enum OneOrMany {
    One(i64),
    Many(Vec<i64>),
}

/// The ids, without those that no token has: some configurations say -1 where there is none.
fn ids(given: Option<OneOrMany>) -> Vec<u32> {
    let all = match given {
        None => Vec::new(),
        Some(OneOrMany::One(id)) => vec![id],
        Some(OneOrMany::Many(ids)) => ids,
    };
    all.into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
}

impl SpecialIds {
    /// From `bos_token_id` and `eos_token_id` of a config.json.
    pub(crate) fn from_config(bos: Option<OneOrMany>, eos: Option<OneOrMany>) -> SpecialIds {
        SpecialIds { bos: ids(bos).first().copied(), eos: ids(eos) }
    }

    /// Adds the ends of a text that another file names.
    pub(crate) fn add_eos(&mut self, more: Option<OneOrMany>) {
        for id in ids(more) {
            if !self.eos.contains(&id) {
                self.eos.push(id);
            }
        }
    }

    /// `eos_token_id` for a config.json: a number, a list where there are several, null where none is known (readers would
    /// otherwise take GPT-2's, which smaller vocabularies do not have).
    pub(crate) fn eos_value(&self) -> Value {
        match &self.eos[..] {
            [] => Value::Null,
            [one] => (*one).into(),
            many => many.into(),
        }
    }
}
