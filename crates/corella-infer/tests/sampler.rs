//! Draws: against `transformers` and PyTorch, against a full sort, and against the χ² distribution.

use corella_infer::{History, SampleParams, Sampler, Sampling};
use proptest::prelude::*;
use serde_json::Value;

fn params(json: &Value) -> SampleParams {
    let number = |key: &str| json[key].as_f64().map(|v| v as f32);
    let bias = json["logit_bias"].as_array().cloned().unwrap_or_default();
    SampleParams {
        temperature: number("temperature").unwrap_or(1.0),
        temperature_last: false,
        top_k: json["top_k"].as_u64().map(|k| k as usize),
        top_p: number("top_p"),
        min_p: number("min_p"),
        typical_p: number("typical_p"),
        repetition_penalty: number("repetition_penalty").unwrap_or(1.0),
        frequency_penalty: number("frequency_penalty").unwrap_or(0.0),
        presence_penalty: number("presence_penalty").unwrap_or(0.0),
        logit_bias: bias
            .iter()
            .map(|pair| (pair[0].as_u64().expect("an id") as u32, pair[1].as_f64().expect("a bias") as f32))
            .collect(),
        seed: 0,
    }
}

#[test]
fn every_filter_leaves_what_transformers_leaves() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sampler/golden.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("the fixture")).expect("JSON");
    let cases = cases.as_array().expect("cases");
    assert!(cases.len() >= 42);
    let mut sampler = Sampler::default();
    for case in cases {
        let ids = |key: &str| -> Vec<u32> {
            case[key].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
        };
        let mut logits: Vec<f32> =
            case["logits"].as_array().expect("logits").iter().map(|l| l.as_f64().expect("a logit") as f32).collect();
        let sampling = Sampling::new(params(&case["params"]), logits.len()).expect("valid");
        let mut history = History::new(&sampling, &ids("prompt"));
        ids("output").into_iter().for_each(|id| history.push(id));
        history.adjust(&mut logits, &sampling, &[]);
        let distribution = sampler.distribution(&logits, &sampling);
        for (id, expected) in case["log_probs"].as_array().expect("log-probabilities").iter().enumerate() {
            let found = distribution.log_prob(id as u32);
            match expected.as_f64() {
                Some(expected) => assert!((f64::from(found) - expected).abs() < 3e-6, "{case}: {id}: {found}"),
                None => assert_eq!(found, f32::NEG_INFINITY, "{case}: {id}"),
            }
        }
    }
}

/// llama.cpp's order, in a vocabulary that is listed whole and in one that is not.
#[test]
fn a_temperature_that_comes_last_acts_on_what_the_filters_leave() {
    let plain = SampleParams::default();
    let filters = [
        SampleParams { top_k: Some(7), ..plain.clone() },
        SampleParams { top_p: Some(0.8), ..plain.clone() },
        SampleParams { min_p: Some(0.2), ..plain.clone() },
        SampleParams { typical_p: Some(0.6), ..plain.clone() },
        SampleParams { top_k: Some(50), top_p: Some(0.9), min_p: Some(0.05), typical_p: Some(0.9), ..plain.clone() },
    ];
    let mut sampler = Sampler::default();
    for (size, spread) in [(300, 12.0), (6000, 3.0)] {
        let logits: Vec<f32> = (0..size).map(|i| (i * 7919 % size) as f32 / size as f32 * spread).collect();
        for filter in &filters {
            let first = Sampling::new(filter.clone(), size).expect("valid");
            let untouched = sampler.distribution(&logits, &first);
            let kept: Vec<bool> = (0..size).map(|id| untouched.log_prob(id as u32).is_finite()).collect();
            for temperature in [0.4, 2.5] {
                let last = SampleParams { temperature, temperature_last: true, ..filter.clone() };
                let last = Sampling::new(last, size).expect("valid");
                let found = sampler.distribution(&logits, &last);
                let scaled = |id: usize| f64::from(logits[id]) / f64::from(temperature);
                let total: f64 = (0..size).filter(|id| kept[*id]).map(|id| scaled(id).exp()).sum();
                for (id, kept) in kept.iter().enumerate() {
                    let (found, expected) = (f64::from(found.log_prob(id as u32)), scaled(id) - total.ln());
                    let right = if *kept { (found - expected).abs() < 1e-5 } else { found == f64::NEG_INFINITY };
                    assert!(right, "{filter:?} at {temperature}: {id}: {found}, not {expected}");
                }
            }
        }
    }
    // Without a filter there is nothing behind which it could come: such draws stay where the device makes them.
    let alone = SampleParams { temperature: 0.5, temperature_last: true, ..plain };
    assert!(!Sampling::new(alone, 300).expect("valid").params().temperature_last);
}

