//! `corella eval`: how well a model predicts a text.

use corella_model::{OneSequence, StepOptions, TextModel};

use crate::cli::{Common, EvalArgs};
use crate::error::{Failure, Result};
use crate::model;

/// Longest window where none is given: longer ones take memory and time, and change the figure little.
const LONGEST_WINDOW: usize = 2048;
/// Rows of logits at once.
const ROWS: usize = 64;

/// Runs the command.
///
/// The text is cut into windows of the context length. Each starts with the token that marks the start of a text, which
/// predicts the window's first token, so every token of the text is predicted exactly once; with `--no-bos` the first
/// token of each window is not predicted.
pub fn run(args: &EvalArgs, common: &Common) -> Result<()> {
    let model = model::open(&args.model, args.tokenizer.as_deref())?;
    let text =
        std::fs::read_to_string(&args.text).map_err(|e| Failure::new(format!("{}: {e}", args.text.display())))?;
    let ids = model.tokenizer.encode(&text);
    if ids.is_empty() {
        return Err(Failure::new(format!("{} is empty", args.text.display())));
    }
    let bos = (!args.no_bos).then(|| model.tokenizer.start_of_text());
    let context = args.context.unwrap_or(LONGEST_WINDOW).min(model.context_len());
    if context < 2 {
        return Err(Failure::usage("a context of fewer than two tokens predicts nothing").hint("--context 2 or more"));
    }
    let rows = context.min(ROWS);
    let options = StepOptions { max_batch_tokens: rows, max_logit_rows: rows, ..StepOptions::one_sequence(context) };
    let mut model = OneSequence::new(model.load(common, options)?);
    let (mut nll, mut predicted) = (0.0, 0usize);
    for chunk in ids.chunks(context - usize::from(bos.is_some())) {
        let tokens: Vec<u32> = bos.into_iter().chain(chunk.iter().copied()).collect();
        model.reset();
        model.feed_each(&tokens[..tokens.len() - 1], &mut |i, logits| {
            nll -= log_probability(logits, tokens[i + 1]);
            predicted += 1;
        });
    }
    let perplexity = (nll / predicted as f64).exp();
    let bits_per_byte = nll / std::f64::consts::LN_2 / text.len() as f64;
    if common.json {
        println!(
            "{}",
            serde_json::json!({"tokens": predicted, "nll": nll, "perplexity": perplexity,
                "bits_per_byte": bits_per_byte, "context": context})
        );
    } else {
        println!(
            "{predicted} tokens in windows of {context}, loss {:.4} nats per token, perplexity {perplexity:.3}, {bits_per_byte:.4} bits per byte",
            nll / predicted as f64
        );
    }
    Ok(())
}

/// Log of the probability that the logits give to a token.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - max).exp()).sum();
    f64::from(logits[token as usize]) - max - sum.ln()
}
