//! The training loop: plan, schedule, step, checkpoint, resume, log.

pub mod checkpoint;
pub mod console;
mod error;
mod log;
mod plan;
mod run_loop;
mod schedule;
mod step;

pub use error::TrainError;
pub use log::Sample;
pub use plan::{DataPlan, ModelPlan, OutputPlan, RunPlan, TrainPlan};
pub use run_loop::{Hooks, Outcome, Run, train};
pub use schedule::{Schedule, learning_rate};
pub use step::StepReport;
