//! What is measured between updates: validation loss, its verdict, samples.

use std::collections::BTreeMap;

use corella_text::bits_per_byte;

use super::Session;
use crate::TrainError;
use crate::heartbeat::RunState;
use crate::report::Standing;
use crate::validate::{bytes_per_token, validation_loss};

impl Session<'_> {
    pub(super) fn validate(&mut self) -> Option<f64> {
        self.beat(RunState::Validating, false);
        let (model, val) = (&mut *self.run.model, &self.run.data.val);
        self.rating = match validation_loss(model, val, self.run.plan.output.val_tokens, self.stop) {
            Ok(loss) => loss,
            Err(error) => {
                self.trouble(&format!("{error}; training goes on without this validation loss"));
                None
            }
        };
        self.beat(RunState::Training, false);
        self.val_loss = self.rating.or(self.val_loss);
        self.rating
    }

    /// A validation loss in bits per byte of text, where the text's length is known.
    pub(super) fn bits_per_byte(&mut self, loss: f64) -> Option<f64> {
        let (data, plan) = (&self.run.data, &self.run.plan);
        let of_data = || {
            let t = plan.model.seq_len;
            // Data that cannot be read end the validation itself.
            bytes_per_token(&data.val, &data.tokenizer, t, plan.output.val_tokens).ok().flatten()
        };
        let bytes = *self.bytes_per_token.get_or_insert_with(of_data);
        bits_per_byte(loss, bytes?)
    }

    /// How a validation loss of the weights as they are stands beside the reference curve; a new verdict is an event.
    pub(super) fn judge(&mut self, loss: f64) -> Option<Standing> {
        let standing = self.run.reference.as_ref()?.standing(self.loader.tokens() as f64, loss);
        if let Some(now) = &standing
            && self.standing.as_ref().is_none_or(|before| before.verdict != now.verdict)
        {
            self.event("track", &now.to_string());
        }
        self.standing = standing.clone().or(self.standing.take());
        standing
    }

    /// Measures the validation loss that is due at a beginning, or that a signal cut short before it was in the log.
    pub(super) fn catch_up_validation(&mut self) {
        if let Some(loss) = self.rating {
            self.judge(loss);
        }
        if self.log.last_of(self.done).is_some_and(|line| !line["val_loss"].is_null()) {
            return;
        }
        let Some(loss) = self.rating.or_else(|| self.validate()) else { return };
        self.judge(loss);
        self.hooks.on_validation(self.done, loss);
        let bits = self.bits_per_byte(loss);
        let before = self.log.last_of(self.done).cloned();
        let mut line = before.clone().unwrap_or_else(|| serde_json::json!({"step": self.done}));
        line["val_loss"] = loss.into();
        if let Some(bits) = bits {
            line["val_bits_per_byte"] = bits.into();
        }
        let written = if before.is_some() { self.log.replace_last(line) } else { self.log.write(&line) };
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
            let written = self.samples.write(&sample);
            self.tolerate(written);
        }
        Ok(())
    }
}
