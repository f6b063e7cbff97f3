//! The resolved plan of a run: what run.toml holds.

use std::path::Path;

use corella_model::Dtype;
use corella_model::gpt2::Gpt2Config;
use corella_text::data::Order;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::console::grouped;
use crate::estimate::Formula;
use crate::schedule::{Schedule, learning_rate};
use crate::shell_commands::CommandPlan;
use crate::spikes::SpikeLimits;

/// The resolved plan of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// The model.
    pub model: ModelPlan,
    /// The data.
    pub data: DataPlan,
    /// The optimisation.
    #[serde(default)]
    pub train: TrainPlan,
    /// What is written.
    #[serde(default)]
    pub output: OutputPlan,
    /// Commands that are started after a checkpoint and on a failure.
    #[serde(default)]
    pub commands: CommandPlan,
    /// What the machine costs.
    #[serde(default)]
    pub cost: CostPlan,
}

/// What the machine costs, for the bill so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CostPlan {
    /// Dollars per hour of the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<f64>,
    /// Watts of the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watts: Option<f64>,
}

/// Shape of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPlan {
    /// A preset's name, gpt2-custom or llama-custom.
    pub name: String,
    /// Blocks.
    pub n_layer: usize,
    /// Heads of a block.
    pub n_head: usize,
    /// Width.
    pub n_embd: usize,
    /// Heads of keys and values of a Llama; as many as heads where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_kv_head: Option<usize>,
    /// Width of a Llama's feed-forward layer; follows from the width where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_ff: Option<usize>,
    /// Whether a Llama's output head is its embedding; as its preset has it where absent, else yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied: Option<bool>,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
}

/// A kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// gpt2-…
    Gpt2,
    /// llama-…
    Llama,
}

impl Family {
    /// That of the model of a name.
    pub fn of(name: &str) -> Family {
        if name.starts_with("llama") { Family::Llama } else { Family::Gpt2 }
    }
}

impl ModelPlan {
    /// The kind of model that it describes.
    pub fn family(&self) -> Family {
        Family::of(&self.name)
    }
}

/// The data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// Where it comes from.
    pub path: String,
    /// Which tokenizer; that of a published GPT-2 where absent and the model is one, else own.
    #[serde(default)]
    pub tokenizer: String,
    /// In which order sequences come: windows, documents, file or llm.c.
    #[serde(default)]
    pub order: Order,
}

/// The optimisation. Defaults are those of the published GPT-2 reproductions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainPlan {
    /// Updates.
    pub steps: u64,
    /// Tokens of an update.
    pub batch_tokens: usize,
    /// Sequences that pass through the model together; 0, or `"auto"` in a run file, for as many as fit into the memory.
    #[serde(deserialize_with = "micro_batch")]
    pub micro_batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Updates until the peak; absent for the usual number, see [`TrainPlan::warmup`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// How the rate falls.
    pub schedule: Schedule,
    /// Last rate as a fraction of the peak.
    pub final_lr_fraction: f64,
    /// Part of the run in which `wsd` falls.
    pub decay_fraction: f64,
    /// Decoupled weight decay of the matrices.
    pub weight_decay: f64,
    /// Decay of AdamW's first moment.
    pub beta1: f64,
    /// Decay of AdamW's second moment.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub eps: f64,
    /// Longest gradient, as a Euclidean norm.
    pub clip: f64,
    /// An update is left out when its loss lies more than this many standard deviations above the mean of the
    /// `spike_window` updates before it; 0 for never.
    pub spike_z_loss: f64,
    /// The same for the gradient norm, where the loss is above its mean too.
    pub spike_z_norm: f64,
    /// Updates that a spike is compared with.
    pub spike_window: usize,
    /// Seed of weights, data order and samples.
    pub seed: u64,
    /// Number format of activations and products; masters, gradients and moments are f32.
    #[serde(with = "dtype_name")]
    pub dtype: Dtype,
    /// Compute activations again in the backward pass.
    pub recompute: bool,
    /// Model that the weights start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
}

/// Updates until the peak where a plan does not say.
const WARMUP_STEPS: u64 = 40;

