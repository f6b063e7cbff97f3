//! The CUDA backend: every library is loaded at run time, so that one binary runs with and without a card.
//!
//! [`Cuda`] implements the contract of `corella-ops` on a [`Driver`]: a card, or in the tests an emulated one. [`kernels`] is the
//! table of the kernels, whose text is part of the binary; [`nvrtc`] compiles them to machine code, for the card that is found
//! or, in `cargo xtask kernels`, for every card that is supported. [`library`] finds and loads what CUDA brings.

mod array;
mod attention;
mod backend;
mod beside;
mod cache;
mod card;
mod classifier;
mod compiled;
mod context;
mod driver;
mod error;
mod event;
mod geometry;
mod ids;
mod infer;
pub mod kernels;
mod launching;
mod layers;
pub mod library;
mod linear;
mod matrix_library;
pub mod nvrtc;
mod optimizer;
mod paper;
pub mod parallel;
mod param;
pub mod probe;
pub mod resources;
mod spare;
mod staging;
mod times;

pub use array::Buf;
pub use backend::Cuda;
pub use card::{Card, CardInfo, cards};
pub use driver::{Address, Bias, Driver, Finish, Launch, Operand, Product};
pub use error::CudaError;
pub use ids::Ids;
pub use infer::{Batch, Kv, KvPages, Recorded, Weight};
pub use paper::{BESIDE, Paper};
pub use param::Param;
