//! Random requests among others and alone.

use super::*;

fn request() -> impl Strategy<Value = RequestParams> {
    // Few prompts with common beginnings, so that pages are shared.
    let prompt = (0u32..3, 1usize..40, prop::collection::vec(0..V as u32, 0..4)).prop_map(|(kind, len, end)| {
        let mut prompt: Vec<u32> = (0..len as u32).map(|i| (i * (kind + 3) + i / 7) % V as u32).collect();
        prompt.extend(end);
        prompt
    });
    let filters = (
        prop::option::of(0.3f32..1.0),
        prop::option::weighted(0.3, 1usize..V + 2),
        prop::option::weighted(0.3, 0.01f32..0.6),
        prop::option::weighted(0.2, 0.2f32..1.0),
    );
    let sample = (prop_oneof![Just(0.0f32), Just(1.0), Just(0.7)], filters, any::<u64>(), 0..5u32).prop_map(
        |(temperature, (top_p, top_k, min_p, typical_p), seed, kind)| SampleParams {
            temperature,
            top_p,
            top_k,
            min_p,
            typical_p,
            seed,
            repetition_penalty: if kind == 1 { 1.3 } else { 1.0 },
            frequency_penalty: if kind == 2 { 0.5 } else { 0.0 },
            logit_bias: match kind {
                3 => vec![(5, 1.5)],
                // Both are added.
                4 => vec![(5, 3.0), (5, -1.5)],
                _ => vec![],
            },
            ..SampleParams::default()
        },
    );
    let ends = (prop::collection::vec("[a-l]{1,2}", 0..2), prop::option::of(0..V as u32), 0usize..6);
    let reports = (prop::option::of(0usize..3), prop::option::of(0usize..3), 0usize..6, any::<bool>(), any::<bool>());
    // How many more are drawn than returned.
    let n = (1usize..4, prop::option::weighted(0.2, 0usize..4));
    // Most prompts owe nothing.
    let first = (any::<u64>(), prop_oneof![Just(String::new()), Just(String::new()), "[a-l]{1,2}"]);
    (prompt, n, 0usize..14, sample, ends, reports, first).prop_map(
        |(
            prompt,
            (n, more),
            max_tokens,
            sample,
            (stop, stop_id, min),
            (logprobs, prompt_logprobs, lookup, salted, filtered),
            (first, owed),
        )| {
            RequestParams {
                n,
                best_of: more.map(|more| n + more),
                max_tokens,
                min_tokens: min.min(max_tokens),
                sample,
                first_sample: first >> 1,
                stop,
                stop_ids: stop_id.into_iter().collect(),
                logprobs,
                logprob_stage: if filtered { LogProbStage::Filtered } else { LogProbStage::Raw },
                prompt_logprobs,
                lookup,
                scope: if salted { CacheScope::salted("a") } else { CacheScope::default() },
                owed: owed.into_bytes(),
                prompt,
                ..RequestParams::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random requests come and go on an arena that is hardly large enough: each gets what it would get alone.
    #[test]
    fn a_request_gets_the_same_among_others_as_alone(
        requests in prop::collection::vec((request(), 0usize..12, prop::option::of(0usize..20)), 1..12),
        (page_tokens, spare) in (1usize..9, 0usize..12),
        max_batch_tokens in 1usize..40,
        max_running in 1usize..9,
        model_draws: bool,
    ) {
        let pages = 60usize.div_ceil(page_tokens) + spare;
        let mut rig = Rig::new(limits(pages, page_tokens, max_batch_tokens), max_running);
        rig.model.draws = model_draws;
        let mut under_way = Vec::new();
        for (params, steps, cancel_after) in requests {
            let (result, cancelled) = rig.add(&params);
            under_way.push((params, result, cancelled, cancel_after));
            for _ in 0..steps {
                rig.step();
                for (_, _, cancelled, after) in &mut under_way {
                    match after {
                        Some(0) => cancelled.store(true, std::sync::atomic::Ordering::Relaxed),
                        Some(n) => *n -= 1,
                        None => {}
                    }
                }
            }
        }
        rig.run();
        for (params, result, _, cancel_after) in &under_way {
            let result = result.lock().expect("unpoisoned");
            if cancel_after.is_none() {
                prop_assert!(result.1, "it has ended");
                check(params, &result.0);
            }
        }
    }
}
