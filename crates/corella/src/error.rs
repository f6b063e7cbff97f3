//! How a failure reaches the person: one sentence, a `hint:` line where there is a way out, and an exit code.

use std::fmt;
use std::process::ExitCode;

/// What ends the program early.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    usage: bool,
}

/// The result of every command.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Something failed while running (exit code 1).
    pub fn new(message: impl fmt::Display) -> Self {
        Failure { message: message.to_string(), hint: None, usage: false }
    }

    /// What was asked for makes no sense (exit code 2).
    pub fn usage(message: impl fmt::Display) -> Self {
        Failure { usage: true, ..Failure::new(message) }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// 1 for a failure, 2 for a usage error.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.usage { 2 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Any library error becomes a failure with its whole chain of causes.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Failure::new(message)
    }
}
