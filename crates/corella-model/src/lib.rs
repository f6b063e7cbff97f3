//! GPT-2 as explicit forward and backward calls over one parameter table, and the files it is exchanged in.

pub mod text_model;

pub use text_model::{BatchShape, ParamInfo, TextModel, TrainModel};
