//! How a failure reaches the person: one sentence, a `hint:` line where there is a way out, and an exit code.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corella_hub::HubError;
use corella_model::ModelError;
use corella_model::formats::FormatError;
use corella_ops::OpsError;
use corella_text::data::DataError;
use corella_text::tokenizer::TokenizerError;
use corella_train::TrainError;

use crate::signals::STOPPED;

/// What ends the program early.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    kind: Kind,
    /// Whether a library has refused what was asked for.
    refused: bool,
}

/// Why the program ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    Usage,
    Stopped,
}

/// The result of every command.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Something failed while running (exit code 1).
    pub fn new(message: impl fmt::Display) -> Self {
        Failure { message: message.to_string(), hint: None, kind: Kind::Failed, refused: false }
    }

    /// What was asked for makes no sense (exit code 2).
    pub fn usage(message: impl fmt::Display) -> Self {
        Failure { kind: Kind::Usage, ..Failure::new(message) }
    }

    /// A signal asked to stop before the work was done: what builds on it must not go on (exit code 130).
    pub fn stopped() -> Self {
        Failure { kind: Kind::Stopped, ..Failure::new("stopped before it was done") }
    }

    /// Whether it is no failure, but what somebody asked for.
    pub fn is_stop(&self) -> bool {
        self.kind == Kind::Stopped
    }

    /// Whether something failed, rather than was asked for wrongly or stopped.
    pub fn is_failure(&self) -> bool {
        self.kind == Kind::Failed && !self.refused
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Says in what it happened: a file, a key, a flag.
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What happened, without what to do about it: for a sentence of which it is a part.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Prints what to do about it, on a line of its own, where it ends nothing.
    pub fn eprint_hint(&self) {
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
    }

    /// 1 for a failure, 2 for a usage error, [`STOPPED`] after a signal.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Stopped => STOPPED,
        })
    }
}

/// What the system said of a file or folder.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
struct PathError {
    path: PathBuf,
    source: std::io::Error,
}

/// What the system said of a file or folder, with the way out where there is a known one.
pub fn of_path(path: &Path, source: std::io::Error) -> Failure {
    PathError { path: path.to_path_buf(), source }.into()
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

/// Any library error becomes a failure with its whole chain of causes, and with the way out where there is a known one.
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut failure = Failure::new(&error);
        let mut next: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !failure.message.contains(&text) {
                failure.message = format!("{}: {text}", failure.message);
            }
            failure.hint = failure.hint.or_else(|| way_out(cause).map(str::to_owned));
            failure.refused |= is_refusal(cause);
            next = cause.source();
        }
        failure
    }
}

/// Whether an error says that what was asked for cannot be.
fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<TrainError>().is_some_and(TrainError::is_refusal)
        || matches!(error.downcast_ref(), Some(ModelError::BadConfig { .. }))
}

