//! What changes logits before a draw: bias, penalties for what was said before, and forbidden tokens.

use std::collections::HashMap;

use corella_model::{Edit, Penalty};

use super::params::{SampleParams, Sampling};

/// How often each token of a sequence was seen. Empty where no penalty asks for it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// For each token seen: its number in the output.
    seen: HashMap<u32, u32>,
    counted: bool,
}

impl History {
    /// The history of a prompt; counts only if `sampling` has penalties.
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> History {
        let counted = sampling.has_penalties();
        let seen = if counted { prompt.iter().map(|id| (*id, 0)).collect() } else { HashMap::new() };
        History { seen, counted }
    }

    /// A token joins the output.
    pub fn push(&mut self, id: u32) {
        if self.counted {
            *self.seen.entry(id).or_insert(0) += 1;
        }
    }

    /// Whether [`History::adjust`] changes anything, forbidden tokens aside.
    pub fn changes(&self, sampling: &Sampling) -> bool {
        !self.seen.is_empty() || !sampling.params().logit_bias.is_empty()
    }

    /// Changes `logits` (V) in place, in this order: adds the bias; divides or multiplies by the repetition penalty;
    /// takes off the frequency and presence penalties; makes the `forbidden` tokens impossible.
    pub fn adjust(&self, logits: &mut [f32], sampling: &Sampling, forbidden: &[u32]) {
        let p = sampling.params();
        for (id, bias) in &p.logit_bias {
            logits[*id as usize] += bias;
        }
        // Every token is changed by itself, so the order of the map does not matter.
        for (id, in_output) in &self.seen {
            let logit = &mut logits[*id as usize];
            *logit = Edit { penalty: Some(penalty(p, *in_output)), ..edit(*id) }.apply(*logit);
        }
        for id in forbidden {
            logits[*id as usize] = f32::NEG_INFINITY;
        }
    }

    /// The same as edits of single logits; none where a token has two biases, whose sum would be rounded otherwise.
    pub fn edits(&self, sampling: &Sampling, forbidden: &[u32]) -> Option<Vec<Edit>> {
        let p = sampling.params();
        let mut edits: HashMap<u32, Edit> = HashMap::new();
        for (id, bias) in &p.logit_bias {
            let before = edits.entry(*id).or_insert(edit(*id)).bias.replace(*bias);
            if before.is_some() {
                return None;
            }
        }
        for (id, in_output) in &self.seen {
            edits.entry(*id).or_insert(edit(*id)).penalty = Some(penalty(p, *in_output));
        }
        for id in forbidden {
            edits.entry(*id).or_insert(edit(*id)).forbidden = true;
        }
        Some(edits.into_values().collect())
    }
}

/// An edit that changes nothing.
fn edit(id: u32) -> Edit {
    Edit { id, bias: None, penalty: None, forbidden: false }
}

/// What a token pays that stands so often in the output.
fn penalty(p: &SampleParams, in_output: u32) -> Penalty {
    let taken = if in_output > 0 { in_output as f32 * p.frequency_penalty + p.presence_penalty } else { 0.0 };
    Penalty { repetition: p.repetition_penalty, taken }
}
