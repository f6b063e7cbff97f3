//! The `corella` program: train GPT-2 from random weights, and continue text with what came out.
//!
//! This crate parses what the user typed, calls the libraries, and prints. Exit codes: 0 done, 1 failed, 2 usage,
//! 130 stopped by a signal before it was done.

#[macro_use]
mod output;

mod cli;
mod commands;
mod device;
mod error;
mod fetch;
mod gguf_tokenizer;
mod gguf_vocab;
mod help;
mod inputs;
mod loading;
mod machine;
mod meter;
mod mistakes;
mod model;
mod playground;
mod printable;
mod room;
mod shape;
mod signals;
mod site;
mod source_problems;
mod terminal;
mod tokenizers;
mod tour;
mod training;
mod unfinished;
mod units;

use std::process::ExitCode;

use clap::FromArgMatches;

use cli::{Cli, Command};

fn main() -> ExitCode {
    corella_ops::cpu::return_large_blocks();
    let parsed = help::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let typed: Vec<String> =
                std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            return mistakes::report(&error, &typed);
        }
    };
    let outcome = cli.check().and_then(|()| match cli.command {
        Command::Tour(args) => commands::tour::run(&args, &cli.common),
        Command::Train(args) => commands::train::run(&args, &cli.common),
        Command::Report(args) => commands::report::run(&args, &cli.common),
        Command::Doctor => commands::doctor::run(&cli.common),
        Command::Plan(args) => commands::plan::run(&args, &cli.common),
        Command::Generate(args) => commands::generate::run(&args, &cli.common),
        Command::Prepare(args) => commands::prepare::run(&args, &cli.common),
        Command::Tokenizer(command) => commands::tokenizer::run(&command, &cli.common),
        Command::Convert(args) => commands::convert::run(&args, &cli.common),
        Command::Serve(args) => commands::serve::run(&args, &cli.common),
        Command::Trace(args) => commands::trace::run(&args, &cli.common),
        Command::Bench(args) => commands::bench::run(&args, &cli.common),
        Command::Inspect(args) => commands::inspect::run(&args, &cli.common),
        Command::Eval(args) => commands::eval::run(&args, &cli.common),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Whoever stopped it was told what is there when it was stopped.
            if !failure.is_stop() {
                eprintln!("{failure}");
            }
            failure.exit_code()
        }
    }
}
