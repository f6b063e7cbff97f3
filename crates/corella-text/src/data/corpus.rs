//! Small corpora, wholly in memory.

use std::path::Path;

use super::DataError;
use super::clean::{CleanOptions, clean};
use super::document::{Document, Flow, Problem, Sink};
use super::readers::{ReadOptions, SourceFile, read_file};

/// The documents of some sources, and what was wrong with these.
#[derive(Clone, Debug, Default)]
pub struct TextCorpus {
    /// Cleaned, none empty, in the order of the sources.
    pub documents: Vec<Document>,
    /// What was left out or changed.
    pub problems: Vec<Problem>,
}

impl TextCorpus {
    /// Reads files of any format that [`read_file`] knows.
    pub fn read(files: &[SourceFile], options: &ReadOptions) -> Result<TextCorpus, DataError> {
        let mut corpus = TextCorpus::default();
        for SourceFile { path, name } in files {
            let _ = read_file(path, name, options, &mut corpus);
        }
        if corpus.documents.is_empty() {
            return Err(match files.first() {
                Some(first) => {
                    let problem = corpus.problems.into_iter().next().map(Box::new);
                    DataError::HoldsNoText { path: first.path.clone(), problem }
                }
                None => DataError::bad(Path::new("the sources"), "there is no file to read"),
            });
        }
        Ok(corpus)
    }
}

impl Sink for TextCorpus {
    fn document(&mut self, mut document: Document) -> Flow {
        document.text = clean(&document.text, CleanOptions::default()).into_owned();
        if !document.text.is_empty() {
            self.documents.push(document);
        }
        Flow::Continue(())
    }

    fn problem(&mut self, problem: Problem) -> Flow {
        self.problems.push(problem);
        Flow::Continue(())
    }
}
