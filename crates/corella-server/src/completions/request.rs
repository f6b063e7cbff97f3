//! The body of `POST /v1/completions`, parsed. OpenAI's fields, and extensions under the names that vLLM and llama.cpp use.

use corella_infer::{CacheScope, LogProbStage, RequestLimits, RequestParams, SampleParams};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, says_nothing, token_id, whole};
use crate::served::Served;

/// Prompts of one request.
const MOST_PROMPTS: usize = 256;

/// Fields of other servers that change nothing here.
const HARMLESS: [&str; 5] = ["user", "metadata", "store", "service_tier", "cache_prompt"];

/// A prompt as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Text, to be tokenised.
    Text(String),
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
}

/// What the answer shows beside the text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Show {
    /// The prompt in front of the text.
    pub echo: bool,
    /// OpenAI's `logprobs` object, with so many alternatives.
    pub logprobs: Option<usize>,
    /// llama.cpp's `completion_probabilities`, with so many alternatives.
    pub n_probs: Option<usize>,
    /// vLLM's `token_ids` and `prompt_token_ids`.
    pub token_ids: bool,
    /// vLLM's `prompt_logprobs`, with so many alternatives.
    pub prompt_logprobs: Option<usize>,
    /// Drawn special tokens are left out of the text.
    pub skip_special: bool,
    /// Events with the progress of the prompt, in a stream.
    pub progress: bool,
    /// A last event with the usage, in a stream.
    pub usage: bool,
    /// vLLM's `continuous_usage_stats`: the usage so far with every chunk of a stream.
    pub running_usage: bool,
}

/// A completion request, each field within its own range.
#[derive(Clone, Debug)]
pub struct CompletionCall {
    /// The model it is meant for, if it says so.
    pub model: Option<String>,
    /// One or more prompts.
    pub prompts: Vec<Prompt>,
    /// Everything for the engine but the prompt.
    pub params: RequestParams,
    /// Whether a text prompt gets the token in front that marks the start of a text.
    pub mark_start: bool,
    /// Whether names of special tokens in a text prompt stand for these tokens.
    pub by_name: bool,
    /// Whether the end of a text prompt is healed: its last tokens may be others than the tokenizer's.
    pub heal: bool,
    /// What the answer shows.
    pub show: Show,
    /// Server-sent events instead of one document.
    pub stream: bool,
    /// Whether the request names its seed, which then holds for each of its prompts.
    pub seeded: bool,
}

impl CompletionCall {
    /// Parses a body. `limits` are the engine's, `scope` is whose cached prompts it may use, `seed` the one it gets if it
    /// names none.
    pub fn parse(
        body: &[u8],
        limits: &RequestLimits,
        scope: CacheScope,
        seed: u64,
    ) -> Result<CompletionCall, ApiError> {
        let mut f = Fields::parse(body)?;
        if f.take("suffix").is_some_and(|suffix| !says_nothing(&suffix)) {
            return Err(ApiError::bad(
                "suffix",
                "`suffix` is not offered: a base model of this kind writes forwards only",
            ));
        }
        if f.take("prompt_embeds").is_some_and(|embeds| !says_nothing(&embeds)) {
            return Err(ApiError::bad("prompt_embeds", "`prompt_embeds` is not offered: send text or token ids"));
        }
        let model = f.string("model")?;
        let prompts = prompts(f.take("prompt"))?;
        let show = show(&mut f, limits)?;
        let stream = f.flag("stream")?;
        let mark_start = f.flag_if_given("add_special_tokens")?.unwrap_or(true);
        let by_name = f.flag("parse_special")?;
        let heal = f.flag("token_healing")?;
        let named = f.take("seed").map_or(Ok(None), |value| seed_of(&value))?;
        let params = engine_params(&mut f, &show, limits, scope, named.unwrap_or(seed))?;
        let (usage, running_usage) = usage(&mut f)?;
        let show = Show { progress: f.flag("return_progress")?, usage, running_usage, ..show };
        for (name, asked) in [("stream_options", usage || running_usage), ("return_progress", show.progress)] {
            if asked && !stream {
                return Err(ApiError::bad(name, format!("`{name}` is about a stream: set `stream` too")));
            }
        }
        pass_over_neutral(&mut f);
        f.finish(&HARMLESS)?;
        let seeded = named.is_some();
        Ok(CompletionCall { model, prompts, params, mark_start, by_name, heal, show, stream, seeded })
    }

