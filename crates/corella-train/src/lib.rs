//! The training loop: plan, schedule, step, checkpoint, resume, log.

mod calendar;
pub mod checkpoint;
mod clock;
pub mod console;
mod data_check;
mod device;
mod differences;
mod error;
pub mod estimate;
pub mod folder;
pub mod heartbeat;
mod log;
mod plan;
pub mod report;
mod run_loop;
mod schedule;
mod shell_commands;
mod spikes;
mod spread;
mod step;
mod step_report;
mod validate;
mod whole_file;

pub use device::{Device, Usage};
pub use error::TrainError;
pub use log::{Event, Sample};
pub use plan::{
    CostPlan, DataPlan, Family, ModelPlan, NoMicroBatch, OutputPlan, RunPlan, TrainPlan, parse_micro_batch,
};
pub use run_loop::{Hooks, Outcome, Run, not_begun, train};
pub use schedule::Schedule;
pub use shell_commands::CommandPlan;
pub use spikes::{Skip, SpikeDetector};
pub use spread::Spread;
pub use step::{StepParts, Update};
pub use step_report::StepReport;
