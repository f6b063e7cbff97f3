//! Evaluation: multiple choice and cloze tasks from local files, with the prompts, log-likelihoods and metrics of
//! EleutherAI's lm-evaluation-harness (lm-eval), so that the scores can be compared with published ones.

mod file;
mod likelihood;
mod score;
mod shots;
mod task;

use std::path::PathBuf;

use corella_text::data::DataError;

pub use file::read_items;
pub use likelihood::{Likelihood, NotNumbers, Reader, negative_log_likelihood};
pub use score::{ItemScore, SubjectScore, TaskScore, score_item, summary};
pub use shots::Shots;
pub use task::{Item, NoItem, Pair, Question, Task};

/// What can go wrong in an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The file cannot be read, or holds no records.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A line is not an item of the task.
    #[error("{}: line {line}: {what}", path.display())]
    Item {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is missing or wrong.
        what: String,
    },
    /// No items.
    #[error("{} holds no items", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Too few examples to put in front of the items.
    #[error("{files}: {found} examples{} beside the item itself, and {wanted} are wanted", of.as_ref().map(|of| format!(" that begin with {of:?}")).unwrap_or_default())]
    FewShots {
        /// The files.
        files: String,
        /// What they begin with, where examples are for items of one subject only.
        of: Option<String>,
        /// How many it holds.
        found: usize,
        /// How many each item is to have.
        wanted: usize,
    },
    /// Not a task.
    #[error("no task is called {asked}; known are {}", Task::ALL.map(Task::name).join(", "))]
    UnknownTask {
        /// What was asked for.
        asked: String,
    },
}