    /// How much it is to make tokens of the prompts, in bytes of text that would take as long.
    pub fn work(&self, served: &Served) -> usize {
        let bytes = |prompt: &Prompt| match prompt {
            Prompt::Text(text) => text.len(),
            Prompt::Ids(ids) => ids.len(),
        };
        // Healing goes through the vocabulary.
        let heal = if self.heal { self.prompts.len().saturating_mul(served.vocabulary()) } else { 0 };
        self.prompts.iter().map(bytes).sum::<usize>().saturating_add(heal)
    }
}

/// Samplers of other servers that are off, each with the fields that only say more of it.
const OFF: [(&str, f64, &[&str]); 9] = [
    ("mirostat", 0.0, &["mirostat_tau", "mirostat_eta"]),
    ("dry_multiplier", 0.0, &["dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"]),
    ("xtc_probability", 0.0, &["xtc_threshold"]),
    ("dynatemp_range", 0.0, &["dynatemp_exponent"]),
    ("tfs_z", 1.0, &[]),
    ("top_n_sigma", -1.0, &[]),
    ("top_a", 0.0, &[]),
    ("smoothing_factor", 0.0, &["smoothing_curve"]),
    ("length_penalty", 1.0, &[]),
];

/// Clients that send every field of another server send values that ask for nothing.
fn pass_over_neutral(f: &mut Fields) {
    f.pass_over("response_format", &json!({"type": "text"}));
    for (name, off, more) in OFF {
        // What says more of a sampler is refused by the sampler's name, if at all.
        if f.has(name) {
            more.iter().for_each(|name| drop(f.take(name)));
        }
        f.pass_over(name, &json!(off));
    }
    for (name, neutral) in [("n_keep", 0), ("min_keep", 0), ("id_slot", -1), ("priority", 0)] {
        f.pass_over(name, &json!(neutral));
    }
    for name in ["detokenize", "spaces_between_special_tokens"] {
        f.pass_over(name, &json!(true));
    }
}

fn prompts(value: Option<Value>) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || {
        ApiError::bad(
            "prompt",
            "`prompt` must be a string, an array of strings, an array of token ids, or an array of such arrays",
        )
    };
    let ids = |list: &[Value]| list.iter().map(|v| token_id("prompt", v)).collect::<Result<Vec<_>, _>>();
    match value {
        None => Ok(vec![Prompt::Text(String::new())]),
        Some(Value::String(text)) => Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(list)) => match list.first() {
            None => Ok(vec![Prompt::Ids(Vec::new())]),
            Some(Value::Number(_)) => Ok(vec![Prompt::Ids(ids(&list)?)]),
            Some(_) if list.len() > MOST_PROMPTS => {
                Err(ApiError::bad("prompt", format!("{} prompts; at most {MOST_PROMPTS} in one request", list.len())))
            }
            Some(_) => list
                .iter()
                .map(|item| match item {
                    Value::String(text) => Ok(Prompt::Text(text.clone())),
                    Value::Array(inner) => Ok(Prompt::Ids(ids(inner)?)),
                    _ => Err(wrong()),
                })
                .collect(),
        },
        Some(_) => Err(wrong()),
    }
}

fn show(f: &mut Fields, limits: &RequestLimits) -> Result<Show, ApiError> {
    let most = limits.logprobs as u64;
    let count = |f: &mut Fields, name| -> Result<Option<usize>, ApiError> {
        // The field of chats, of which false is the default.
        f.pass_over(name, &json!(false));
        Ok(f.uint(name, 0..=most)?.map(|n| n as usize))
    };
    Ok(Show {
        echo: f.flag("echo")?,
        logprobs: count(f, "logprobs")?,
        n_probs: count(f, "n_probs")?.filter(|n| *n > 0),
        token_ids: f.flag("return_token_ids")?,
        prompt_logprobs: count(f, "prompt_logprobs")?,
        skip_special: f.flag("skip_special_tokens")?,
        progress: false,
        usage: false,
        running_usage: false,
    })
}

/// Whether the usage is told at the end of a stream, and whether with every chunk.
fn usage(f: &mut Fields) -> Result<(bool, bool), ApiError> {
    let Some(mut options) = f.object("stream_options")? else { return Ok((false, false)) };
    let told = (options.flag("include_usage")?, options.flag("continuous_usage_stats")?);
    options.finish(&[])?;
    Ok(told)
}

