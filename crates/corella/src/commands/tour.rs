//! `corella tour`: the lesson, which stands in [`crate::tour`].

use crate::cli::{Common, TourArgs};
use crate::error::Result;
use crate::tour;

/// Runs the command.
pub fn run(args: &TourArgs, common: &Common) -> Result<()> {
    tour::run(args, common)
}
