//! What a trainer's samples are made with: the same tokens as the engine's, one sequence at a time.

mod common;

use std::sync::atomic::AtomicBool;

use common::{gpt2, letters};
use corella_infer::{
    Field, Request, RequestError, RequestLimits, RequestParams, SampleParams, complete, continue_tokens,
};
use corella_model::gpt2::Gpt2Infer;
use corella_model::{OneSequence, StepModel};
use corella_ops::cpu::Cpu;

/// The tokens of one continuation by the engine's own loop.
fn by_the_engine(prompt: &[u32], max_tokens: usize, sample: &SampleParams, first_sample: u64) -> Vec<u32> {
    let mut model = gpt2(120);
    let params = RequestParams {
        prompt: prompt.to_vec(),
        max_tokens,
        sample: sample.clone(),
        first_sample,
        ..RequestParams::default()
    };
    let request = Request::new(params, &model.limits(), &[], &RequestLimits::default()).expect("valid");
    let completion = complete(&mut model, letters(), request);
    assert_eq!(completion.error, None);
    completion.choices[0].tokens.iter().map(|token| token.id).collect()
}

struct Rig(OneSequence<Gpt2Infer<Cpu>>);

impl Rig {
    fn new() -> Rig {
        Rig(OneSequence::new(gpt2(120)))
    }

    fn run(
        &mut self,
        prompt: &[u32],
        max_tokens: usize,
        stop_ids: &[u32],
        sample: &SampleParams,
        number: u64,
    ) -> Result<Vec<u32>, RequestError> {
        let stop = AtomicBool::new(false);
        continue_tokens(&mut self.0, prompt, max_tokens, stop_ids, sample.clone(), number, &stop)
    }
}

#[test]
fn a_continuation_is_that_of_the_engine() {
    // One model for all: what came before must not show.
    let mut rig = Rig::new();
    let prompt: Vec<u32> = (0..30).map(|i| i * 7 % 60).collect();
    // The logits of an untrained model are small.
    let penalised = SampleParams {
        repetition_penalty: 30.0,
        frequency_penalty: 1.0,
        presence_penalty: 0.5,
        logit_bias: vec![(3, 2.0)],
        ..SampleParams::default()
    };
    let filtered = SampleParams { temperature: 0.7, top_k: Some(20), ..SampleParams::default() };
    let mut seen = Vec::new();
    for kind in [SampleParams::default(), penalised, filtered] {
        for (seed, number) in [(3, 0), (3, 5), (9, 0), (9, 5)] {
            let sample = SampleParams { seed, ..kind.clone() };
            let found = rig.run(&prompt, 40, &[], &sample, number).expect("valid");
            assert_eq!(found, by_the_engine(&prompt, 40, &sample, number), "{sample:?}, sample {number}");
            assert!(found.len() == 40 && !seen.contains(&found), "each is another continuation");
            seen.push(found);
        }
    }
}

#[test]
fn a_continuation_ends_at_a_stop_token_at_the_end_of_the_context_or_when_told_to() {
    let mut rig = Rig::new();
    let sample = SampleParams { seed: 1, ..SampleParams::default() };
    let all = rig.run(&[1, 2, 3], 30, &[], &sample, 0).expect("valid");
    let at = all.iter().position(|id| *id == all[12]).expect("it is there");
    assert_eq!(rig.run(&[1, 2, 3], 30, &[all[12]], &sample, 0).expect("valid"), all[..at]);
    assert!(at > 0, "something stands before it");
    for (len, room) in [(1, 119), (100, 20), (119, 1), (120, 0)] {
        let prompt: Vec<u32> = (0..len).map(|i| i % 60).collect();
        let found = rig.run(&prompt, usize::MAX, &[], &sample, 0).expect("it fits");
        assert_eq!(found.len(), room, "a prompt of {len} in a context of 120");
    }
    assert!(rig.run(&[1], 0, &[], &sample, 0).expect("valid").is_empty());
    let raised = AtomicBool::new(true);
    let found = continue_tokens(&mut rig.0, &[1], 9, &[], sample, 0, &raised).expect("valid");
    assert!(found.is_empty());
}

#[test]
fn prompts_that_the_model_cannot_read_are_refused() {
    let mut rig = Rig::new();
    let mut refused = |prompt: &[u32], bias: Vec<(u32, f32)>| {
        let sample = SampleParams { logit_bias: bias, ..SampleParams::default() };
        rig.run(prompt, 4, &[], &sample, 0).expect_err("refused")
    };
    assert_eq!(refused(&[], vec![]), RequestError::EmptyPrompt);
    assert_eq!(refused(&[1; 121], vec![]), RequestError::PromptTooLong { prompt: 121, context: 120 });
    let unknown = |field| RequestError::BadToken { field, id: 60, vocab_size: 60 };
    assert_eq!(refused(&[59, 60], vec![]), unknown(Field::Prompt));
    assert_eq!(refused(&[59], vec![(60, 1.0)]), unknown(Field::LogitBias));
}
