//! The operations of a transformer, stated once.
//!
//! [`contract`] is the index of the mathematics: every operation with its formula, its shapes, and whether it writes
//! (`=`) or accumulates (`+=`). [`cpu`] computes it.

pub mod contract;
pub mod cpu;

pub use contract::{
    AdamW, AttentionDims, ClassifierDims, EncoderDims, MatmulDims, NormDims, OpsError, OpsInfer, OpsTrain, ParamPart,
};