impl TrainPlan {
    /// Learning rate of update `step` (from 0).
    pub fn learning_rate(&self, step: u64) -> f64 {
        let (floor, decay) = (self.final_lr_fraction, self.decay_fraction);
        learning_rate(self.schedule, step, self.steps, self.lr, self.warmup(), floor, decay)
    }

    /// Updates until the peak: what the plan says, else the usual number or, in a shorter run, all of it.
    pub fn warmup(&self) -> u64 {
        self.warmup_steps.unwrap_or(WARMUP_STEPS.min(self.steps))
    }
}

/// A text that says no micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a number above 0, or auto")]
pub struct NoMicroBatch;

/// A number of sequences, or `auto` as 0.
pub fn parse_micro_batch(text: &str) -> Result<usize, NoMicroBatch> {
    match text {
        "auto" => Ok(0),
        number => number.parse().ok().filter(|n| *n > 0).ok_or(NoMicroBatch),
    }
}

fn micro_batch<'de, D: serde::Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    struct Written;
    impl serde::de::Visitor<'_> for Written {
        type Value = usize;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a number above 0, or \"auto\"")
        }

        fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<usize, E> {
            usize::try_from(n).map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(n), &self))
        }

        fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<usize, E> {
            usize::try_from(n).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(n), &self))
        }

        fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<usize, E> {
            parse_micro_batch(word).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(word), &self))
        }
    }
    from.deserialize_any(Written)
}

impl Default for TrainPlan {
    fn default() -> Self {
        TrainPlan {
            steps: 1000,
            batch_tokens: 0,
            micro_batch: 8,
            lr: 6e-4,
            warmup_steps: None,
            schedule: Schedule::Cosine,
            final_lr_fraction: 0.1,
            decay_fraction: 0.2,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            clip: 1.0,
            spike_z_loss: 7.0,
            spike_z_norm: 7.0,
            spike_window: 128,
            seed: 42,
            dtype: Dtype::F32,
            recompute: false,
            init_from: None,
        }
    }
}

/// A number format by its name.
mod dtype_name {
    use corella_model::Dtype;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(dtype: &Dtype, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(dtype.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Dtype, D::Error> {
        let name = String::deserialize(from)?;
        Dtype::from_name(&name).ok_or_else(|| D::Error::custom(format!("dtype is `{name}`; f32 and bf16 are computed")))
    }
}

/// What is written, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputPlan {
    /// Updates between checkpoints; 0 writes one at the end only.
    pub checkpoint_every: u64,
    /// Newest checkpoints to keep, beside the one with the lowest validation loss.
    pub keep: usize,
    /// Updates between samples; 0 for none.
    pub sample_every: u64,
    /// What the samples continue.
    pub sample_prompts: Vec<String>,
    /// Most tokens of a sample.
    pub sample_tokens: usize,
    /// Updates between validations; 0 for none. Otherwise every checkpoint is validated too, to know the best.
    pub val_every: u64,
    /// Tokens of a validation, rounded down to whole sequences.
    pub val_tokens: usize,
    /// Updates between evaluations; 0 for none.
    pub eval_every: u64,
    /// Evaluation files, as `corella eval` takes them.
    pub eval_tasks: Vec<String>,
    /// Most items of each, from its start; 0 for all.
    pub eval_limit: usize,
}

impl Default for OutputPlan {
    fn default() -> Self {
        OutputPlan {
            checkpoint_every: 250,
            keep: 2,
            sample_every: 100,
            sample_prompts: vec![String::new()],
            sample_tokens: 64,
            val_every: 100,
            val_tokens: 50_000,
            eval_every: 0,
            eval_tasks: Vec::new(),
            eval_limit: 200,
        }
    }
}

impl RunPlan {
    /// Reads a run file; unknown keys are errors.
    pub fn from_toml(text: &str) -> Result<RunPlan, TrainError> {
        let read: Result<RunPlan, _> = toml::from_str(text);
        let mut plan = read.map_err(|e| TrainError::Plan { field: "run file", what: e.to_string() })?;
        if plan.data.tokenizer.is_empty() {
            let published = Gpt2Config::preset(&plan.model.name).is_some();
            plan.data.tokenizer = if published { "gpt2" } else { "own" }.to_owned();
        }
        Ok(plan)
    }

