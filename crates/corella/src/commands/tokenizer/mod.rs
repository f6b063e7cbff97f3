//! `corella tokenizer`: train a vocabulary, encode, decode, look inside.

mod args;
mod bench;
mod encode;
mod inspect;
mod train;

pub use args::TokenizerCommand;

use crate::cli::Common;
use crate::error::Result;
use crate::inputs::no_card;

/// Runs the command.
pub fn run(command: &TokenizerCommand, common: &Common) -> Result<()> {
    no_card(common)?;
    match command {
        TokenizerCommand::Train(args) => train::run(args, common),
        TokenizerCommand::Encode(args) => encode::encode(args, common),
        TokenizerCommand::Decode(args) => encode::decode(args, common),
        TokenizerCommand::Bench(args) => bench::run(args, common),
        TokenizerCommand::Inspect(args) => inspect::run(args, common),
    }
}
