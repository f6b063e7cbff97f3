//! One file per command.

pub mod bench;
pub mod convert;
mod deal;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod plan;
mod plan_fits;
pub mod prepare;
mod reader_flags;
pub mod report;
pub mod run_plan;
pub mod serve;
mod shape_flags;
pub mod tokenizer;
pub mod trace;
pub mod train;
