//! What to do about a command line that cannot be read, where the parser's own message does not say it.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::terminal::in_shell;

/// Prints what was wrong, or the help that was asked for.
pub fn report(error: &clap::Error, typed: &[String]) -> ExitCode {
    // Where nobody reads it there is nobody to tell.
    let _ = error.print();
    if let Some(hint) = hint(error, typed) {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The way out; `typed` are the words behind the program's name.
fn hint(error: &clap::Error, typed: &[String]) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let command = typed.iter().map(String::as_str).find(|word| !word.starts_with('-'))?;
    let (arg, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue));
    match (error.kind(), command) {
        (ErrorKind::UnknownArgument, "generate") if !arg.starts_with('-') => {
            Some(format!("the text to continue stands behind -p: -p {}", in_shell(arg)))
        }
        (ErrorKind::UnknownArgument, "train" | "tour") if address(arg).is_some() => behind_serve(arg),
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, "train" | "tour") if arg.starts_with("--serve") => {
            behind_serve(value?)
        }
        (ErrorKind::InvalidValue, "bench") if value == Some("serve") => {
            Some("`bench generate` measures the engine behind the server, with one, 8 and 32 texts at once".to_owned())
        }
        _ => None,
    }
}

/// How an address is given to `--serve`.
fn behind_serve(word: &str) -> Option<String> {
    let address = address(word).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
    Some(format!("an address and a port, behind `=`: --serve={address}"))
}

/// The address that a word means: with a port, or a port alone, which is one of this machine.
fn address(word: &str) -> Option<SocketAddr> {
    let port = || Some(SocketAddr::from(([127, 0, 0, 1], word.trim_start_matches(':').parse().ok()?)));
    word.replace("localhost", "127.0.0.1").parse().ok().or_else(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::help;

    /// What a command line is told to do instead.
    fn told(typed: &[&str]) -> Option<String> {
        let words = [&["corella"], typed].concat();
        let error = help::command().try_get_matches_from(words).expect_err("a mistake");
        hint(&error, &typed.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn mistakes_of_newcomers_are_told_what_was_meant() {
        for (typed, meant) in [
            (&["generate", "out/t5", "The sea"][..], "-p 'The sea'"),
            (&["train", "small.txt", "--serve", "8090"], "--serve=127.0.0.1:8090"),
            (&["train", "small.txt", "--serve", "0.0.0.0:80"], "--serve=0.0.0.0:80"),
            (&["tour", "--serve", "localhost:9000"], "--serve=127.0.0.1:9000"),
            (&["train", "small.txt", "--serve=8090"], "--serve=127.0.0.1:8090"),
            (&["train", "small.txt", "--serve=here"], "--serve=127.0.0.1:8080"),
            (&["bench", "serve"], "`bench generate`"),
        ] {
            let hint = told(typed).unwrap_or_default();
            assert!(hint.contains(meant), "{typed:?}: {hint}");
        }
        for typed in [&["generate", "out/t5", "--promt", "x"][..], &["train", "a.txt", "b.txt"], &["bench", "nothing"]]
        {
            assert_eq!(told(typed), None, "{typed:?}");
        }
    }
}
