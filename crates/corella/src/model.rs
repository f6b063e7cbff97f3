//! A MODEL argument: found and looked at first, loaded when it is known how much room is needed.

use std::path::Path;

use corella_model::gpt2::{Gpt2Step, Gpt2Weights};
use corella_model::{StepModel, StepOptions};
use corella_text::tokenizer::Tokenizer;

use crate::cli::Common;
use crate::error::Result;
use crate::inputs::{backend, open_model};

/// A model's files, and the tokenizer that goes with them.
pub struct Opened {
    /// Turns text into the model's ids and back.
    pub tokenizer: Tokenizer,
    weights: Gpt2Weights,
}

/// Finds the files of a MODEL argument and its tokenizer.
pub fn open(path: &Path, tokenizer: Option<&str>) -> Result<Opened> {
    let model = open_model(path, tokenizer)?;
    Ok(Opened { tokenizer: model.tokenizer, weights: model.weights })
}

impl Opened {
    /// Most tokens of a sequence.
    pub fn context_len(&self) -> usize {
        self.weights.config.seq_len()
    }

    /// Loads the weights.
    pub fn load(self, common: &Common, options: StepOptions) -> Result<Box<dyn StepModel>> {
        Ok(Box::new(Gpt2Step::new(backend(common)?, self.weights, options)?))
    }
}