/// Which tokens pass, found by sorting them all, with sums in f64.
fn kept_by_sorting(logits: &[f32], p: &SampleParams) -> Vec<bool> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: usize| (f64::from(logits[id] - max) / f64::from(p.temperature)).exp();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order.truncate(p.top_k.unwrap_or(usize::MAX));
    if let Some(top_p) = p.top_p {
        let goal = order.iter().map(|id| weight(*id)).sum::<f64>() * f64::from(top_p);
        let mut before = 0.0;
        order.retain(|id| {
            let keep = before < goal;
            before += weight(*id);
            keep
        });
    }
    if let Some(min_p) = p.min_p {
        order.retain(|id| weight(*id) >= f64::from(min_p));
    }
    if let Some(typical) = p.typical_p {
        let total: f64 = order.iter().map(|id| weight(*id)).sum();
        let surprise = |id: usize| -(weight(id) / total).ln();
        let entropy: f64 = order.iter().map(|id| weight(*id) / total * surprise(*id)).sum();
        let away = |id: usize| (surprise(id) - entropy).abs();
        order.sort_by(|a, b| away(*a).total_cmp(&away(*b)));
        let (mut before, mut last) = (0.0, 0);
        while last + 1 < order.len() && before + weight(order[last]) < f64::from(typical) * total {
            before += weight(order[last]);
            last += 1;
        }
        let bar = away(order[last]);
        order.retain(|id| away(*id) <= bar);
    }
    let mut kept = vec![false; logits.len()];
    order.iter().for_each(|id| kept[*id] = true);
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn partial_selection_is_the_full_sort(
        seed in any::<u64>(),
        size in 1usize..3000,
        levels in prop_oneof![Just(3u32), Just(50), Just(1 << 20)],
        temperature in 0.2f32..3.0,
        top_k in prop::option::of(1usize..400),
        top_p in prop::option::of(0.01f32..1.0),
        min_p in prop::option::of(0.001f32..1.0),
        typical_p in prop::option::of(0.05f32..1.0),
    ) {
        // Few levels give many equal logits. The numbers are a plain congruence: they need no quality.
        let mut state = seed;
        let logits: Vec<f32> = (0..size).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) as u32 % levels) as f32 / levels as f32 * 12.0
        }).collect();
        let p = SampleParams { temperature, top_k, top_p, min_p, typical_p, seed, ..SampleParams::default() };
        let sampling = Sampling::new(p.clone(), size).expect("valid");
        let mut sampler = Sampler::default();
        let mut distribution = sampler.distribution(&logits, &sampling);
        let kept: Vec<bool> = (0..size as u32).map(|id| distribution.log_prob(id) > f32::NEG_INFINITY).collect();
        let expected = kept_by_sorting(&logits, &p);
        // With many equal logits, the rounding of the oracle's sums decides at a border.
        if levels == 1 << 20 || (typical_p.is_none() && top_p.is_none()) {
            // Weights are whole numbers in units of 2^-44 of the largest: tokens of a unit or less are never drawn either way.
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for id in 0..size {
                let units = (f64::from(logits[id] - largest) / f64::from(temperature)).exp() * 2f64.powi(44);
                if units >= 2.0 {
                    prop_assert_eq!(kept[id], expected[id], "token {} of {} units", id, units);
                }
            }
        }
        prop_assert!(kept[distribution.draw(seed, 1, 2) as usize]);
        let mut order: Vec<u32> = (0..size as u32).filter(|id| kept[*id as usize]).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        order.truncate(20);
        prop_assert_eq!(distribution.top(20).into_iter().map(|t| t.0).collect::<Vec<_>>(), order);
    }
}

