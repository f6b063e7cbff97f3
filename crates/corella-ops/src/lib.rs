//! The operations of a transformer, stated once.
//!
//! [`contract`] is the index of the mathematics: every operation with its formula, its shapes, and whether it writes
//! (`=`) or accumulates (`+=`). [`cpu`] computes it fast, [`mod@reference`] in f64 as plainly as possible, and [`cases`] holds
//! the inputs on which every backend is compared with the reference.

pub mod cases;
pub mod contract;
pub mod cpu;
pub mod reference;

pub use contract::{
    AdamW, AttentionDims, ClassifierDims, EmbeddingDims, EncoderDims, GluDims, MatmulDims, NormDims, OpsError,
    OpsInfer, OpsTrain, ParamPart, rope_table,
};
