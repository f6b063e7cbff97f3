//! GPT-2 and Llama as explicit calls over one parameter table each, and the files they are exchanged in.

mod any;
mod checkpoint;
mod error;
pub mod exchange;
pub mod formats;
pub mod gpt2;
pub mod llama;
pub mod memory;
mod one_sequence;
pub mod params;
pub mod place;
mod random;
mod role;
mod source;
mod special_ids;
pub mod step;
pub mod step_options;
mod stepping;
mod text_model;
mod training;

pub use any::AnyModel;
pub use checkpoint::Checkpoint;
pub use corella_ops::{Draw, Edit, Penalty};
pub use error::ModelError;
pub use memory::Recompute;
pub use one_sequence::OneSequence;
pub use role::{ModelPart, Role};
pub use source::{Source, Weights, Zeros};
pub use special_ids::SpecialIds;
pub use step::{BatchPlan, PlanError, SeqPlan, StepLimits, StepModel, StepOut, Threads};
pub use step_options::{KvKind, StepOptions};
pub use stepping::{Layers, Stepping};
pub use text_model::{AdamW, BatchShape, Choices, Dtype, ModelFiles, ParamInfo, ParamPart, TextModel, TrainModel};
pub use training::{Network, Training};
