//! What a request must give: a loop that has no pages at all.

use super::*;

/// What a request must give, one token after the other, with no pages, no batch and no cache.
pub(super) fn expected(params: &RequestParams, room: usize) -> Completion {
    let sampling = Sampling::new(params.sample.clone(), V).expect("valid");
    let (mut sampler, mut plain) = (Sampler::default(), Sampler::default());
    let mut scored = |logits: &[f32], sampling: &Sampling, id: u32, n: Option<usize>| {
        let mut found = plain.distribution(logits, sampling);
        TokenLogProb {
            id,
            logprob: n.map(|_| found.log_prob(id)),
            entropy: n.map(|_| found.entropy()),
            rank: None,
            top: n.map(|n| found.top(n)).unwrap_or_default(),
        }
    };
    let raw = Sampling::plain();
    let mut completion = Completion::default();
    let samples = params.best_of.unwrap_or(params.n);
    // Means of the raw log-probabilities of all that was drawn, stop tokens too.
    let mut ranks = Vec::new();
    for sample in 0..samples {
        let mut sum = 0.0;
        let mut tokens = params.prompt.clone();
        let mut history = History::new(&sampling, &tokens);
        let mut choice = crate::completion::Choice::default();
        let max = params.max_tokens.min(room);
        while choice.reason.is_none() {
            if choice.drawn == max {
                choice.reason = Some(FinishReason::Length);
                break;
            }
            let logits = logits_behind(tokens.iter().copied());
            let mut adjusted = logits.clone();
            let owed = params.owed.get(choice.drawn).map(|letter| usize::from(letter - b'a'));
            let forbidden = if choice.drawn < params.min_tokens && owed.is_none() { &params.stop_ids[..] } else { &[] };
            history.adjust(&mut adjusted, &sampling, forbidden);
            if let Some(owed) = owed {
                adjusted.iter_mut().enumerate().filter(|(id, _)| *id != owed).for_each(|(_, l)| *l = f32::NEG_INFINITY);
            }
            let id = sampler.distribution(&adjusted, &sampling).draw(
                params.sample.seed,
                params.first_sample + sample as u64,
                tokens.len() as u64,
            );
            choice.drawn += 1;
            sum += f64::from(scored(&logits, &raw, id, Some(0)).logprob.expect("asked for"));
            if owed.is_none() && params.stop_ids.contains(&id) {
                choice.reason = Some(FinishReason::StopToken(id));
                break;
            }
            tokens.push(id);
            history.push(id);
            choice.tokens.push(match params.logprob_stage {
                LogProbStage::Raw => scored(&logits, &raw, id, params.logprobs),
                LogProbStage::Filtered => scored(&adjusted, &sampling, id, params.logprobs),
            });
            if owed.is_some() {
                continue;
            }
            choice.text.push((b'a' + id as u8) as char);
            let may_end = choice.drawn > params.min_tokens;
            let found = params.stop.iter().find(|s| may_end && choice.text.ends_with(s.as_str()));
            if let Some(stop) = found {
                let left = choice.text.len() - stop.len();
                choice.text.truncate(left);
                choice.tokens.truncate(params.owed.len() + left);
                choice.reason = Some(FinishReason::StopString(stop.clone()));
            }
        }
        completion.usage.completion_tokens += choice.drawn;
        ranks.push((sum / choice.drawn.max(1) as f64, choice));
    }
    if samples > params.n {
        ranks.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    completion.choices = ranks.into_iter().map(|(_, choice)| choice).take(params.n).collect();
    if let Some(n) = params.prompt_logprobs {
        completion.prompt.push(TokenLogProb { id: params.prompt[0], ..TokenLogProb::default() });
        for at in 1..params.prompt.len() {
            let logits = logits_behind(params.prompt[..at].iter().copied());
            let id = params.prompt[at];
            let rank = 1 + logits.iter().filter(|logit| **logit > logits[id as usize]).count();
            completion.prompt.push(TokenLogProb { rank: Some(rank), ..scored(&logits, &raw, id, Some(n)) });
        }
    }
    completion
}