fn engine_params(
    f: &mut Fields,
    show: &Show,
    limits: &RequestLimits,
    scope: CacheScope,
    seed: u64,
) -> Result<RequestParams, ApiError> {
    let (limit, samples) = (u64::from(u32::MAX), limits.samples as u64);
    let max_tokens = f.any_of(&["max_tokens", "n_predict"], |f, name| f.uint(name, 0..=limit))?.unwrap_or(16);
    let best_of = f.uint("best_of", 1..=samples)?.map(|n| n as usize);
    let n = f.uint("n", 1..=samples)?.unwrap_or(1) as usize;
    let filtered = f.flag("post_sampling_probs")?;
    let salt = f.string("cache_salt")?;
    Ok(RequestParams {
        n,
        best_of,
        max_tokens: max_tokens as usize,
        min_tokens: f.uint("min_tokens", 0..=limit)?.unwrap_or(0) as usize,
        sample: sample(f, seed)?,
        // No text ends with an empty one.
        stop: f.strings("stop")?.into_iter().filter(|stop| !stop.is_empty()).collect(),
        keep_stop: f.flag("include_stop_str_in_output")?,
        stop_ids: f.ids("stop_token_ids")?,
        ignore_eos: f.flag("ignore_eos")?,
        logprobs: show.logprobs.max(show.n_probs),
        logprob_stage: if filtered { LogProbStage::Filtered } else { LogProbStage::Raw },
        prompt_logprobs: show.prompt_logprobs.max(show.logprobs.filter(|_| show.echo)),
        scope: salt.map_or(scope, |salt| CacheScope::salted(&salt)),
        ..RequestParams::default()
    })
}

