//! How a model under training is kept in a checkpoint: as a Hugging Face folder in F32.

use std::path::Path;

use corella_ops::WeightFormat;

use super::{Exchange, hugging_face};
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::formats::Cause;
use crate::source::{Source, UnderTraining};
use crate::special_ids::SpecialIds;
use crate::text_model::{ModelFiles, ParamPart, TrainModel};

/// The files of a model under training.
#[derive(Clone, Debug)]
pub struct KeptAs<C> {
    /// The shape under training.
    pub config: C,
    /// Ids of the tokenizer that it is trained with.
    pub special: SpecialIds,
}

impl<C: Exchange> ModelFiles for KeptAs<C> {
    fn save(&self, model: &dyn TrainModel, dir: &Path) -> Result<(), ModelError> {
        let weights = UnderTraining::new(&self.config, model);
        hugging_face::save(&weights, &self.special, WeightFormat::F32, dir)
    }

    fn load(&self, model: &mut dyn TrainModel, dir: &Path) -> Result<(), ModelError> {
        let checkpoint = Checkpoint::<C>::open(dir)?;
        if checkpoint.config != self.config {
            let found = format!("{:?}", checkpoint.config);
            let allowed = format!("this run has {:?}", self.config);
            return Err(Cause::Unsupported { field: "the configuration".to_owned(), found, allowed }.of(dir).into());
        }
        for row in 0..model.params().len() {
            model.write(row, ParamPart::Value, &checkpoint.values(row)?);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        hugging_face::config_json(&self.config, &self.special, WeightFormat::F32).unwrap_or_default()
    }
}
