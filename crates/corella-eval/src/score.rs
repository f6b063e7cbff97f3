//! Scores of items and tasks: the metrics made of log-likelihoods.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Item, NotNumbers, Question, Reader, Task};

/// An item, scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemScore {
    /// Log-likelihood of each continuation.
    pub log_probs: Vec<f64>,
    /// Whether the likeliest continuation is the right one; of a cloze, whether greedy decoding gives it.
    pub acc: bool,
    /// The same with each log-likelihood divided by the characters of its choice.
    pub acc_norm: bool,
    /// Whether a context was longer than the model's, so that it lost its beginning.
    #[serde(default)]
    pub truncated: bool,
}

impl ItemScore {
    /// Number of the likeliest continuation, of several the first.
    pub fn pred(&self) -> usize {
        first_largest(&self.log_probs)
    }
}

/// Scores an item; `None` where one of its continuations cannot be judged.
pub fn score_item(reader: &mut Reader<'_>, item: &Item) -> Result<Option<ItemScore>, NotNumbers> {
    let mut found = Vec::new();
    for pair in item.pairs() {
        match reader.log_likelihood(&item.preamble, pair)? {
            Some(likelihood) => found.push(likelihood),
            None => return Ok(None),
        }
    }
    let log_probs: Vec<f64> = found.iter().map(|one| one.log_prob).collect();
    let truncated = found.iter().any(|one| one.truncated);
    Ok(Some(match &item.question {
        Question::Cloze(_) => {
            let acc = found.iter().all(|one| one.greedy);
            ItemScore { log_probs, acc, acc_norm: acc, truncated }
        }
        Question::Choice { lengths, gold, .. } => {
            let normed: Vec<f64> = log_probs.iter().zip(lengths).map(|(p, n)| p / *n as f64).collect();
            let (acc, acc_norm) = (first_largest(&log_probs) == *gold, first_largest(&normed) == *gold);
            ItemScore { log_probs, acc, acc_norm, truncated }
        }
    }))
}

/// Index of the largest value, of several the first, as numpy's argmax.
fn first_largest(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// The scores of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskScore {
    /// Items that were judged: what the means are over.
    pub items: usize,
    /// Items that cannot be judged ([`score_item`]); they count nowhere.
    pub left_out: usize,
    /// Judged items of which a context was longer than the model's, and lost its beginning.
    pub truncated: usize,
    /// Share of right answers.
    pub acc: f64,
    /// Its standard error.
    pub acc_stderr: f64,
    /// Share of right answers by length-normalised likelihood, where the task has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
    /// exp of the mean negative log-likelihood of the continuation, for cloze tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// The scores of each subject, where a task has subjects (MMLU).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subjects: BTreeMap<String, SubjectScore>,
}

/// The scores of a subject of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SubjectScore {
    /// Its items that were judged.
    pub items: usize,
    /// Share of right answers.
    pub acc: f64,
}

/// Means over those of the items that were judged; `None` where there is none. The scores are those of the first items.
pub fn summary(task: Task, items: &[Item], all: &[Option<ItemScore>]) -> Option<TaskScore> {
    let scores: Vec<&ItemScore> = all.iter().flatten().collect();
    if scores.is_empty() {
        return None;
    }
    let n = scores.len() as f64;
    let share = |of: fn(&ItemScore) -> bool| scores.iter().filter(|s| of(s)).count() as f64 / n;
    let acc = share(|s| s.acc);
    let mean_log = scores.iter().filter_map(|s| s.log_probs.first()).sum::<f64>() / n;
    Some(TaskScore {
        items: scores.len(),
        left_out: all.len() - scores.len(),
        truncated: scores.iter().filter(|s| s.truncated).count(),
        acc,
        // Of a sample, as lm-eval has it.
        acc_stderr: (acc * (1.0 - acc) / (n - 1.0).max(1.0)).sqrt(),
        acc_norm: task.has_norm().then(|| share(|s| s.acc_norm)),
        perplexity: (task == Task::Lambada).then(|| (-mean_log).exp()),
        subjects: by_subject(items, all),
    })
}

fn by_subject(items: &[Item], all: &[Option<ItemScore>]) -> BTreeMap<String, SubjectScore> {
    let mut subjects: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (item, score) in items.iter().zip(all) {
        if let (Some(subject), Some(score)) = (&item.subject, score) {
            let (judged, right) = subjects.entry(subject.clone()).or_default();
            *judged += 1;
            *right += usize::from(score.acc);
        }
    }
    let share = |(items, right): (usize, usize)| SubjectScore { items, acc: right as f64 / items as f64 };
    subjects.into_iter().map(|(subject, counts)| (subject, share(counts))).collect()
}