/// χ² of 20,000 draws against probabilities; `bound` is exceeded once in 10,000.
fn chi_square(sampling: &SampleParams, logits: &[f32], probabilities: &[f64], bound: f64) {
    const DRAWS: u64 = 20_000;
    let sampling = Sampling::new(sampling.clone(), logits.len()).expect("valid");
    let mut sampler = Sampler::default();
    let distribution = sampler.distribution(logits, &sampling);
    let mut counts = vec![0u64; logits.len()];
    (0..DRAWS).for_each(|i| counts[distribution.draw(11, i / 100, i % 100) as usize] += 1);
    let mut chi2 = 0.0;
    for (count, p) in counts.iter().zip(probabilities) {
        if *p == 0.0 {
            assert_eq!(*count, 0, "a token that is filtered out is never drawn");
        } else {
            let expected = p * DRAWS as f64;
            chi2 += (*count as f64 - expected).powi(2) / expected;
        }
    }
    assert!(chi2 < bound, "{chi2} for {sampling:?}");
}

#[test]
fn draws_follow_the_probabilities_that_the_filters_leave() {
    let p = [0.4, 0.25, 0.2, 0.1, 0.05f64];
    let logits: Vec<f32> = p.iter().map(|p| p.ln() as f32).collect();
    let plain = SampleParams::default();
    let share = |kept: &[f64]| -> Vec<f64> {
        let total: f64 = kept.iter().sum();
        kept.iter().map(|p| p / total).chain(vec![0.0; p.len() - kept.len()]).collect()
    };
    chi_square(&plain, &logits, &p, 23.5);
    let squares: Vec<f64> = p.iter().map(|p| p * p).collect();
    chi_square(&SampleParams { temperature: 0.5, ..plain.clone() }, &logits, &share(&squares), 23.5);
    chi_square(&SampleParams { top_k: Some(3), ..plain.clone() }, &logits, &share(&p[..3]), 18.4);
    chi_square(&SampleParams { top_p: Some(0.6), ..plain.clone() }, &logits, &share(&p[..2]), 15.1);
    chi_square(&SampleParams { min_p: Some(0.2), ..plain.clone() }, &logits, &share(&p[..4]), 21.1);
    chi_square(&SampleParams { temperature: 0.0, ..plain }, &logits, &share(&p[..1]), 1e-9);
}

/// Ids that may be drawn.
fn kept(logits: &[f32], params: SampleParams) -> Vec<usize> {
    let mut sampler = Sampler::default();
    let distribution = sampler.distribution(logits, &Sampling::new(params, logits.len()).expect("valid"));
    (0..logits.len()).filter(|id| distribution.log_prob(*id as u32) > f32::NEG_INFINITY).collect()
}

#[test]
fn a_min_p_of_one_keeps_the_likeliest_and_what_is_as_likely() {
    for top_k in [None, Some(3)] {
        let params = SampleParams { min_p: Some(1.0), top_k, ..SampleParams::default() };
        assert_eq!(kept(&[0.0, 3.0, 1.0, 2.0], params.clone()), [1], "top-k {top_k:?}");
        assert_eq!(kept(&[0.0, 3.0, 1.0, 3.0], params.clone()), [1, 3], "top-k {top_k:?}");
        let sampling = Sampling::new(params, 4).expect("valid");
        assert_eq!(Sampler::default().distribution(&[0.0, 3.0, 1.0, 2.0], &sampling).pick(u64::MAX), 1);
    }
}

