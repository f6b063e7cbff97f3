//! Steps that come again: what one started is recorded, and later steps of its shape start all of it with one call of the
//! driver (a CUDA graph). Which tokens, positions and pages a step has lies in the card's memory, at the same places.

use std::collections::HashMap;

use super::batch::{Batch, Shape};
use crate::backend::{Cuda, done};
use crate::driver::Recording;

/// Largest step that is recorded. Beyond it the kernels take longer than it takes to start them.
const MOST_ROWS: usize = 64;

/// Rows that a step of `n` single tokens is computed with: one recording serves all numbers up to its own.
pub(crate) fn rows(n: usize) -> usize {
    if n <= MOST_ROWS { n.next_power_of_two() } else { n }
}

/// The recorded steps of a model, by their shape.
#[derive(Debug, Default)]
pub struct Recorded {
    steps: HashMap<Shape, Step>,
    /// How often scratch memory had moved when they were recorded.
    moves: u64,
    /// How often the driver could not keep one of them.
    refused: u8,
}

/// After so many recordings that could not be kept no more are made: the driver has a second way of starting kernels.
const MOST_REFUSED: u8 = 2;

#[derive(Debug)]
enum Step {
    /// It ran once: scratch memory is as large as it needs.
    Seen,
    Kept(Recording),
}

impl Cuda {
    /// See [`corella_ops::OpsInfer::repeat`].
    pub(crate) fn repeat_step(&self, recorded: &mut Recorded, batch: &Batch, work: &mut dyn FnMut()) {
        let Some(shape) = batch.shape().filter(|shape| shape.rows <= MOST_ROWS && self.records()) else {
            return work();
        };
        if recorded.moves != self.scratch_moves() {
            recorded.steps.clear();
            recorded.moves = self.scratch_moves();
        }
        match recorded.steps.get(&shape) {
            // SAFETY: buffers, weights and pages live as long as the model, whose recordings these are; the batch is at the
            // address that the shape names; and scratch memory has not moved since.
            Some(Step::Kept(recording)) => done(unsafe { recording.replay() }),
            Some(Step::Seen) if recorded.refused < MOST_REFUSED => {
                match done(Recording::new(self.shared_driver(), work)) {
                    Some(recording) => {
                        // SAFETY: as above.
                        done(unsafe { recording.replay() });
                        recorded.steps.insert(shape, Step::Kept(recording));
                    }
                    None => {
                        recorded.refused += 1;
                        work();
                    }
                }
            }
            Some(Step::Seen) => work(),
            None => {
                work();
                recorded.steps.insert(shape, Step::Seen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn few_sizes_serve_all_numbers_of_sequences() {
        assert_eq!([1, 2, 3, 5, 8, 9, 33, 64].map(rows), [1, 2, 4, 8, 8, 16, 64, 64]);
        assert_eq!([65, 100].map(rows), [65, 100], "beyond that a step is not recorded");
    }
}