/// What to do about an error, where something can be done.
fn way_out(error: &(dyn Error + 'static)) -> Option<&'static str> {
    use std::io::ErrorKind;
    if let Some(error) = error.downcast_ref::<TrainError>() {
        return match error {
            TrainError::Locked { .. } => Some("wait until it ends, or choose another folder with --out"),
            TrainError::OtherFiles { .. } => Some("a run needs a folder of its own: name another one with --out"),
            TrainError::NotEmpty { .. } => Some("go on with --resume, or choose another folder with --out"),
            TrainError::AllDamaged { .. } => {
                Some("bring a copy back, or begin again in another folder with --out; nothing here was changed")
            }
            TrainError::OtherBatch { .. } => Some(
                "resume with the micro-batch that the run began with (--micro-batch), or choose another folder with --out",
            ),
            TrainError::Checkpoint { .. } => Some(
                "resume with the flags that the run began with (its run.toml), or choose another folder with --out",
            ),
            TrainError::Data(DataError::OtherData(_)) => {
                Some("name the data that the run began with (its run.toml), or choose another folder with --out")
            }
            TrainError::Data(DataError::Damaged { .. }) => Some(
                "bring a copy of the file back, or prepare the data again; --resume goes on from the last checkpoint",
            ),
            TrainError::Diverged { last: Some(_), .. } => {
                Some("lower --lr or lengthen --warmup-steps, and go on from the last checkpoint with --resume")
            }
            TrainError::Diverged { last: None, .. } => Some(
                "lower --lr or lengthen --warmup-steps, and begin again; --checkpoint-every N keeps weights to go back to",
            ),
            TrainError::Plan { .. } | TrainError::RunFile { .. } => Some(
                "`corella train --help` names every flag and docs/run-files.md every key; run.toml in a run's folder has them all",
            ),
            _ => None,
        };
    }
    // That of a model says what the backend says, and is no cause of its own.
    let model = error.downcast_ref::<ModelError>();
    let ops = match model {
        Some(ModelError::Ops(error)) => Some(error),
        _ => error.downcast_ref(),
    };
    match ops {
        Some(OpsError::OutOfMemory { device: "cuda", .. }) => {
            return Some(
                "--device cpu, a shorter context or fewer sequences at once; `nvidia-smi` shows who else uses the card",
            );
        }
        Some(OpsError::OutOfMemory { device: "cpu", .. }) => {
            return Some(
                "a shorter context, fewer sequences at once, --kv-type q8, or a file with fewer bits a weight",
            );
        }
        Some(OpsError::HeadTooLarge { .. }) => {
            return Some(
                "--device cpu takes heads of any size; a model to be trained has smaller ones with more heads",
            );
        }
        Some(OpsError::RaggedRow { .. }) => {
            return Some("choose another --dtype: f32, f16 and bf16 take rows of any length");
        }
        _ => {}
    }
    if let Some(TokenizerError::Mismatch { .. }) = error.downcast_ref::<TokenizerError>() {
        return Some("name the tokenizer that the model was trained with");
    }
    match model {
        Some(ModelError::Format(error)) => return error.hint(),
        Some(ModelError::TooLarge { .. }) => return Some("--dtype bf16 or --dtype f32 holds it"),
        _ => {}
    }
    if let Some(error) = error.downcast_ref::<FormatError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<HubError>() {
        return error.hint();
    }
    match error.downcast_ref::<DataError>() {
        Some(DataError::Problem(_)) => return Some("without --strict such input is reported and passed over"),
        Some(DataError::Occupied { .. }) => {
            return Some("choose another folder with --out, or replace what is there with --overwrite");
        }
        Some(DataError::Prepared { .. }) => {
            return Some("name the texts that it was made of; `corella train --data` takes the folder itself");
        }
        Some(DataError::Damaged { .. }) => return Some("bring a copy of the file back, or prepare the data again"),
        Some(DataError::NoneLeft { read: 0, .. }) => {
            return Some(
                "the warnings say what is wrong with the sources; text, JSON lines, Parquet, WARC and WET are read, also packed",
            );
        }
        Some(DataError::NoneLeft { .. }) => {
            return Some("the numbers say which rule dropped them: leave it out, or loosen it");
        }
        Some(DataError::Io { source, .. }) if is_full(source.kind()) => {
            return Some("make room and run the same command again; `corella prepare` goes on where it stopped");
        }
        Some(DataError::Memory { .. }) => return Some("raise --memory or lower --max-document"),
        _ => {}
    }
    match error.downcast_ref::<std::io::Error>()?.kind() {
        kind if is_full(kind) => Some(
            "make room and run the command again; a training run that has a checkpoint goes on from its last one with --resume",
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Some("choose a folder or file that you may read and write, or change who may")
        }
        ErrorKind::NotFound => Some("look at the path: nothing is there by this name, or a folder above it is missing"),
        ErrorKind::IsADirectory => Some("this is a folder; name a file"),
        ErrorKind::InvalidData => Some("a text is UTF-8; convert it first, for example with iconv -t UTF-8"),
        ErrorKind::NotADirectory => Some("a part of the path is a file, not a folder; name another path"),
        _ => None,
    }
}

/// Whether a disk takes no more.
fn is_full(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind;
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_names_the_way_of_the_command_that_met_it() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let prepare = Failure::from(DataError::Io { path: "out/train_000000.bin.partial".into(), source: full() });
        assert!(prepare.to_string().contains("`corella prepare` goes on"), "{prepare}");
        let other = of_path("out/state.json".as_ref(), full());
        assert!(other.to_string().contains("--resume"), "{other}");
    }
}
