//! `corella generate`: continues a text in the terminal, token by token.

mod colour;
mod columns;
mod view;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use corella_infer::{
    Completion, Engine, EngineOptions, LogProbStage, Request, RequestError, RequestLimits, RequestParams, SampleParams,
    TokenLogProb,
};
use corella_model::StepOptions;
use corella_text::tokenizer::Tokenizer;
use serde::Serialize;

use crate::cli::{Common, GenerateArgs};
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::inputs::read_as_trained;
use crate::model::{self, Invariance, Opened};
use crate::output::{deliver, taken};
use view::View;

/// Continuations that are computed at once.
const AT_ONCE: usize = 32;

/// Whoever asks owns the machine.
const LIMITS: RequestLimits = RequestLimits {
    samples: 10_000,
    total_tokens: u64::MAX,
    stops: 10_000,
    stop_bytes: 1 << 20,
    stop_ids: 10_000,
    biases: 10_000,
    logprobs: 1_000,
    lookup: 64,
};

/// One continuation, as `--json` prints it.
#[derive(Serialize)]
struct Choice {
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<Vec<(u32, f32)>>,
    finish_reason: &'static str,
    /// What ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Stop>,
}

/// A string of `--stop`, or the number of a token: told apart by their types, as in the server's answers.
#[derive(Serialize)]
#[serde(untagged)]
enum Stop {
    Text(String),
    Token(u32),
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    prompt_ids: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prompt_logprobs: Vec<Option<f32>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prompt_top_logprobs: Vec<Vec<(u32, f32)>>,
    choices: Vec<Choice>,
    usage: corella_infer::Usage,
    backend: String,
    seed: u64,
}

/// Runs the command.
pub fn run(args: &GenerateArgs, common: &Common) -> Result<()> {
    let seed = common.seed.unwrap_or_else(fresh_seed);
    let name = args.tokenizer.as_deref();
    let opened = match args.prompt_ids {
        Some(_) => model::open_for_ids(&args.model, name)?,
        None => model::open(&args.model, name)?,
    };
    let bytes = opened.token_bytes();
    let (prompt_ids, prompt_text) = prompt(args, &opened)?;
    let samples = args.best_of.unwrap_or(0).max(args.n) as usize;
    let device = Device::choose(common)?;
    let steps = room(&opened, args, &device, prompt_ids.len(), samples);
    let request = check(&opened, params(args, common.json, seed, &prompt_ids), steps)?;
    let engine = start(opened, args, device, steps)?;
    let handle = engine.handle();
    match request.max_tokens() {
        0 if args.max_tokens > 0 => eprintln!(
            "note: the prompt of {} tokens fills the context: none can be added; a shorter prompt leaves room",
            prompt_ids.len()
        ),
        most if request.clipped() && !common.json => {
            eprintln!("note: the context leaves room for {most} tokens only");
        }
        _ => {}
    }
    let drawn_with = (args.sampling.temperature > 0.0).then_some(seed);
    let (_ticket, events) = handle.stream(request)?;
    let mut view = View::new(args, common, bytes);
    // Where nobody reads on, nothing more is computed: the ticket goes, and the request with it.
    if !taken(view.prompt(&prompt_text, &prompt_ids))? {
        return Ok(());
    }
    let (mut completion, mut ended) = (Completion::default(), false);
    for event in events {
        if !taken(view.event(&event))? {
            return Ok(());
        }
        ended = completion.add(event);
        if ended {
            break;
        }
    }
    if let Some(error) = completion.error {
        return Err(Failure::new(error));
    }
    if !ended {
        return Err(Failure::new("the engine ended before the text did"));
    }
    if common.json {
        let document = document(completion, prompt_ids, handle.backend_name(), seed);
        return deliver(serde_json::to_string(&document)?);
    }
    view.end();
    eprintln!("{}", summary(&completion, samples, drawn_with));
    Ok(())
}

/// A seed that no run had before, for tokens that nobody wants again; small enough for every JSON reader to give back exactly.
fn fresh_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 32
}

