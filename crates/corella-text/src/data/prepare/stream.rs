//! All sources as one stream.

use super::super::document::{Document, Flow, Problem, Sink};
use super::super::readers::read_file;
use super::Job;

/// What comes out of the sources.
pub(super) enum Item {
    /// A document.
    Document(Document),
    /// Something wrong.
    Problem(Problem),
    /// A file was read to its end; its size on disk.
    FileDone {
        /// Bytes on disk.
        bytes: u64,
    },
}

/// Reads every source in its order.
pub(super) fn read_all(job: &Job<'_>, put: &mut dyn FnMut(Item) -> Flow) -> Flow {
    for file in job.files {
        read_file(&file.path, &file.name, &job.options.read, &mut Stream(&mut *put))?;
        put(Item::FileDone { bytes: std::fs::metadata(&file.path).map_or(0, |m| m.len()) })?;
    }
    Flow::Continue(())
}

/// Memory that an item needs until its result is written: the text, what is cleaned of it, its tokens (four bytes for each
/// three or four of the text) and the words that the tokenizer remembers.
pub(super) fn cost(item: &Item) -> usize {
    match item {
        Item::Document(document) => 512 + 6 * document.text.len(),
        Item::Problem(_) | Item::FileDone { .. } => 512,
    }
}

struct Stream<'p>(&'p mut dyn FnMut(Item) -> Flow);

impl Sink for Stream<'_> {
    fn document(&mut self, document: Document) -> Flow {
        (self.0)(Item::Document(document))
    }

    fn problem(&mut self, problem: Problem) -> Flow {
        (self.0)(Item::Problem(problem))
    }
}
