//! GPT-2 and Llama as explicit calls over one parameter table each, and the files they are exchanged in.

mod any;
pub mod checkpoint;
mod error;
pub mod formats;
pub mod gpt2;
pub mod llama;
pub mod memory;
mod one_sequence;
mod special_ids;
pub mod step;
pub mod step_options;
pub mod text_model;

pub use any::AnyModel;
pub use error::ModelError;
pub use one_sequence::OneSequence;
pub use special_ids::SpecialIds;
pub use step::{BatchPlan, PlanError, SeqPlan, StepLimits, StepModel, StepOut};
pub use step_options::{KvKind, StepOptions};
pub use text_model::{AdamW, BatchShape, Dtype, ModelFiles, ParamInfo, ParamPart, TextModel, TrainModel};