/// So many tokens that a cut does not list them all. The upper half of the ids is twice as likely as the lower: all together
/// weigh 3072 times as much as one of the upper.
#[test]
fn cuts_among_thousands_of_equal_tokens_are_where_the_sums_say() {
    let equal = [0.25f32; 4096];
    let halves: Vec<f32> = (0..4096).map(|id| if id < 2048 { 0.0 } else { std::f32::consts::LN_2 }).collect();
    let top_p = |p: f32| SampleParams { top_p: Some(p), ..SampleParams::default() };
    // So many of the lower half, and of the upper.
    let ids = |lower: usize, upper: usize| (0..lower).chain(2048..2048 + upper).collect::<Vec<_>>();
    assert_eq!(kept(&equal, top_p(0.5)), ids(2048, 0));
    assert_eq!(kept(&equal, top_p(0.75)), ids(2048, 1024));
    // 0.4999 · 3072 = 1535.7; 0.7499 · 3072 = 2048 + 255.7, of tokens that weigh a half each.
    assert_eq!(kept(&halves, top_p(0.4999)), ids(0, 1536));
    assert_eq!(kept(&halves, top_p(0.7499)), ids(512, 2048));
    // Of the 3072 likeliest, which weigh 2048 + 512: 0.8999 · 2560 = 2048 + 255.7.
    let both = SampleParams { top_k: Some(3072), ..top_p(0.8999) };
    assert_eq!(kept(&halves, both), ids(512, 2048));
    let both = SampleParams { top_k: Some(3072), ..top_p(0.5) };
    assert_eq!(kept(&equal, both), ids(1536, 0));
    // The surprise of the likelier, ln 3072, is closer to the entropy, ln 3072 + ⅓ ln 2; all that are as close stay.
    let typical = SampleParams { typical_p: Some(0.1), ..SampleParams::default() };
    assert_eq!(kept(&halves, typical.clone()), ids(0, 2048));
    assert_eq!(kept(&halves, SampleParams { top_k: Some(3072), ..typical }), ids(0, 2048));
}

#[test]
fn the_entropy_is_that_of_what_temperature_and_filters_leave() {
    let p = [0.4, 0.25, 0.2, 0.1, 0.05f64];
    let logits: Vec<f32> = p.iter().map(|p| p.ln() as f32).collect();
    for (temperature, top_k, left) in [(1.0, None, 5), (0.5, None, 5), (2.0, None, 5), (0.5, Some(3), 3)] {
        let weights = p[..left].iter().map(|p| p.powf(1.0 / f64::from(temperature)));
        let total: f64 = weights.clone().sum();
        let expected: f64 = weights.map(|w| -w / total * (w / total).ln()).sum();
        let sampling = Sampling::new(SampleParams { temperature, top_k, ..SampleParams::default() }, 5).expect("valid");
        let found = f64::from(Sampler::default().distribution(&logits, &sampling).entropy());
        assert!((found - expected).abs() < 1e-6, "temperature {temperature}, top-k {top_k:?}: {found}, not {expected}");
    }
}

/// Of 2^16 tokens that are equally likely, a draw takes the one of its 16 highest random bits. Those were computed from the
/// formula with Python's whole numbers: a seed gives the same text in every version.
#[test]
fn draws_are_those_of_the_published_hash() {
    let logits = vec![1.5; 1 << 16];
    let mut sampler = Sampler::default();
    let distribution = sampler.distribution(&logits, &Sampling::plain());
    for (seed, sample, position, expected) in [(0, 0, 0, 0x2382), (1, 2, 3, 0x3657), (u64::MAX, 7, 100_000, 0x0c35)] {
        assert_eq!(distribution.draw(seed, sample, position), expected, "seed {seed}");
    }
}

#[test]
fn draws_over_a_large_vocabulary_are_fair_to_every_part_of_it() {
    const V: usize = 128_256;
    let logits: Vec<f32> = (0..V).map(|id| (id % 7) as f32 / 7.0).collect();
    let mut sampler = Sampler::default();
    let distribution = sampler.distribution(&logits, &Sampling::plain());
    let mut counts = [0f64; 16];
    (0..16_000).for_each(|i| counts[distribution.draw(3, 0, i) as usize * 16 / V] += 1.0);
    let chi2: f64 = counts.iter().map(|n| (n - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi2 < 44.3, "{chi2}: with 15 degrees of freedom exceeded once in 10,000");
}

#[test]
fn a_draw_follows_from_seed_sample_and_position_alone() {
    let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.37).sin()).collect();
    let (mut one, mut other) = (Sampler::default(), Sampler::default());
    other.distribution(&[1.0; 999], &Sampling::plain());
    let draws = |sampler: &mut Sampler, seed: u64, sample: u64| -> Vec<u32> {
        let d = sampler.distribution(&logits, &Sampling::plain());
        (0..40).map(|position| d.draw(seed, sample, position)).collect()
    };
    let reference = draws(&mut one, u64::MAX, 0);
    assert_eq!(reference, draws(&mut other, u64::MAX, 0));
    assert_ne!(reference, draws(&mut one, u64::MAX, 1), "samples differ");
    assert_ne!(reference, draws(&mut one, 0, 0), "seeds differ");
}

