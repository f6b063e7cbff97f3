//! The operations of a transformer, stated once.
//!
//! [`contract`] (training) and [`contract_infer`] are the index of the mathematics: every operation with its formula, its
//! shapes, and whether it writes (`=`) or accumulates (`+=`). [`cpu`] computes it fast, [`mod@reference`] in f64 as plainly as
//! possible, and [`cases`] holds the inputs on which every backend is compared with the reference. [`quant`] knows the
//! formats in which model files keep weights.

// What kernels for x86-64 alone need is not used elsewhere; every build for x86-64 has these lints.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_variables, unused_mut))]

pub mod cases;
pub mod contract;
pub mod contract_infer;
pub mod cpu;
mod draws;
pub mod quant;
pub mod reference;
pub mod shapes;

pub use contract::{
    AdamW, AttentionDims, Choices, ClassifierDims, Dtype, EmbeddingDims, EncoderDims, GluDims, MatmulDims, NormDims,
    Normed, OpsError, OpsTrain, ParamPart, rope_table,
};
pub use contract_infer::{
    BatchPlan, HeadDims, KvKind, KvPagesDims, Linear, OpsInfer, ReadRows, RopePairs, RowAt, Store,
};
pub use draws::{Draw, Edit, Penalty};
pub use quant::WeightFormat;
