//! `corella eval`: how well a model predicts a text.

use corella_infer::log_probabilities;
use corella_model::TextModel;
use corella_model::gpt2::Gpt2Infer;

use crate::cli::{Common, EvalArgs};
use crate::error::{Failure, Result};
use crate::inputs::{backend, open_model};

/// Runs the command.
///
/// The text is cut into windows of the context length; each starts with the end-of-text token, which predicts the
/// window's first token, so every token of the text is predicted exactly once.
pub fn run(args: &EvalArgs, common: &Common) -> Result<()> {
    let model = open_model(&args.model, args.tokenizer.as_deref())?;
    let text =
        std::fs::read_to_string(&args.text).map_err(|e| Failure::new(format!("{}: {e}", args.text.display())))?;
    let ids = model.tokenizer.encode(&text);
    if ids.is_empty() {
        return Err(Failure::new(format!("{} is empty", args.text.display())));
    }
    let bos = model.tokenizer.start_of_text();
    let mut model = Gpt2Infer::new(backend(common)?, model.weights)?;
    let window = model.context_len().max(2) - 1;
    let mut nll = 0.0;
    for chunk in ids.chunks(window) {
        let tokens: Vec<u32> = std::iter::once(bos).chain(chunk.iter().copied()).collect();
        nll -= log_probabilities(&mut model, &tokens)?.iter().map(|p| f64::from(*p)).sum::<f64>();
    }
    let tokens = ids.len() as f64;
    let (perplexity, bits_per_byte) = ((nll / tokens).exp(), nll / std::f64::consts::LN_2 / text.len() as f64);
    if common.json {
        println!(
            "{}",
            serde_json::json!({"tokens": ids.len(), "nll": nll, "perplexity": perplexity, "bits_per_byte": bits_per_byte})
        );
    } else {
        println!(
            "{} tokens, loss {:.4} nats per token, perplexity {perplexity:.3}, {bits_per_byte:.4} bits per byte",
            ids.len(),
            nll / tokens
        );
    }
    Ok(())
}
