//! What can end a run.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use corella_model::ModelError;
use corella_text::data::DataError;

/// What can end a run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The plan cannot be carried out.
    #[error("{field}: {what}")]
    Plan {
        /// Which value.
        field: &'static str,
        /// What is wrong and what would be right.
        what: String,
    },
    /// A run file is none.
    #[error("{}: {what}", path.display())]
    RunFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        what: String,
    },
    /// A checkpoint is damaged or belongs to another run.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A run was begun here and is not to be overwritten.
    #[error("{} is a finished checkpoint already", path.display())]
    NotEmpty {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The folder holds files that are not a run's.
    #[error("{} is no run but holds {name}, in whose place a run would put its own", path.display())]
    OtherFiles {
        /// The folder.
        path: PathBuf,
        /// One of them.
        name: String,
    },
    /// There are checkpoints, but none that can be used.
    #[error("no checkpoint in {} is whole; the last one looked at: {last}", path.display())]
    AllDamaged {
        /// The folder of the checkpoints.
        path: PathBuf,
        /// What is wrong with the oldest.
        last: String,
    },
    /// The order of the data depends on the micro-batch, and the run goes on with another one.
    #[error(
        "in the order llm.c micro-batches of {is} sequences read other windows than those of {was} that the run began with"
    )]
    OtherBatch {
        /// Sequences that the run began with.
        was: usize,
        /// Those of the plan.
        is: usize,
    },
    /// Another process trains in this folder.
    #[error("{} is in use by another process{}", path.display(), holder.map(|pid| format!(" ({pid})")).unwrap_or_default())]
    Locked {
        /// The run folder.
        path: PathBuf,
        /// That process, where it is known.
        holder: Option<u32>,
    },
    /// So many lines waited for a disk that takes nothing that they are given up.
    #[error("{}: {lines} lines are lost: the disk takes none, and more cannot wait in memory", path.display())]
    LinesLost {
        /// The file.
        path: PathBuf,
        /// How many.
        lines: usize,
    },
    /// Loss or gradient stopped being numbers.
    #[error("{}; {}", not_finite(*updates), before(last.as_deref()))]
    Diverged {
        /// Updates in a row that were left out for it; 0 where the weights of the last one give no finite loss.
        updates: u32,
        /// The last checkpoint, whose weights gave a finite loss.
        last: Option<PathBuf>,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data failed.
    #[error(transparent)]
    Data(#[from] DataError),
}

fn not_finite(updates: u32) -> String {
    match updates {
        0 => "the last update left weights whose loss is not finite".to_owned(),
        1 => "loss or gradient norm was not finite in the last update".to_owned(),
        n => format!("loss or gradient norm was not finite in {n} updates in a row"),
    }
}

fn before(last: Option<&Path>) -> String {
    match last {
        Some(path) => format!("the last checkpoint from before is {}", path.display()),
        None => "there is no checkpoint from before".to_owned(),
    }
}

impl TrainError {
    /// Wraps an I/O error with the path it happened at.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
        let path = path.to_path_buf();
        move |source| TrainError::Io { path, source }
    }

    /// Whether what was asked for is refused, and the run in the folder is as well as it was: whoever asks rightly goes on with it.
    pub fn is_refusal(&self) -> bool {
        match self {
            TrainError::Plan { .. }
            | TrainError::RunFile { .. }
            | TrainError::NotEmpty { .. }
            | TrainError::OtherFiles { .. }
            | TrainError::OtherBatch { .. }
            | TrainError::Locked { .. }
            // A whole one, of a model of another shape: where none is whole there is an error of its own.
            | TrainError::Checkpoint { .. }
            | TrainError::Model(ModelError::BadConfig { .. })
            | TrainError::Data(DataError::OtherData(_)) => true,
            TrainError::Io { .. }
            | TrainError::AllDamaged { .. }
            | TrainError::LinesLost { .. }
            | TrainError::Diverged { .. }
            | TrainError::Model(_)
            | TrainError::Data(_) => false,
        }
    }

    /// Whether it is that a disk, or what of it this user may take, is full: somebody can make room.
    pub(crate) fn is_full_disk(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            }
            cause = error.source();
        }
        false
    }

    /// Of data that are as long as those that a run began with.
    pub(crate) fn other_tokens() -> TrainError {
        DataError::OtherData("there are as many tokens, but not the same".to_owned()).into()
    }
}
