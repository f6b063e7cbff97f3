//! What a run does besides training: its lines, its samples, its scores.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use corella_infer::{SampleParams, continue_tokens};
use corella_model::TextModel;
use corella_server::{App, Loading};
use corella_text::tokenizer::Tokenizer;
use corella_train::{Hooks, Run, RunPlan, Sample, StepReport};

use crate::printable::line_for_output;

/// Scores of tasks with the weights of a model, by name; none where the flag is raised before all are known.
pub type Scores = Box<dyn FnMut(&mut dyn TextModel, &Tokenizer, &AtomicBool) -> BTreeMap<String, f64>>;

/// Prints the run and writes its samples.
pub struct Console {
    plan: RunPlan,
    tokenizer: Tokenizer,
    flops_per_token: f64,
    quiet: bool,
    /// What `--eval-every` logs.
    pub scores: Option<Scores>,
    /// The site that shows the run.
    pub watched: Option<Arc<App>>,
}

impl Console {
    /// For a run that is about to start.
    pub fn new(run: &Run, quiet: bool) -> Self {
        Console {
            plan: run.plan.clone(),
            tokenizer: run.data.tokenizer.clone(),
            flops_per_token: run.plan.flops_per_token(run.product_parameters),
            quiet,
            scores: None,
            watched: None,
        }
    }

    /// Tells the site of an update, without printing it.
    pub fn count(&mut self, report: &StepReport) {
        if let Some(app) = &self.watched {
            let steps = self.plan.train.steps;
            let what = format!("training, update {} of {steps}", report.update.step);
            app.loading(Loading::Busy { what, share: Some(report.update.step as f32 / steps.max(1) as f32) });
        }
    }
}

impl Hooks for Console {
    fn on_step(&mut self, report: &StepReport) {
        self.count(report);
        if self.quiet {
            // A stream of JSON lines; the last line of the program is its result.
            println!("{}", serde_json::json!(report));
        } else {
            let (steps, price) = (self.plan.train.steps, self.plan.cost.price_per_hour);
            println!("{}", corella_train::console::line(report, steps, self.flops_per_token, price));
        }
    }

    fn sample(&mut self, step: u64, model: &mut dyn TextModel, stop: &AtomicBool) -> Vec<Sample> {
        let out = &self.plan.output;
        let mut samples = Vec::new();
        for prompt in &out.sample_prompts {
            let seed = self.plan.train.seed;
            let params = SampleParams { temperature: 0.8, seed, ..SampleParams::default() };
            let text = continue_text(model, &self.tokenizer, prompt, out.sample_tokens, params, 0, stop);
            if stop.load(Ordering::SeqCst) {
                return Vec::new();
            }
            if !self.quiet {
                let (prompt, text) = (line_for_output(prompt), line_for_output(&text));
                println!("--- sample after {step} steps: {prompt}▸{text}");
            }
            samples.push(Sample { step, prompt: prompt.clone(), text, seed });
        }
        samples
    }

    fn evaluate(&mut self, _step: u64, model: &mut dyn TextModel, stop: &AtomicBool) -> BTreeMap<String, f64> {
        self.scores.as_mut().map_or_else(BTreeMap::new, |scores| scores(model, &self.tokenizer, stop))
    }

    fn on_validation(&mut self, step: u64, loss: f64) {
        // A stream of JSON lines is one of updates.
        if !self.quiet {
            let when = if step == 0 { "before the first update".to_owned() } else { format!("after {step} updates") };
            println!("validation loss {when}: {loss:.6}");
        }
    }

    fn on_checkpoint(&mut self, path: &Path) {
        if !self.quiet {
            println!("checkpoint {}", path.display());
        }
    }
}

/// The text that a model adds to `prompt`, up to an end-of-text token or until `stop` is raised. A prompt that does not fit
/// gives no text.
pub fn continue_text(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    prompt: &str,
    max_tokens: usize,
    params: SampleParams,
    sample_index: u64,
    stop: &AtomicBool,
) -> String {
    let mut ids = vec![tokenizer.start_of_text()];
    ids.extend(tokenizer.encode(prompt));
    match continue_tokens(model, &ids, max_tokens, tokenizer.stop_ids(), params, sample_index, stop) {
        Ok(tokens) => tokenizer.decode_continuation(&tokens),
        Err(error) => {
            eprintln!("warning: no sample: {error}");
            String::new()
        }
    }
}