fn sample(f: &mut Fields, seed: u64) -> Result<SampleParams, ApiError> {
    let all = SampleParams::default();
    let penalties = ["repetition_penalty", "repeat_penalty"];
    let repetition = f.any_of(&penalties, |f, name| f.float(name, SampleParams::REPETITION_PENALTY))?;
    Ok(SampleParams {
        temperature: f.float("temperature", 0.0..=100.0)?.unwrap_or(all.temperature),
        temperature_last: f.flag("temperature_last")?,
        top_k: top_k(f)?,
        top_p: f.share("top_p")?,
        min_p: f.float("min_p", 0.0..=1.0)?.filter(|p| *p > 0.0),
        typical_p: f.share("typical_p")?,
        repetition_penalty: repetition.unwrap_or(all.repetition_penalty),
        frequency_penalty: f.float("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        presence_penalty: f.float("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(f)?,
        seed,
    })
}

/// 0 and −1 mean no limit, as in llama.cpp and vLLM.
fn top_k(f: &mut Fields) -> Result<Option<usize>, ApiError> {
    match f.take("top_k").map(|v| whole(&v)) {
        None | Some(Some(0 | -1)) => Ok(None),
        Some(Some(k)) if k > 0 => Ok(usize::try_from(k).ok()),
        Some(_) => Err(ApiError::bad("top_k", "`top_k` must be a whole number from 1 on, or 0 or -1 for no limit")),
    }
}

/// Any 64-bit integer, with or without a sign; −1 is no seed, as in llama.cpp and vLLM.
fn seed_of(value: &Value) -> Result<Option<u64>, ApiError> {
    let of_64_bits = |n: i128| u64::try_from(n).ok().or_else(|| i64::try_from(n).ok().map(i64::cast_unsigned));
    match whole(value) {
        Some(-1) => Ok(None),
        n => match n.and_then(of_64_bits) {
            Some(seed) => Ok(Some(seed)),
            None => Err(ApiError::bad("seed", "`seed` must be a whole number of 64 bits")),
        },
    }
}

/// OpenAI's form: an object from token ids, as strings, to numbers.
fn logit_bias(f: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let wrong = || ApiError::bad("logit_bias", "`logit_bias` must map token ids to numbers from -100 to 100");
    f.pass_over("logit_bias", &json!([]));
    let Some(entries) = f.object("logit_bias")? else { return Ok(Vec::new()) };
    let bias = |(id, value): (String, Value)| {
        let id = id.parse::<u32>().map_err(|_| wrong())?;
        let bias = value.as_f64().filter(|b| (-100.0..=100.0).contains(b)).ok_or_else(wrong)?;
        Ok((id, bias as f32))
    };
    entries.entries().map(bias).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CompletionCall, ApiError> {
        CompletionCall::parse(text.as_bytes(), &RequestLimits::default(), CacheScope::default(), 7)
    }

    fn param_of(text: &str) -> String {
        parse(text).expect_err(text).param.unwrap_or_default()
    }

    #[test]
    fn every_form_of_prompt_is_understood() {
        let prompts = |text| parse(text).expect(text).prompts;
        let text = |t: &str| Prompt::Text(t.to_owned());
        assert_eq!(prompts(r#"{"prompt": "a"}"#), [text("a")]);
        assert_eq!(prompts(r#"{"prompt": ["a", "b"]}"#), [text("a"), text("b")]);
        assert_eq!(prompts(r#"{"prompt": [1, 2]}"#), [Prompt::Ids(vec![1, 2])]);
        assert_eq!(prompts(r#"{"prompt": [[1], [2, 3]]}"#), [Prompt::Ids(vec![1]), Prompt::Ids(vec![2, 3])]);
        assert_eq!(prompts("{}"), [text("")]);
        assert_eq!(param_of(r#"{"prompt": [1, -2]}"#), "prompt");
        assert_eq!(param_of(r#"{"prompt": [1, "a"]}"#), "prompt");
        assert_eq!(param_of(r#"{"prompt": {"a": 1}}"#), "prompt");
        assert_eq!(param_of(r#"{"prompt": 4}"#), "prompt");
    }

    #[test]
    fn out_of_range_is_refused_with_the_name_of_the_field() {
        for (text, param) in [
            (r#"{"n": 1000000}"#, "n"),
            (r#"{"best_of": 4096}"#, "best_of"),
            (r#"{"max_tokens": -1}"#, "max_tokens"),
            (r#"{"n_predict": -1}"#, "n_predict"),
            (r#"{"temperature": -0.1}"#, "temperature"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"top_p": 0}"#, "top_p"),
            (r#"{"top_k": -2}"#, "top_k"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty"),
            (r#"{"frequency_penalty": 3}"#, "frequency_penalty"),
            (r#"{"logprobs": 1000}"#, "logprobs"),
            (r#"{"logit_bias": {"x": 1}}"#, "logit_bias"),
            (r#"{"logit_bias": {"5": 101}}"#, "logit_bias"),
            (r#"{"stop": [1]}"#, "stop"),
            (r#"{"seed": 1.5}"#, "seed"),
            (r#"{"suffix": "end"}"#, "suffix"),
            (r#"{"prompt_embeds": "AAAA"}"#, "prompt_embeds"),
            (r#"{"grammar": "root"}"#, "grammar"),
            (r#"{"mirostat": 2}"#, "mirostat"),
            (r#"{"response_format": {"type": "json_object"}}"#, "response_format"),
            (r#"{"max_tokens": 5, "n_predict": 6}"#, "n_predict"),
            (r#"{"repetition_penalty": 1.1, "repeat_penalty": 1.2}"#, "repeat_penalty"),
            (r#"{"stream_options": {"unheard_of": true}}"#, "unheard_of"),
            (r#"{"skip_special_tokens": "yes"}"#, "skip_special_tokens"),
            (r#"{"stream_options": {"continuous_usage_stats": 1}}"#, "continuous_usage_stats"),
            (r#"{"stream_options": {"include_usage": true}}"#, "stream_options"),
            (r#"{"stream_options": {"continuous_usage_stats": true}, "stream": false}"#, "stream_options"),
            (r#"{"return_progress": true}"#, "return_progress"),
        ] {
            assert_eq!(param_of(text), param, "{text}");
        }
    }

    #[test]
    fn what_is_said_of_streams_asks_for_nothing_where_it_is_false() {
        let show = |text| parse(text).expect(text).show;
        for text in
            [r#"{"stream_options": {"include_usage": false}, "return_progress": false}"#, r#"{"stream_options": {}}"#]
        {
            assert_eq!(show(text), Show::default(), "{text}");
        }
        let of =
            show(r#"{"stream": true, "return_progress": true, "stream_options": {"continuous_usage_stats": true}}"#);
        assert!(of.progress && of.running_usage && !of.usage);
    }

    #[test]
    fn a_parameter_has_one_value_under_either_of_its_names() {
        let of = |text| {
            let params = parse(text).expect(text).params;
            (params.max_tokens, params.sample.repetition_penalty)
        };
        assert_eq!(of("{}"), (16, 1.0));
        assert_eq!(of(r#"{"n_predict": 5, "repeat_penalty": 1.5}"#), (5, 1.5));
        assert_eq!(of(r#"{"max_tokens": null, "n_predict": 5, "repetition_penalty": null}"#), (5, 1.0));
        assert_eq!(
            of(r#"{"max_tokens": 5, "n_predict": 5.0, "repetition_penalty": 2, "repeat_penalty": 2.0}"#),
            (5, 2.0)
        );
    }

    #[test]
    fn defaults_of_other_servers_ask_for_nothing() {
        let all =
            r#"{"suffix": "", "grammar": "", "mirostat": 0, "response_format": {"type": "text"}, "samplers": []}"#;
        assert_eq!(parse(all).map(|call| call.prompts.len()), Ok(1));
        for field in [
            r#""stop": """#,
            r#""stop": [""]"#,
            r#""logit_bias": []"#,
            r#""logprobs": false"#,
            r#""n_probs": false"#,
            r#""suffix": []"#,
            r#""prompt_embeds": """#,
        ] {
            let params = parse(&format!("{{{field}}}")).expect(field).params;
            assert_eq!((params.stop, params.logprobs), (Vec::new(), None), "{field}");
        }
        assert_eq!(parse(r#"{"stop": ["", "a"]}"#).expect("a call").params.stop, ["a"]);
        for (text, param) in [
            (r#"{"logprobs": true}"#, "logprobs"),
            (r#"{"seed": ""}"#, "seed"),
            (r#"{"temperature": false}"#, "temperature"),
            (r#"{"stop_token_ids": {}}"#, "stop_token_ids"),
        ] {
            assert_eq!(param_of(text), param, "{text}");
        }
    }

    #[test]
    fn samplers_that_are_off_ask_for_nothing_and_are_refused_by_name_otherwise() {
        let off = r#"{"dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_sequence_breakers": ["\n"],
            "xtc_probability": 0.0, "xtc_threshold": 0.1, "dynatemp_range": 0, "dynatemp_exponent": 1, "tfs_z": 1,
            "top_n_sigma": -1, "top_a": 0, "n_keep": 0, "min_keep": 0, "id_slot": -1, "length_penalty": 1.0,
            "priority": 0, "detokenize": true, "spaces_between_special_tokens": true, "mirostat": 0,
            "mirostat_tau": 5.0, "mirostat_eta": 0.1, "smoothing_factor": 0}"#;
        assert_eq!(parse(off).map(|call| call.params), parse("{}").map(|call| call.params));
        for (text, param) in [
            (r#"{"dry_multiplier": 0.8, "dry_base": 1.75}"#, "dry_multiplier"),
            (r#"{"dry_base": 1.75}"#, "dry_base"),
            (r#"{"xtc_probability": 0.5}"#, "xtc_probability"),
            (r#"{"dynatemp_range": 0.5}"#, "dynatemp_range"),
            (r#"{"tfs_z": 0.9}"#, "tfs_z"),
            (r#"{"top_n_sigma": 1}"#, "top_n_sigma"),
            (r#"{"n_keep": 5}"#, "n_keep"),
            (r#"{"id_slot": 0}"#, "id_slot"),
            (r#"{"length_penalty": 1.2}"#, "length_penalty"),
            (r#"{"priority": true}"#, "priority"),
        ] {
            assert_eq!(param_of(text), param, "{text}");
        }
    }

    #[test]
    fn seeds_at_the_limits_work_and_one_is_given_where_none_is_named() {
        let seed = |text| parse(text).expect(text).params.sample.seed;
        assert_eq!(seed(r#"{"seed": 18446744073709551615}"#), u64::MAX);
        assert_eq!(seed(r#"{"seed": -9223372036854775808}"#), 1 << 63);
        assert_eq!(seed(r#"{"seed": -2}"#), u64::MAX - 1);
        assert_eq!((seed("{}"), seed(r#"{"seed": -1}"#), seed(r#"{"seed": -1.0}"#)), (7, 7, 7));
        let seeded = |text| parse(text).expect(text).seeded;
        assert!(seeded(r#"{"seed": 7}"#) && !seeded("{}") && !seeded(r#"{"seed": -1}"#));
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_point() {
        let call = parse(r#"{"prompt": [1.0, 2], "max_tokens": 4.0, "top_k": 40.0, "seed": 3.0}"#).expect("a call");
        assert_eq!(call.prompts, [Prompt::Ids(vec![1, 2])]);
        assert_eq!((call.params.max_tokens, call.params.sample.top_k, call.params.sample.seed), (4, Some(40), 3));
        assert_eq!(param_of(r#"{"top_k": 1.5}"#), "top_k");
        assert_eq!(param_of(r#"{"seed": 1e300}"#), "seed");
    }

    #[test]
    fn log_probabilities_of_the_prompt_are_asked_for_only_where_they_are_shown() {
        let of = |text| {
            let call = parse(text).expect(text);
            (call.params.logprobs, call.params.prompt_logprobs)
        };
        assert_eq!(of("{}"), (None, None));
        assert_eq!(of(r#"{"logprobs": 2}"#), (Some(2), None));
        assert_eq!(of(r#"{"logprobs": 2, "echo": true}"#), (Some(2), Some(2)));
        assert_eq!(of(r#"{"echo": true}"#), (None, None));
        assert_eq!(of(r#"{"n_probs": 5, "logprobs": 0, "echo": true}"#), (Some(5), Some(0)));
        assert_eq!(of(r#"{"prompt_logprobs": 1}"#), (None, Some(1)));
    }
}
