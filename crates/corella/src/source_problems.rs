//! What is wrong with texts that are read, told to the person.

use corella_text::data::{Problem, ProblemKind};

/// Most problems that are printed one by one.
const SHOWN: usize = 10;

/// Prints the first problems of some sources, and counts the others.
#[derive(Debug, Default)]
pub struct SourceProblems {
    count: usize,
    without_text: usize,
}

impl SourceProblems {
    /// Prints a problem, or counts it.
    pub fn tell(&mut self, problem: &Problem) {
        self.count += 1;
        self.without_text += usize::from(problem.kind == ProblemKind::NoText);
        if self.count <= SHOWN {
            eprintln!("warning: {problem}");
        }
    }

    /// Says how many more there were, and, where more records than the `documents` that were read lack a text, how another field is
    /// read.
    pub fn end(&self, documents: usize, other_field: &str) {
        if let Some(more) = self.count.checked_sub(SHOWN).filter(|n| *n > 0) {
            eprintln!("warning: and {more} more like these");
        }
        if self.without_text > documents {
            eprintln!("hint: {other_field}");
        }
    }
}
