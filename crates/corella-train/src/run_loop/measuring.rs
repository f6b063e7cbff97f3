//! What is measured between updates: validation loss, its verdict, samples.

use std::collections::BTreeMap;

use corella_text::bits_per_byte;

use super::Session;
use crate::TrainError;
use crate::heartbeat::RunState;
use crate::report::{Curve, Standing};
use crate::validate::{Validation, bytes_per_token, validation_loss};

/// What was measured of the weights.
pub(super) struct Measured {
    /// What validation losses are measured on.
    pub validation: Option<Validation>,
    /// The last validation loss.
    pub val_loss: Option<f64>,
    /// That of the weights as they are.
    pub rating: Option<f64>,
    /// How the last validation loss stands beside the reference curve.
    pub standing: Option<Standing>,
    /// Bytes of text for each token of a validation, once it was asked for.
    bytes_per_token: Option<Option<f64>>,
}

/// What is told of a validation after an update; nothing where there was none.
#[derive(Default)]
pub(super) struct Validated {
    pub loss: Option<f64>,
    pub bits_per_byte: Option<f64>,
    pub standing: Option<Standing>,
}

impl Measured {
    /// Of weights whose validation loss is this, where it is known.
    pub fn new(validation: Option<Validation>, val_loss: Option<f64>) -> Measured {
        Measured { validation, val_loss, rating: val_loss, standing: None, bytes_per_token: None }
    }

    /// Nothing is known of the weights as they are now.
    pub fn weights_changed(&mut self) {
        self.rating = None;
    }

    /// Takes in what a validation of the weights as they are came to.
    fn rate(&mut self, loss: Option<f64>) {
        self.rating = loss;
        self.val_loss = loss.or(self.val_loss);
    }

    /// How a validation loss after so many tokens stands beside the curve, and whether that is a new verdict.
    fn judge(&mut self, reference: &Curve, tokens: u64, loss: f64) -> (Option<Standing>, bool) {
        let now = reference.standing(tokens as f64, loss);
        let before = self.standing.as_ref().map(|standing| standing.verdict);
        let is_new = now.as_ref().is_some_and(|now| before != Some(now.verdict));
        self.standing = now.clone().or(self.standing.take());
        (now, is_new)
    }
}

impl Session<'_> {
    /// Validates after an update.
    pub(super) fn validate_update(&mut self) -> Validated {
        let Some(loss) = self.validate() else { return Validated::default() };
        Validated { loss: Some(loss), bits_per_byte: self.bits_per_byte(loss), standing: self.judge(loss) }
    }

    pub(super) fn validate(&mut self) -> Option<f64> {
        self.beat(RunState::Validating, false);
        let (model, val) = (&mut *self.run.model, &self.run.data.val);
        let rating = match validation_loss(model, val, self.run.plan.output.val_tokens, self.stop) {
            Ok(loss) => loss,
            Err(error) => {
                self.trouble(&format!("{error}; training goes on without this validation loss"));
                None
            }
        };
        self.measured.rate(rating);
        self.beat(RunState::Training, false);
        rating
    }

    /// A validation loss in bits per byte of text, where the text's length is known.
    pub(super) fn bits_per_byte(&mut self, loss: f64) -> Option<f64> {
        let (data, plan) = (&self.run.data, &self.run.plan);
        let of_data = || {
            let t = plan.model.seq_len;
            // Data that cannot be read end the validation itself.
            bytes_per_token(&data.val, &data.tokenizer, t, plan.output.val_tokens).ok().flatten()
        };
        let bytes = *self.measured.bytes_per_token.get_or_insert_with(of_data);
        bits_per_byte(loss, bytes?)
    }

    /// How a validation loss of the weights as they are stands beside the reference curve; a new verdict is an event.
    pub(super) fn judge(&mut self, loss: f64) -> Option<Standing> {
        let (standing, is_new) = self.measured.judge(self.run.reference.as_ref()?, self.loader.tokens(), loss);
        if let Some(now) = standing.as_ref().filter(|_| is_new) {
            self.event("track", &now.to_string());
        }
        standing
    }

    /// Measures the validation loss that is due at a beginning, or that a signal cut short before it was in the log.
    pub(super) fn catch_up_validation(&mut self) {
        if let Some(loss) = self.measured.rating {
            self.judge(loss);
        }
        if self.records.log.last_of(self.done).is_some_and(|line| !line["val_loss"].is_null()) {
            return;
        }
        let Some(loss) = self.measured.rating.or_else(|| self.validate()) else { return };
        self.judge(loss);
        self.hooks.on_validation(self.done, loss);
        let bits = self.bits_per_byte(loss);
        let before = self.records.log.last_of(self.done).cloned();
        let mut line = before.clone().unwrap_or_else(|| serde_json::json!({"step": self.done}));
        line["val_loss"] = loss.into();
        if let Some(bits) = bits {
            line["val_bits_per_byte"] = bits.into();
        }
        let written =
            if before.is_some() { self.records.log.replace_last(line) } else { self.records.log.write(&line) };
        self.tolerate(written);
    }

    /// Scores of the weights as they are, by name.
    pub(super) fn evaluate(&mut self) -> Result<BTreeMap<String, f64>, TrainError> {
        self.beat(RunState::Evaluating, false);
        let mut model = self.run.model.text_model()?;
        let scores = self.hooks.evaluate(self.done, &mut *model, self.stop);
        drop(model);
        self.beat(RunState::Training, false);
        Ok(scores)
    }

    pub(super) fn write_samples(&mut self) -> Result<(), TrainError> {
        self.beat(RunState::Sampling, false);
        let mut model = self.run.model.text_model()?;
        let samples = self.hooks.sample(self.done, &mut *model, self.stop);
        drop(model);
        self.beat(RunState::Training, false);
        for sample in samples {
            let written = self.records.samples.write(&sample);
            self.tolerate(written);
        }
        Ok(())
    }
}
