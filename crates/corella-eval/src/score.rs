//! Log-likelihoods of continuations, and the metrics made of them.

use corella_model::TextModel;
use corella_text::tokenizer::Tokenizer;
use serde::Serialize;

use crate::{Item, Pair, Question, Task};

/// What the model says of a continuation that it can judge.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Likelihood {
    /// Natural log of its probability, given the context.
    pub log_prob: f64,
    /// Whether every token of it is the likeliest at its place.
    pub greedy: bool,
}

/// Ids as lm-eval has them: special tokens by name, and the token that starts a text in front where the tokenizer's files
/// ask for it and the text does not begin with it.
fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = tokenizer.encode_with_special(text);
    let start = tokenizer.start_of_text();
    if tokenizer.roles().add_bos == Some(true) && ids.first() != Some(&start) {
        ids.insert(0, start);
    }
    ids
}

/// Log-likelihood of a continuation, tokenised as lm-eval does: spaces at the end of the context go over to the
/// continuation; the continuation's ids are those of the whole text behind as many ids as the context has by itself, and
/// they stand behind those of the context by itself, even where a token of the whole text reaches over the border; an
/// empty context is the token that starts a text; what is too long loses its beginning. `None` where lm-eval refuses: where the
/// tokenizer joins the continuation to the context's last token, so that no token is left to judge; where the context is spaces
/// alone and no token stands in front; and where the continuation alone is longer than the model's context.
pub fn log_likelihood(model: &mut dyn TextModel, tokenizer: &Tokenizer, pair: &Pair) -> Option<Likelihood> {
    let (context, spaces) = pair.context.split_at(pair.context.trim_end().len());
    let continuation = format!("{spaces}{}", pair.continuation);
    let (mut ids, start) = if pair.context.is_empty() {
        let start = [tokenizer.start_of_text()];
        ([&start[..], &tokenizer.encode_with_special(&continuation)].concat(), 1)
    } else {
        let (mut ids, whole) = (encode(tokenizer, context), encode(tokenizer, &format!("{context}{continuation}")));
        let start = ids.len();
        ids.extend(whole.into_iter().skip(start));
        (ids, start)
    };
    let judged = ids.len() - start;
    if start == 0 || judged == 0 || judged > model.context_len() {
        return None;
    }
    let too_long = ids.len().saturating_sub(model.context_len() + 1);
    ids.drain(..too_long);
    let mut found = Likelihood { log_prob: 0.0, greedy: true };
    let first = ids.len() - judged;
    model.reset();
    model.feed_each(&ids[..ids.len() - 1], &mut |i, logits| {
        if i + 1 >= first {
            let (target, top) = (ids[i + 1] as usize, max(logits));
            found.log_prob += log_probability(logits, target);
            found.greedy &= logits.iter().position(|l| *l == top) == Some(target);
        }
    });
    Some(found)
}

/// Negative log-likelihood, in nats, of every token after the first, given those before it: at least two tokens, of which
/// all but the last fit into the context.
pub fn negative_log_likelihood(model: &mut dyn TextModel, tokens: &[u32]) -> f64 {
    let mut nll = 0.0;
    model.reset();
    model.feed_each(&tokens[..tokens.len() - 1], &mut |i, logits| {
        nll -= log_probability(logits, tokens[i + 1] as usize);
    });
    nll
}

fn max(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

fn log_probability(logits: &[f32], target: usize) -> f64 {
    let top = f64::from(max(logits));
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - top).exp()).sum();
    f64::from(logits[target]) - top - sum.ln()
}

/// An item, scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ItemScore {
    /// Log-likelihood of each continuation.
    pub log_probs: Vec<f64>,
    /// Whether the likeliest continuation is the right one; of a cloze, whether greedy decoding gives it.
    pub acc: bool,
    /// The same with each log-likelihood divided by the characters of its choice.
    pub acc_norm: bool,
}

/// Scores an item; `None` where one of its continuations cannot be judged.
pub fn score_item(model: &mut dyn TextModel, tokenizer: &Tokenizer, item: &Item) -> Option<ItemScore> {
    let mut judge = |pair: &Pair| {
        let context = format!("{}{}", item.preamble, pair.context);
        log_likelihood(model, tokenizer, &Pair { context, continuation: pair.continuation.clone() })
    };
    match &item.question {
        Question::Cloze(pair) => {
            let found = judge(pair)?;
            Some(ItemScore { log_probs: vec![found.log_prob], acc: found.greedy, acc_norm: found.greedy })
        }
        Question::Choice { pairs, lengths, gold } => {
            let log_probs: Vec<f64> = pairs.iter().map(|pair| Some(judge(pair)?.log_prob)).collect::<Option<_>>()?;
            let normed: Vec<f64> = log_probs.iter().zip(lengths).map(|(p, n)| p / *n as f64).collect();
            let (acc, acc_norm) = (first_largest(&log_probs) == *gold, first_largest(&normed) == *gold);
            Some(ItemScore { log_probs, acc, acc_norm })
        }
    }
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
}

/// Means over the items that were judged; `None` where there is none.
pub fn summary(task: Task, all: &[Option<ItemScore>]) -> Option<TaskScore> {
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
        acc,
        // Of a sample, as lm-eval has it.
        acc_stderr: (acc * (1.0 - acc) / (n - 1.0).max(1.0)).sqrt(),
        acc_norm: task.has_norm().then(|| share(|s| s.acc_norm)),
        perplexity: (task == Task::Lambada).then(|| (-mean_log).exp()),
    })
}
