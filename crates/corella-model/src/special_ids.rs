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

    /// From a generation_config.json. What is no id there (some files have -1) names nothing.
    pub(crate) fn from_generation_config(config: &Value) -> SpecialIds {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let eos = &config["eos_token_id"];
        let many = eos.as_array().map_or(std::slice::from_ref(eos), Vec::as_slice);
        SpecialIds { bos: id(&config["bos_token_id"]), eos: many.iter().filter_map(id).collect() }
    }

    /// Adds what another file names: a begin where none is known yet, and every end.
    pub(crate) fn add(&mut self, other: SpecialIds) {
        self.bos = self.bos.or(other.bos);
        for id in other.eos {
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
