//! One file per command, or one folder.

pub mod bench;
pub mod convert;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod plan;
pub mod prepare;
mod reader_flags;
pub mod report;
pub mod serve;
pub mod tokenizer;
pub mod tour;
pub mod trace;
pub mod train;
