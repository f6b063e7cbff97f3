//! `corella generate`: continues a text in the terminal, token by token.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::time::Instant;

use corella_infer::{Ended, GenerateOptions, SampleParams, TokenOut, generate};
use corella_model::TextModel;
use corella_model::gpt2::Gpt2Infer;
use corella_text::tokenizer::{StreamDecoder, Tokenizer};
use serde::Serialize;

use crate::cli::{Common, GenerateArgs};
use crate::error::{Failure, Result};
use crate::inputs::{backend, open_model};

/// One continuation, as `--json` prints it.
#[derive(Serialize)]
struct Choice {
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<Vec<(u32, f32)>>,
    finish_reason: Ended,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    prompt_ids: Vec<u32>,
    choices: Vec<Choice>,
    backend: String,
    seed: u64,
}

/// Runs the command.
pub fn run(args: &GenerateArgs, common: &Common) -> Result<()> {
    let model = open_model(&args.model, args.tokenizer.as_deref())?;
    let tokenizer = model.tokenizer;
    let prompt_ids = prompt_ids(args, &tokenizer, model.weights.config.vocab_size())?;
    let ops = backend(common)?;
    let backend_name = corella_ops::OpsTrain::name(&ops);
    let mut model = Gpt2Infer::new(ops, model.weights)?;
    let mut choices = Vec::new();
    for sample in 0..args.n {
        choices.push(continue_once(args, common, &mut model, &tokenizer, &prompt_ids, u64::from(sample))?);
    }
    if common.json {
        let document = Document { prompt_ids, choices, backend: backend_name, seed: common.seed };
        println!("{}", serde_json::to_string(&document)?);
    }
    Ok(())
}

/// The ids to continue: of a text, behind the token that marks the start of a document unless `--no-bos`.
fn prompt_ids(args: &GenerateArgs, tokenizer: &Tokenizer, vocab_size: usize) -> Result<Vec<u32>> {
    if let Some(ids) = &args.prompt_ids {
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(Failure::usage(format!("token {id} is outside the vocabulary of {vocab_size}")));
        }
        return Ok(ids.clone());
    }
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) if path.as_os_str() == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
        (None, Some(path)) => {
            std::fs::read_to_string(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?
        }
        (None, None) => String::new(),
    };
    let mut ids = if args.no_bos { Vec::new() } else { vec![tokenizer.start_of_text()] };
    ids.extend(tokenizer.encode(&text));
    if ids.is_empty() {
        return Err(Failure::usage("an empty prompt with --no-bos leaves nothing to continue").hint("give -p TEXT"));
    }
    Ok(ids)
}

/// Generates one continuation; streams it to stdout unless `--json`.
fn continue_once(
    args: &GenerateArgs,
    common: &Common,
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    prompt_ids: &[u32],
    sample_index: u64,
) -> Result<Choice> {
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        sample: SampleParams {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            seed: common.seed,
            ..SampleParams::default()
        },
        stop_ids: if args.ignore_eos { Vec::new() } else { tokenizer.stop_ids().to_vec() },
        sample_index,
        log_probs: args.logprobs.unwrap_or(0),
    };
    if args.n > 1 && !common.json {
        println!("--- sample {} of {}", sample_index + 1, args.n);
    }
    let mut output = Output::new(tokenizer, &args.stop, !common.json);
    if !common.json {
        output.show(args.prompt.as_deref().unwrap_or_default());
    }
    let start = Instant::now();
    let mut first = None;
    let generation = generate(model, prompt_ids, &options, &mut |token: &TokenOut| {
        first.get_or_insert_with(|| start.elapsed());
        output.push(token.id)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let stopped = output.finish();
    if !common.json {
        println!();
        let first = first.unwrap_or_default().as_secs_f64();
        let rest = generation.tokens.len().saturating_sub(1) as f64 / (seconds - first).max(1e-9);
        eprintln!(
            "[{} prompt tokens, first token after {:.0} ms, {} tokens, {rest:.1} tok/s]",
            prompt_ids.len(),
            first * 1e3,
            generation.tokens.len()
        );
    }
    Ok(Choice {
        text: output.text,
        ids: generation.tokens.iter().map(|t| t.id).collect(),
        logprobs: generation.tokens.iter().map(|t| t.logprob).collect(),
        top_logprobs: generation.tokens.into_iter().map(|t| t.top).filter(|top| !top.is_empty()).collect(),
        finish_reason: if stopped { Ended::Stop } else { generation.finish_reason },
    })
}

/// The text so far: streamed as it comes, but for an end that could be the start of a stop string.
struct Output<'a> {
    decoder: Option<StreamDecoder>,
    stops: &'a [String],
    text: String,
    shown: usize,
    live: bool,
    stopped: bool,
}

impl<'a> Output<'a> {
    fn new(tokenizer: &Tokenizer, stops: &'a [String], live: bool) -> Self {
        Output {
            decoder: Some(StreamDecoder::new(tokenizer)),
            stops,
            text: String::new(),
            shown: 0,
            live,
            stopped: false,
        }
    }

    fn show(&self, text: &str) {
        print!("{text}");
        // A closed pipe ends the stream, not the program's work.
        let _ = std::io::stdout().flush();
    }

    fn push(&mut self, id: u32) -> ControlFlow<()> {
        if let Some(decoder) = &mut self.decoder {
            let piece = decoder.push(id);
            self.text.push_str(&piece);
        }
        let found = self.stops.iter().filter(|s| !s.is_empty()).filter_map(|s| self.text.find(s.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(at);
            self.stopped = true;
        }
        let safe = self.text.len() - if self.stopped { 0 } else { self.held_back() };
        if self.live && safe > self.shown {
            self.show(&self.text[self.shown..safe]);
            self.shown = safe;
        }
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Bytes at the end that may turn out to begin a stop string.
    fn held_back(&self) -> usize {
        let prefix_at_end = |stop: &String| {
            (1..stop.len()).rev().find(|n| stop.is_char_boundary(*n) && self.text.ends_with(&stop[..*n])).unwrap_or(0)
        };
        self.stops.iter().map(prefix_at_end).max().unwrap_or(0)
    }

    /// Shows what was held back; says whether a stop string ended the text.
    fn finish(&mut self) -> bool {
        if let Some(decoder) = self.decoder.take()
            && !self.stopped
        {
            self.text.push_str(&decoder.finish());
        }
        if self.live && self.text.len() > self.shown {
            self.show(&self.text[self.shown..]);
        }
        self.stopped
    }
}