/// `[7 prompt tokens, first token after 12 ms, 128 tokens, 45.1 tok/s, seed 42: --seed 42 repeats it]`, the seed where tokens
/// were drawn.
fn summary(completion: &Completion, samples: usize, seed: Option<u64>) -> String {
    let usage = &completion.usage;
    // The first token of each sample comes out of the prompt. The engine's own times: printing may lag behind.
    let rest = usage.completion_tokens.saturating_sub(samples) as f64 / usage.decode_seconds.max(1e-9);
    let first = usage.queue_seconds + usage.prefill_seconds;
    let looked_up = match usage.drafted_tokens {
        0 => String::new(),
        drafted => format!(", {} of {drafted} proposed tokens taken", usage.accepted_tokens),
    };
    let seed = seed.map(|seed| format!(", seed {seed}: --seed {seed} repeats it")).unwrap_or_default();
    format!(
        "[{} prompt tokens, first token after {:.0} ms, {} tokens, {rest:.1} tok/s{looked_up}{seed}]",
        usage.prompt_tokens,
        first * 1e3,
        usage.completion_tokens
    )
}

/// Room for this request: of many samples as many at once as the machine's memory holds, which changes no byte of them.
fn room(opened: &Opened, args: &GenerateArgs, device: &Device, prompt: usize, samples: usize) -> StepOptions {
    let context_len = prompt.saturating_add(args.max_tokens).clamp(1, opened.context_len().max(1));
    let kv_kind = args.kv_type.into();
    // The prompt's full pages are shared; each sample has its own last pages.
    let prompt = prompt.min(context_len);
    let own = context_len - prompt + 2 * corella_model::step_options::PAGE_TOKENS;
    let most = samples.min(AT_ONCE);
    let free = device.free_memory();
    let at_once = free.map_or(most, |free| opened.sizes(kv_kind).texts_at_once(prompt, own, most, free));
    if at_once < most {
        eprintln!("note: the memory that is free holds {at_once} continuations at once, and not {most}");
    }
    let max_batch_tokens = context_len.clamp(2 * at_once, 512);
    StepOptions {
        context_len,
        kv_tokens: prompt + at_once * own,
        kv_kind,
        max_seqs: at_once,
        max_batch_tokens,
        max_logit_rows: max_batch_tokens.min(at_once + 32),
    }
}

/// The flags as a request that cannot be wrong any more, known before the weights are loaded.
fn check(opened: &Opened, params: RequestParams, steps: StepOptions) -> Result<Request> {
    let token_bytes = opened.sizes(steps.kv_kind).token_bytes;
    let model = steps.limits(opened.context_len(), opened.known_tokens(), token_bytes)?;
    Request::new(params, &model, &opened.eos(), &LIMITS).map_err(|error| {
        let hint = match error {
            RequestError::PromptTooLong { .. } => "shorten the prompt: the model does not see more than its context",
            RequestError::NeverFits { .. } => "lower --max-tokens",
            _ => "`corella generate --help` says what each flag takes",
        };
        Failure::usage(error).hint(hint)
    })
}

/// Loads the model, and starts its engine.
fn start(opened: Opened, args: &GenerateArgs, device: Device, steps: StepOptions) -> Result<Engine> {
    let engine = EngineOptions {
        max_running: steps.max_seqs,
        max_queue: 1,
        limits: LIMITS,
        eos: opened.eos(),
        vocab_size: Some(opened.known_tokens()),
    };
    let bytes = opened.token_bytes();
    Ok(Engine::start(opened.load(device, steps, Invariance::of_flag(args.batch_invariant))?, bytes, engine)?)
}

/// The flags as a request.
fn params(args: &GenerateArgs, json: bool, seed: u64, prompt: &[u32]) -> RequestParams {
    let s = &args.sampling;
    let tabled = args.show_tokens;
    RequestParams {
        prompt: prompt.to_vec(),
        n: args.n as usize,
        best_of: args.best_of.map(|n| n as usize),
        max_tokens: args.max_tokens,
        min_tokens: args.min_tokens,
        sample: SampleParams {
            temperature: s.temperature,
            temperature_last: s.temperature_last,
            // 0 filters nothing, as in other programs and in requests to the server.
            top_k: s.top_k.filter(|k| *k > 0),
            top_p: s.top_p,
            min_p: s.min_p.filter(|p| *p != 0.0),
            typical_p: s.typical_p,
            repetition_penalty: s.repetition_penalty,
            frequency_penalty: s.frequency_penalty,
            presence_penalty: s.presence_penalty,
            logit_bias: s.logit_bias.clone(),
            seed,
        },
        stop: args.stop.clone(),
        stop_ids: args.stop_id.clone(),
        ignore_eos: args.ignore_eos,
        logprobs: if json || tabled { Some(args.logprobs.unwrap_or(0)) } else { args.logprobs },
        logprob_stage: if args.filtered { LogProbStage::Filtered } else { LogProbStage::Raw },
        prompt_logprobs: if tabled || (json && args.logprobs.is_some()) {
            Some(args.logprobs.unwrap_or(0))
        } else {
            None
        },
        lookup: args.lookup,
        ..RequestParams::default()
    }
}

