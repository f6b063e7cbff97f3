//! The line of log.jsonl: an update, and what the run knows beside it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::Standing;
use crate::step::Update;

/// What is told of an update.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// What it did.
    #[serde(flatten)]
    pub update: Update,
    /// Part of the device's peak that the model's operations took (6N + 6·L·C·T per token), where the peak is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Tokens seen by tokens of the data: below 1 the share of the data that was read.
    pub epochs: f64,
    /// Validation loss after the update, where measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// The same in bits per byte of text, which is comparable between vocabularies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_bits_per_byte: Option<f64>,
    /// How it stands beside the reference curve, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// Scores of evaluations after the update, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
    /// Seconds in the run until here, over all sessions.
    pub elapsed: f64,
    /// Seconds until the last update, at this session's pace with all that lies between its updates.
    pub eta: f64,
    /// Seconds since 1970 by the wall's clock.
    pub time: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Skip, StepParts};

    /// One object a line, as every version has written it: readers of old logs and of new ones are the same.
    #[test]
    fn a_line_of_the_log_is_flat() {
        let parts = StepParts { data_ms: 0.5, forward_ms: 100.0, backward_ms: 200.25, optimizer_ms: 7.0 };
        let update = Update {
            step: 12,
            loss: 7.125,
            lr: 3e-4,
            norm: 1.5,
            ms: 500.0,
            parts,
            tokens_per_second: 4096.0,
            tokens_seen: 24_576,
            epoch: 0,
            z_loss: Some(0.5),
            z_norm: None,
            skipped: Some(Skip::NormSpike),
        };
        let report = StepReport {
            update,
            mfu: Some(0.25),
            epochs: 0.5,
            val_loss: Some(6.5),
            val_bits_per_byte: None,
            standing: None,
            scores: [("piqa/acc".to_owned(), 0.5)].into(),
            elapsed: 6.0,
            eta: 494.0,
            time: 50_000.0,
        };
        let parts = r#"{"backward_ms":200.25,"data_ms":0.5,"forward_ms":100.0,"optimizer_ms":7.0}"#;
        let line = format!(
            "{}{parts}{}",
            r#"{"elapsed":6.0,"epoch":0,"epochs":0.5,"eta":494.0,"loss":7.125,"lr":0.0003,"mfu":0.25,"ms":500.0,"norm":1.5,"parts":"#,
            r#","scores":{"piqa/acc":0.5},"skipped":"norm spike","step":12,"time":50000.0,"tokens_per_second":4096.0,"tokens_seen":24576,"val_loss":6.5,"z_loss":0.5}"#,
        );
        assert_eq!(serde_json::json!(report).to_string(), line);
    }
}