    /// Reads a run file.
    pub fn read(path: &Path) -> Result<RunPlan, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        RunPlan::from_toml(&text).map_err(|error| match error {
            TrainError::Plan { what, .. } => TrainError::RunFile { path: path.to_path_buf(), what },
            other => other,
        })
    }

    /// The run file.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string_pretty(self).map_err(|e| TrainError::Plan { field: "run file", what: e.to_string() })
    }

    /// Micro-batches of an update. The total is exact: it never drifts from what was asked for.
    pub fn accumulation(&self) -> Result<usize, TrainError> {
        let (total, part) = (self.train.batch_tokens, self.train.micro_batch.saturating_mul(self.model.seq_len));
        if part == 0 || total == 0 || !total.is_multiple_of(part) {
            let nearest = match total / part.max(1) * part {
                0 => part.to_string(),
                below => format!("{below} or {}", below + part),
            };
            let what = format!(
                "{total} tokens are not a multiple of micro-batch {} × {} = {part}; nearest: {nearest}",
                self.train.micro_batch, self.model.seq_len
            );
            return Err(TrainError::Plan { field: "batch_tokens", what });
        }
        Ok(total / part)
    }

    /// An update as an equation.
    pub fn equation(&self) -> Result<String, TrainError> {
        self.equation_on(1)
    }

    /// An update on several cards as an equation; where they have unlike parts of it, that of a card with the most.
    pub fn equation_on(&self, cards: u32) -> Result<String, TrainError> {
        let (b, t) = (self.train.micro_batch, self.model.seq_len);
        let (passes, of_all) = (self.accumulation()?, cards.max(1) as usize);
        let (update, length) = (grouped(self.train.batch_tokens as u64), grouped(t as u64));
        let (b, count) = (grouped(b as u64), |n: usize| grouped(n as u64));
        Ok(match (of_all, passes % of_all) {
            (1, _) => format!("{update} tokens = micro-batch {b} × {length} × {} accumulation steps", count(passes)),
            (_, 0) => format!(
                "{update} tokens = micro-batch {b} × {length} × {} cards × {} accumulation steps",
                count(of_all),
                count(passes / of_all)
            ),
            _ => format!(
                "{update} tokens = micro-batch {b} × {length} × {} dealt to {} cards, at most {} to each",
                count(passes),
                count(of_all),
                count(passes.div_ceil(of_all))
            ),
        })
    }

    /// The most checkpoints that lie in the run folder at once: the newest, the best, and the one that is being written.
    pub fn checkpoints_at_once(&self) -> u64 {
        let (out, steps) = (&self.output, self.train.steps);
        let made = if out.checkpoint_every == 0 { 1 } else { steps.div_ceil(out.checkpoint_every).max(1) };
        let best = u64::from(out.val_every > 0);
        made.min((out.keep as u64).saturating_add(best + 1))
    }

    /// Operations per token, forward and backward, by [`Formula::Causal`]; `matmul_params` is its N.
    pub fn flops_per_token(&self, matmul_params: usize) -> f64 {
        let m = &self.model;
        Formula::Causal.per_token(matmul_params as u64, m.n_embd as u64, (m.n_layer * m.seq_len) as u64) as f64
    }

    /// When an update is left out.
    pub(crate) fn spike_limits(&self) -> SpikeLimits {
        let t = &self.train;
        SpikeLimits { window: t.spike_window, z_loss: t.spike_z_loss, z_norm: t.spike_z_norm }
    }

    /// Checks the values that no single type can.
    pub fn check(&self) -> Result<(), TrainError> {
        self.accumulation()?;
        let t = &self.train;
        let rules = [
            (
                "steps",
                t.steps.checked_mul(t.batch_tokens as u64).is_some(),
                "with batch_tokens make more tokens than can be counted",
            ),
            ("lr", t.lr.is_finite() && t.lr > 0.0, "must be above 0"),
            ("beta1", (0.0..1.0).contains(&t.beta1), "must be from 0 to below 1"),
            ("beta2", (0.0..1.0).contains(&t.beta2), "must be from 0 to below 1"),
            ("eps", t.eps.is_finite() && t.eps > 0.0, "must be above 0"),
            ("clip", t.clip.is_finite() && t.clip > 0.0, "must be above 0"),
            ("weight_decay", t.weight_decay.is_finite() && t.weight_decay >= 0.0, "must be 0 or more"),
            ("final_lr_fraction", (0.0..=1.0).contains(&t.final_lr_fraction), "must be from 0 to 1"),
            ("decay_fraction", t.decay_fraction > 0.0 && t.decay_fraction <= 1.0, "must be above 0 and at most 1"),
            ("warmup_steps", t.warmup() <= t.steps, "must not exceed steps"),
            ("spike_z_loss", t.spike_z_loss >= 0.0, "must be 0 or more"),
            ("spike_z_norm", t.spike_z_norm >= 0.0, "must be 0 or more"),
            ("spike_window", t.spike_window <= 1 << 20, "must be at most 1048576"),
            ("keep", self.output.keep > 0, "must be 1 or more"),
        ];
        match rules.into_iter().find(|(_, ok, _)| !ok) {
            Some((field, _, rule)) => Err(TrainError::Plan { field, what: rule.to_owned() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_an_equation_on_one_card_and_on_many() {
        let plan = RunPlan::from_toml(include_str!("../../../runs/gpt2-1558m.toml")).expect("a plan");
        let on = |cards| plan.equation_on(cards).expect("divides");
        assert_eq!(on(8), "1,048,576 tokens = micro-batch 16 × 1,024 × 8 cards × 8 accumulation steps");
        assert_eq!(on(1), "1,048,576 tokens = micro-batch 16 × 1,024 × 64 accumulation steps");
        assert_eq!(on(7), "1,048,576 tokens = micro-batch 16 × 1,024 × 64 dealt to 7 cards, at most 10 to each");
        assert_eq!(plan.equation().expect("divides"), on(1));
        // The two newest, the best, and the one that is being written; never more than are made.
        assert_eq!(plan.checkpoints_at_once(), 4);
        let once = |every, steps| {
            let mut plan = plan.clone();
            (plan.output.checkpoint_every, plan.train.steps) = (every, steps);
            plan.checkpoints_at_once()
        };
        assert_eq!((once(0, 32_000), once(2000, 3000), once(2000, 10)), (1, 2, 1));
    }

    /// The scripts of llm.c, `scripts/run_gpt2_*.sh`: updates, tokens of each, micro-batch, rate, last fraction, length of a sample.
    #[test]
    fn the_gpt2_run_files_have_the_settings_of_their_recipes() {
        for (text, expected) in [
            (include_str!("../../../runs/gpt2-124m.toml"), (18_865, 524_288, 64, 6e-4, 0.0, 144)),
            (include_str!("../../../runs/gpt2-355m.toml"), (60_000, 524_288, 64, 3e-4, 0.0, 144)),
            (include_str!("../../../runs/gpt2-774m.toml"), (286_102, 524_288, 32, 2.5e-4, 0.0, 144)),
            (include_str!("../../../runs/gpt2-1558m.toml"), (32_000, 1_048_576, 16, 6e-4, 0.1, 384)),
        ] {
            let plan = RunPlan::from_toml(text).expect("a plan");
            let t = &plan.train;
            let found = (t.steps, t.batch_tokens, t.micro_batch, t.lr, t.final_lr_fraction, plan.output.sample_tokens);
            assert_eq!(found, expected, "{}", plan.model.name);
            assert_eq!((t.warmup_steps, t.schedule, t.weight_decay, t.clip), (Some(700), Schedule::Cosine, 0.1, 1.0));
            assert_eq!((t.beta1, t.beta2, t.eps), (0.9, 0.95, 1e-8));
            // Off in all four; what is not finite is left out all the same.
            assert_eq!((t.spike_z_loss, t.spike_z_norm), (0.0, 0.0), "{}", plan.model.name);
            assert_eq!((plan.output.val_every, plan.output.val_tokens), (250, 10_485_760));
        }
    }
}