/// The ids to continue, and their text. The token that marks the start of a text goes in front, unless `--no-bos` or the
/// tokenizer's file forbids it; where there is no text it is what is continued.
fn prompt(args: &GenerateArgs, opened: &Opened) -> Result<(Vec<u32>, String)> {
    if let Some(ids) = &args.prompt_ids {
        let bytes = opened.token_bytes();
        let text: Vec<u8> = (0..ids.len()).flat_map(|i| bytes(&ids[..i], ids[i])).collect();
        return Ok((ids.clone(), String::from_utf8_lossy(&text).into_owned()));
    }
    let tokenizer = opened.tokenizer()?;
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read_as_trained(path)?,
        (None, None) => {
            if fed() {
                // Not read unasked: in a shell's loop over lines it would take the lines away.
                eprintln!("note: standard input is not read; --prompt-file - continues the text that comes from there");
            }
            String::new()
        }
    };
    say_what_it_ends_and_holds(&text, args, &tokenizer);
    let front = if text.is_empty() { Some(tokenizer.start_of_text()) } else { tokenizer.front() };
    let mut ids: Vec<u32> = front.filter(|_| !args.no_bos).into_iter().collect();
    ids.extend(if args.parse_special { tokenizer.encode_with_special(&text) } else { tokenizer.encode(&text) });
    if ids.is_empty() {
        return Err(Failure::usage("an empty prompt with --no-bos leaves nothing to continue").hint("give -p TEXT"));
    }
    Ok((ids, text))
}

/// Says what of a prompt may not mean what whoever wrote it thinks.
fn say_what_it_ends_and_holds(text: &str, args: &GenerateArgs, tokenizer: &Tokenizer) {
    if text.ends_with(' ') {
        eprintln!(
            "note: the prompt ends with a space; most tokens begin with theirs, so without it the text goes on better"
        );
    }
    let specials = tokenizer.special_tokens();
    let held = specials.into_iter().find(|(name, _)| !name.is_empty() && text.contains(name));
    if let Some((name, _)) = held.filter(|_| !args.parse_special) {
        let name = name.escape_debug();
        eprintln!("note: `{name}` in the prompt is read as text; --parse-special makes it the token of this name");
    }
}

/// Whether standard input is a pipe, or a file with something in it.
#[cfg(unix)]
fn fed() -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;
    let input = std::io::stdin().as_fd().try_clone_to_owned().and_then(|input| std::fs::File::from(input).metadata());
    input.is_ok_and(|input| input.file_type().is_fifo() || (input.is_file() && input.len() > 0))
}

#[cfg(not(unix))]
fn fed() -> bool {
    false
}

/// The likeliest tokens at each position; none if none were asked for.
fn tops(tokens: Vec<TokenLogProb>) -> Vec<Vec<(u32, f32)>> {
    if tokens.iter().all(|token| token.top.is_empty()) {
        return Vec::new();
    }
    tokens.into_iter().map(|token| token.top).collect()
}

fn document(completion: Completion, prompt_ids: Vec<u32>, backend: &str, seed: u64) -> Document {
    let choices = completion.choices.into_iter().map(|choice| Choice {
        text: choice.text,
        ids: choice.tokens.iter().map(|t| t.id).collect(),
        logprobs: choice.tokens.iter().filter_map(|t| t.logprob).collect(),
        finish_reason: choice.reason.as_ref().map_or("length", |reason| reason.name()),
        stop: choice.reason.and_then(|reason| match reason {
            corella_infer::FinishReason::StopString(text) => Some(Stop::Text(text)),
            corella_infer::FinishReason::StopToken(id) => Some(Stop::Token(id)),
            corella_infer::FinishReason::Length => None,
        }),
        top_logprobs: tops(choice.tokens),
    });
    Document {
        prompt_ids,
        prompt_logprobs: completion.prompt.iter().map(|t| t.logprob).collect(),
        prompt_top_logprobs: tops(completion.prompt),
        choices: choices.collect(),
        usage: completion.usage,
        backend: backend.to_owned(),
        seed,
    }
}
