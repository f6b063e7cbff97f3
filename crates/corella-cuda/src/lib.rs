//! The CUDA backend: every library is loaded at run time, so that one binary runs with and without a card.
//!
//! [`kernels`] is the table of the kernels, whose text is part of the binary. [`nvrtc`] compiles them to machine code, for the
//! card that is found or, in `cargo xtask kernels`, for every card that is supported.

pub mod error;
pub mod kernels;
pub mod library;
pub mod nvrtc;
pub mod resources;

pub use error::CudaError;
