//! One file per command.

pub mod bench;
pub mod convert;
pub mod eval;
pub mod generate;
pub mod prepare;
pub mod train;
