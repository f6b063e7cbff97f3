//! The operations of a transformer, stated once.
//!
//! [`contract`] is the index of the mathematics: every operation with its formula, its shapes, and whether it writes
//! (`=`) or accumulates (`+=`). [`cpu`] computes it fast, [`reference`] slowly and obviously in f64; [`cases`] holds the
//! test bodies that both (and any later backend) are held to.

pub mod cases;
pub mod contract;
pub mod cpu;
pub mod reference;

pub use contract::{
    AdamW, AttentionDims, ClassifierDims, EncoderDims, MatmulDims, NormDims, OpsError, OpsInfer, OpsTrain, ParamPart,
};
