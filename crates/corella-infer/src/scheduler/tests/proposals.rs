//! Prompt lookup: proposals that come true, and those that do not.

use super::*;

#[test]
fn what_repeats_itself_takes_fewer_steps_with_lookup() {
    let prompt: Vec<u32> = (0..30).map(|i| i % 10).collect();
    let steps = |lookup: usize| {
        let mut rig = Rig::new(limits(64, 4, 32), 8);
        let greedy = SampleParams { temperature: 0.0, ..SampleParams::default() };
        let params = RequestParams { lookup, sample: greedy, ..plain(prompt.clone(), 30) };
        let (result, _) = rig.add(&params);
        rig.run();
        let result = result.lock().expect("unpoisoned");
        check(&params, &result.0);
        (rig.metrics.steps.get(), result.0.usage.accepted_tokens)
    };
    assert_eq!(steps(0), (30, 0));
    let (fewer, accepted) = steps(8);
    assert!(fewer < 30 && accepted > 0 && fewer + accepted as u64 >= 30, "{fewer} steps, {accepted} accepted");
}

/// Runs a request on a model that draws itself, behind a prompt whose repetition proposes tokens, and checks its answer. How many
/// proposals came true.
fn accepted_proposals(params: RequestParams) -> usize {
    let mut rig = Rig::new(limits(64, 4, 32), 8);
    rig.model.draws = true;
    let params = RequestParams { lookup: 8, prompt: (0..30).map(|i| i % 10).collect(), ..params };
    let (result, _) = rig.add(&params);
    rig.run();
    let result = result.lock().expect("unpoisoned");
    check(&params, &result.0);
    result.0.usage.accepted_tokens
}

/// A stop token is forbidden before the minimum and allowed from there on, where the border lies among proposals too.
#[test]
fn the_minimum_of_tokens_counts_every_proposal_that_the_model_draws_behind() {
    let mut accepted = 0;
    for min_tokens in 0..14 {
        for stop in 0..V as u32 {
            let sample = SampleParams { temperature: 0.0, ..SampleParams::default() };
            let stop_ids = vec![stop];
            accepted += accepted_proposals(RequestParams { min_tokens, stop_ids, sample, ..plain(Vec::new(), 14) });
        }
    }
    assert!(accepted > 0, "without proposals nothing was tested");
}

/// What a penalty takes behind a proposal depends on whether the proposal was right.
#[test]
fn penalties_behind_proposals_are_those_of_what_was_drawn() {
    let mut accepted = 0;
    for (penalty, seed) in
        [-2.0, -1.0, 0.5, 2.0].into_iter().flat_map(|penalty| (0..8).map(move |seed| (penalty, seed)))
    {
        let sample = SampleParams { frequency_penalty: penalty, seed, ..SampleParams::default() };
        accepted += accepted_proposals(RequestParams { sample, ..plain(Vec::new(), 30) });
    }
    assert!(accepted > 0, "without proposals nothing was tested");
}
