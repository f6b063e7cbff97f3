//! The training loop: plan, schedule, step, checkpoint, resume, log.

pub mod checkpoint;
mod clock;
mod commands;
pub mod console;
mod error;
pub mod estimate;
mod folder;
pub mod heartbeat;
mod log;
mod plan;
pub mod report;
mod run_loop;
mod schedule;
mod spikes;
mod step;
mod validate;
mod whole_file;

pub use commands::CommandPlan;
pub use error::TrainError;
pub use log::{Event, Sample};
pub use plan::{CostPlan, DataPlan, ModelPlan, OutputPlan, RunPlan, TrainPlan, parse_micro_batch};
pub use run_loop::{Hooks, Outcome, Run, train};
pub use schedule::{Schedule, learning_rate};
pub use spikes::{Skip, SpikeDetector, SpikeLimits};
pub use step::{StepParts, StepReport};
