//! Continuing a text on a model that feeds one sequence: what a trainer's samples use while the weights
//! are borrowed. Draws are those of the engine.

use std::sync::atomic::{AtomicBool, Ordering};

use corella_model::TextModel;

use crate::error::{Field, RequestError};
use crate::sampler::{History, SampleParams, Sampler, Sampling};

fn check_prompt(model: &dyn TextModel, prompt: &[u32]) -> Result<(), RequestError> {
    let (context, vocab_size) = (model.context_len(), model.vocab_size());
    if prompt.is_empty() {
        return Err(RequestError::EmptyPrompt);
    }
    if prompt.len() > context {
        return Err(RequestError::PromptTooLong { prompt: prompt.len(), context });
    }
    match prompt.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(RequestError::BadToken { field: Field::Prompt, id: *id, vocab_size }),
        None => Ok(()),
    }
}

/// The tokens that follow `prompt`: at most `max_tokens`, up to the first of `stop_ids` or the end of the context.
/// Sample `sample` of the same seed is another continuation. It ends early once `stop` is raised.
pub fn continue_tokens(
    model: &mut dyn TextModel,
    prompt: &[u32],
    max_tokens: usize,
    stop_ids: &[u32],
    params: SampleParams,
    sample: u64,
    stop: &AtomicBool,
) -> Result<Vec<u32>, RequestError> {
    check_prompt(model, prompt)?;
    let sampling = Sampling::new(params, model.vocab_size())?;
    let mut sampler = Sampler::default();
    let mut history = History::new(&sampling, prompt);
    model.reset();
    let room = max_tokens.min(model.context_len() - prompt.len());
    let mut tokens = Vec::new();
    let mut feed = prompt.to_vec();
    while tokens.len() < room && !stop.load(Ordering::SeqCst) {
        let mut logits = model.feed(&feed).to_vec();
        history.adjust(&mut logits, &sampling, &[]);
        let position = (prompt.len() + tokens.len()) as u64;
        let id = sampler.distribution(&logits, &sampling).draw(sampling.params().seed, sample, position);
        if stop_ids.contains(&id) {
            break;
        }
        history.push(id);
        tokens.push(id);
        feed = vec![id];
    }
    Ok(tokens)
}
