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

/// `eos_token_id` of a config.json.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl SpecialIds {
    /// From `bos_token_id` and `eos_token_id` of a config.json.
    pub(crate) fn from_config(bos: Option<u32>, eos: Option<OneOrMany>) -> SpecialIds {
        let eos = match eos {
            None => Vec::new(),
            Some(OneOrMany::One(id)) => vec![id],
            Some(OneOrMany::Many(ids)) => ids,
        };
        SpecialIds { bos, eos }
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
