//! GPT-2 as explicit forward and backward calls over one parameter table, and the files it is exchanged in.

mod error;
pub mod formats;
pub mod gpt2;
pub mod step;
pub mod text_model;

pub use error::ModelError;
pub use step::{BatchPlan, PlanError, SeqPlan, StepLimits, StepModel, StepOut};
pub use text_model::{AdamW, BatchShape, Dtype, ModelFiles, ParamInfo, ParamPart, TextModel, TrainModel};