#[test]
fn impossible_logits_do_not_end_the_program() {
    let mut sampler = Sampler::default();
    for logits in [[f32::NEG_INFINITY; 4], [f32::NAN; 4], [f32::INFINITY, 0.0, 0.0, 0.0]] {
        for temperature in [0.0, 1.0] {
            let p = SampleParams {
                temperature,
                top_k: Some(2),
                top_p: Some(0.5),
                typical_p: Some(0.5),
                ..Default::default()
            };
            let mut d = sampler.distribution(&logits, &Sampling::new(p, 4).expect("valid"));
            assert!(d.draw(1, 2, 3) < 4);
            d.top(3);
        }
    }
}

#[test]
fn forbidden_tokens_and_biases_act_before_the_filters() {
    let p = SampleParams { temperature: 0.0, logit_bias: vec![(2, 5.0)], ..Default::default() };
    let sampling = Sampling::new(p, 4).expect("valid");
    let greedy = |forbidden: &[u32]| {
        let mut logits = [1.0, 3.0, 0.0, 2.0];
        History::new(&sampling, &[]).adjust(&mut logits, &sampling, forbidden);
        Sampler::default().distribution(&logits, &sampling).draw(0, 0, 0)
    };
    assert_eq!(greedy(&[]), 2);
    assert_eq!(greedy(&[2]), 1);
    assert_eq!(greedy(&[2, 1]), 3);
}

#[test]
fn at_temperature_zero_the_likeliest_token_is_certain() {
    let sampling = Sampling::new(SampleParams { temperature: 0.0, ..Default::default() }, 5).expect("valid");
    let mut sampler = Sampler::default();
    // What the draw before left in the sampler's memory does not show.
    sampler.distribution(&[0.0; 5], &Sampling::plain()).draw(0, 0, 0);
    let mut found = sampler.distribution(&[1.0, f32::NAN, 3.0, f32::NEG_INFINITY, 3.0], &sampling);
    assert_eq!(found.pick(u64::MAX), 2);
    assert_eq!(
        (0..5).map(|id| found.log_prob(id)).collect::<Vec<_>>(),
        [1, 1, 0, 1, 1].map(|out| if out == 1 { f32::NEG_INFINITY } else { 0.0 })
    );
    assert_eq!(found.entropy(), 0.0);
    assert_eq!((found.top(3), found.top(0)), (vec![(2, 0.0)], vec![]));
}

#[test]
fn parameters_out_of_their_ranges_are_refused() {
    let ok = SampleParams::default();
    for (params, says) in [
        (SampleParams { temperature: -0.1, ..ok.clone() }, "temperature"),
        (SampleParams { temperature: f32::NAN, ..ok.clone() }, "temperature"),
        (SampleParams { temperature: f32::INFINITY, ..ok.clone() }, "temperature"),
        (SampleParams { top_k: Some(0), ..ok.clone() }, "top_k"),
        (SampleParams { top_p: Some(0.0), ..ok.clone() }, "top_p"),
        (SampleParams { top_p: Some(f32::NAN), ..ok.clone() }, "top_p"),
        (SampleParams { min_p: Some(1.1), ..ok.clone() }, "min_p"),
        (SampleParams { typical_p: Some(-1.0), ..ok.clone() }, "typical_p"),
        (SampleParams { repetition_penalty: f32::INFINITY, ..ok.clone() }, "repetition_penalty"),
        // A logit divided by it is no number any more.
        (SampleParams { repetition_penalty: 1e-38, ..ok.clone() }, "must be between 0.01 and 100"),
        (SampleParams { repetition_penalty: 100.1, ..ok.clone() }, "repetition_penalty"),
        (SampleParams { frequency_penalty: 2.1, ..ok.clone() }, "frequency_penalty"),
        (SampleParams { presence_penalty: f32::NAN, ..ok.clone() }, "presence_penalty"),
        (SampleParams { logit_bias: vec![(10, 0.0)], ..ok.clone() }, "outside the vocabulary of 10"),
        (SampleParams { logit_bias: vec![(9, 101.0)], ..ok }, "logit_bias"),
    ] {
        let error = Sampling::new(params, 10).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}
