//! What the loop asks of its caller.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use corella_model::TextModel;

use crate::console::warn;
use crate::log::Sample;
use crate::step_report::StepReport;

/// What the loop asks its caller to do. The caller prints and samples; the loop decides when.
pub trait Hooks {
    /// An update is done.
    fn on_step(&mut self, report: &StepReport);
    /// Writes samples with the weights after `step` updates; none where `stop` is raised before all are written.
    fn sample(&mut self, step: u64, model: &mut dyn TextModel, stop: &AtomicBool) -> Vec<Sample>;
    /// A checkpoint was written.
    fn on_checkpoint(&mut self, path: &Path);
    /// Evaluates the weights after `step` updates: scores by name; none where `stop` is raised before all are known.
    fn evaluate(&mut self, _step: u64, _model: &mut dyn TextModel, _stop: &AtomicBool) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }
    /// A validation loss was measured that belongs to no update of this session: at its beginning.
    fn on_validation(&mut self, _step: u64, _loss: f64) {}
    /// Something went wrong that does not end the run.
    fn on_trouble(&mut self, what: &str) {
        warn(what);
    }
}
