//! What makes a resumed run another one than if it had not stopped.

use corella_model::Dtype;

use crate::checkpoint::State;
use crate::plan::{RunPlan, TrainPlan};

/// Sentences for the person, none where nothing differs. `backend` is what the run goes on on.
pub(crate) fn differences(state: &State, plan: &RunPlan, backend: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (was, is) = (state.plan.train.dtype, plan.train.dtype);
    if was != is {
        found.push(format!(
            "the run began in {} and goes on in {}: products are rounded otherwise, so losses will not be equal to the bit",
            was.name(),
            is.name()
        ));
    }
    // The name ends with the format, of which all is said.
    let device = |name: &str, dtype: Dtype| name.strip_suffix(dtype.name()).unwrap_or(name).to_owned();
    if device(&state.backend, was) != device(backend, is) {
        found.push(format!(
            "the run began on {} and goes on on {backend}: the order of additions differs, so losses will not be equal to the bit",
            state.backend
        ));
    }
    let batch = |plan: &RunPlan| (plan.train.batch_tokens, plan.train.micro_batch);
    if batch(&state.plan) != batch(plan) {
        found.push("the batch differs from the checkpoint's plan: losses will not be equal to the bit".to_owned());
    }
    let rules: Vec<String> = other_rules(&state.plan.train, &plan.train)
        .into_iter()
        .map(|(name, was, is)| format!("{name} was {was} and is {is}"))
        .collect();
    if !rules.is_empty() {
        found.push(format!("the run goes on by other rules than those of its checkpoint: {}", rules.join(", ")));
    }
    let rate = |plan: &RunPlan| plan.train.learning_rate(state.step);
    let (was, is) = (rate(&state.plan), rate(plan));
    if rules.is_empty() && state.step < plan.train.steps && state.step > 0 && (is / was - 1.0).abs() > NOTICEABLE {
        found.push(format!(
            "the learning rate goes on at {is:.2e} instead of {was:.2e}: steps {}, warm-up {}, before {} and {}",
            plan.train.steps,
            plan.train.warmup(),
            state.plan.train.steps,
            state.plan.train.warmup()
        ));
    }
    found
}

/// A learning rate that differs by so much is said.
const NOTICEABLE: f64 = 0.05;

/// What decides how far an update goes, where two plans differ: its name in run files and both values. Steps and warm-up are not
/// among them: to train longer is what runs are resumed for.
fn other_rules(was: &TrainPlan, is: &TrainPlan) -> Vec<(&'static str, String, String)> {
    let rules = |plan: &TrainPlan| {
        [
            ("lr", plan.lr.to_string()),
            ("schedule", format!("{:?}", plan.schedule).to_lowercase()),
            ("final_lr_fraction", plan.final_lr_fraction.to_string()),
            ("decay_fraction", plan.decay_fraction.to_string()),
            ("weight_decay", plan.weight_decay.to_string()),
            ("beta1", plan.beta1.to_string()),
            ("beta2", plan.beta2.to_string()),
            ("eps", plan.eps.to_string()),
            ("clip", plan.clip.to_string()),
        ]
    };
    let pairs = rules(was).into_iter().zip(rules(is));
    pairs.filter(|(was, is)| was != is).map(|((name, was), (_, is))| (name, was, is)).collect()
}
