//! What one request may ask for: each limit can be reached and not be passed.

use corella_infer::{Field, Request, RequestError, RequestLimits, RequestParams, SampleParams};
use corella_model::StepLimits;

fn model() -> StepLimits {
    StepLimits {
        context_len: 60,
        vocab_size: 50,
        page_tokens: 4,
        pages: 15,
        page_bytes: 1,
        max_batch_tokens: 64,
        max_seqs: 8,
        max_logit_rows: 12,
    }
}

fn limits() -> RequestLimits {
    RequestLimits {
        samples: 4,
        total_tokens: 240,
        stops: 3,
        stop_bytes: 10,
        stop_ids: 2,
        biases: 2,
        logprobs: 5,
        lookup: 6,
    }
}

fn check(params: RequestParams) -> Result<Request, RequestError> {
    Request::new(params, &model(), &[49], &limits())
}

#[test]
fn each_limit_can_be_reached_and_not_be_passed() {
    let ok = || RequestParams { prompt: vec![1, 2, 3], ..RequestParams::default() };
    let stops = |stops: &[&str]| RequestParams { stop: stops.iter().map(|s| (*s).to_owned()).collect(), ..ok() };
    let biased = |n: u32| {
        let logit_bias = (0..n).map(|id| (id, 1.0)).collect();
        RequestParams { sample: SampleParams { logit_bias, ..SampleParams::default() }, ..ok() }
    };
    let cases: [(Field, &str, u64, u64, RequestParams, RequestParams); 8] = [
        (
            Field::BestOf,
            "continuations of one prompt",
            5,
            4,
            RequestParams { n: 4, ..ok() },
            RequestParams { best_of: Some(5), ..ok() },
        ),
        (Field::Stop, "stop strings", 4, 3, stops(&["a", "b", "c"]), stops(&["a", "b", "c", "d"])),
        (Field::Stop, "bytes of stop strings", 11, 10, stops(&["abcdef", "ghij"]), stops(&["abcdef", "ghijk"])),
        (
            Field::StopTokenIds,
            "stop tokens",
            3,
            2,
            RequestParams { stop_ids: vec![1, 2], ..ok() },
            RequestParams { stop_ids: vec![1, 2, 3], ..ok() },
        ),
        (Field::LogitBias, "logit biases", 3, 2, biased(2), biased(3)),
        (
            Field::Logprobs,
            "alternatives for a token",
            6,
            5,
            RequestParams { logprobs: Some(5), ..ok() },
            RequestParams { logprobs: Some(6), ..ok() },
        ),
        (
            Field::PromptLogprobs,
            "alternatives for a token of the prompt",
            6,
            5,
            RequestParams { prompt_logprobs: Some(5), ..ok() },
            RequestParams { prompt_logprobs: Some(6), ..ok() },
        ),
        (
            Field::Lookup,
            "tokens proposed at once",
            7,
            6,
            RequestParams { lookup: 6, ..ok() },
            RequestParams { lookup: 7, ..ok() },
        ),
    ];
    for (field, what, asked, limit, at, over) in cases {
        assert!(check(at).is_ok(), "{what}");
        assert_eq!(check(over).expect_err("too many"), RequestError::TooMany { field, what, asked, limit });
    }
}

#[test]
fn every_continuation_that_is_drawn_costs_its_tokens() {
    let params = |prompt: usize, best_of: usize| RequestParams {
        prompt: vec![1; prompt],
        n: 2,
        best_of: Some(best_of),
        max_tokens: 50,
        ..RequestParams::default()
    };
    // Four times 10 + 50 tokens are the limit.
    let request = check(params(10, 4)).expect("at the limit");
    assert_eq!((request.cost(), request.samples(), request.max_tokens()), (240, 4, 50));
    let limits = RequestLimits { total_tokens: 239, ..limits() };
    let refused = Request::new(params(10, 4), &model(), &[], &limits).expect_err("one too many");
    let what = "tokens of prompt and output in all continuations";
    assert_eq!(refused, RequestError::TooMany { field: Field::MaxTokens, what, asked: 240, limit: 239 });
    assert!(Request::new(params(10, 3), &model(), &[], &limits).is_ok());
}
