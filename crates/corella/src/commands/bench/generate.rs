//! Prefill, time to first token, decoding of one and of many sequences: through the engine, as a server runs a model.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use corella_infer::{CacheScope, Engine, EngineHandle, EngineOptions, Event, RequestParams, SampleParams};
use corella_model::gpt2::random_weights;
use corella_model::{AnyModel, KvKind, StepOptions};
use corella_ops::Dtype;

use super::{Bench, Bound, train};
use crate::cli::{BenchArgs, Common};
use crate::error::{Failure, Result};
use crate::inputs::open_any;
use crate::model::{self, Invariance};

/// Tokens of the prompt whose prefill is timed.
const PROMPT: usize = 512;
/// Sequences that are decoded together.
const BATCHES: [usize; 3] = [1, 8, 32];
/// Tokens that each of them is given, and decodes.
const GIVEN: usize = 16;
const DECODED: usize = 64;

/// A model to measure.
struct Subject {
    name: String,
    files: AnyModel,
}

impl Subject {
    /// Parameters in products with every token, without the output head; and those of the head.
    fn products(&self) -> (f64, f64) {
        let (parameters, table, head, tied) = match &self.files {
            AnyModel::Gpt2(weights) => {
                let c = &weights.config;
                (c.parameter_count(), c.seq_len() * c.n_embd(), c.vocab_size() * c.n_embd(), true)
            }
            AnyModel::Llama(checkpoint) => {
                let c = &checkpoint.config;
                (c.parameter_count(), 0, c.vocab_size * c.n_embd, c.tied)
            }
        };
        let embedding = if tied { 0 } else { head };
        ((parameters - table - embedding - head) as f64, head as f64)
    }

    /// Bytes of the weights that a step reads: all but tables of which it reads a row.
    fn bytes(&self) -> f64 {
        match &self.files {
            AnyModel::Gpt2(_) => {
                let (products, head) = self.products();
                4.0 * (products + head)
            }
            AnyModel::Llama(checkpoint) => {
                let all: u64 = checkpoint.places.iter().flatten().map(|place| place.bytes()).sum();
                let embedding = if checkpoint.config.tied { 0 } else { checkpoint.places[0][0].bytes() };
                (all - embedding) as f64
            }
        }
    }
}

/// `bench generate [MODEL]`: the model named, or GPT-2s with random weights.
pub fn run(bench: &mut Bench, args: &BenchArgs, common: &Common) -> Result<()> {
    let subjects = match &args.path {
        Some(path) => vec![Subject { name: name(path), files: open_any(path)?.0 }],
        None => {
            let shapes = train::shapes(args.model.as_deref())?;
            let subject = |shape: train::Shape| Subject {
                name: shape.name.to_owned(),
                files: AnyModel::Gpt2(random_weights(&shape.config, 1)),
            };
            shapes.into_iter().map(subject).collect()
        }
    };
    subjects.into_iter().try_for_each(|subject| measure(bench, subject, common))
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn measure(bench: &mut Bench, subject: Subject, common: &Common) -> Result<()> {
    let context = subject.files.context_len().min(PROMPT + DECODED);
    let (given, decoded) = (GIVEN.min(context / 4), DECODED.min(context / 4));
    let prompt = PROMPT.min(context - decoded);
    let most = BATCHES[BATCHES.len() - 1];
    let options = StepOptions {
        context_len: context,
        kv_tokens: context + most * (given + decoded + corella_model::step_options::PAGE_TOKENS),
        kv_kind: KvKind::F16,
        max_seqs: most,
        max_batch_tokens: prompt.max(2 * most),
        max_logit_rows: most,
    };
    let Subject { name, .. } = &subject;
    let (name, (products, head), bytes) = (name.clone(), subject.products(), subject.bytes());
    let vocab_size = subject.files.vocab_size();
    let start = Instant::now();
    let model = model::load(subject.files, common, options, Invariance::AsFast)?;
    let loading = start.elapsed().as_secs_f64();
    let engine = Engine::start(model, Arc::new(|_, _| Vec::new()), EngineOptions::default())?;
    let handle = engine.handle();
    let ids = |seed: usize, len: usize| -> Vec<u32> {
        (0..len).map(|i| ((seed * 31 + i) * 7919 % vocab_size) as u32).collect()
    };

    let mut seconds: Vec<f64> = Vec::new();
    for repeat in 0..=bench.repeat {
        let params = request(ids(repeat, prompt), 1, repeat);
        let start = Instant::now();
        let done = handle.complete(handle.check(params)?)?;
        if let Some(error) = done.error {
            return Err(Failure::new(error));
        }
        // The first run touches the memory for the first time.
        if repeat > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let first = median(&mut seconds);
    // Quantised products may be done in whichever arithmetic is fastest.
    let operations = 2.0 * (products * prompt as f64 + head);
    let compute = Bound::Compute(Dtype::Bf16, operations);
    bench.row(
        &format!("prefill {name}"),
        format!("{prompt} tokens"),
        compute,
        "2·N per token, 2·V·C once",
        first,
        None,
    );
    bench.tokens(prompt as f64 / first);
    if !common.json {
        println!("{:18} loaded in {loading:.2} s; first token after {:.1} ms", "", first * 1e3);
    }
    for batch in BATCHES {
        let mut steps: Vec<f64> = Vec::new();
        for repeat in 0..bench.repeat.clamp(1, 3) {
            let prompts = (0..batch).map(|i| request(ids(1000 + i, given), decoded, 1000 * (repeat + 1) + i));
            steps.push(step_seconds(&handle, prompts.collect())?);
        }
        let step = median(&mut steps);
        let text = format!("{batch} × {decoded} tokens");
        bench.row(&format!("decode {name}"), text, Bound::Memory(bytes), "bytes of all weights per step", step, None);
        bench.tokens(batch as f64 / step);
    }
    if !common.json {
        let kv = handle.model().pages as f64 * handle.model().page_bytes as f64;
        let mib = |bytes: f64| bytes / 1_048_576.0;
        println!("{:18} {:.0} MiB of weights are read per step, {:.0} MiB of KV pages", "", mib(bytes), mib(kv));
    }
    Ok(())
}

/// A request that nothing ends early, with pages that no other finds.
fn request(prompt: Vec<u32>, max_tokens: usize, salt: usize) -> RequestParams {
    RequestParams {
        prompt,
        max_tokens,
        sample: SampleParams { temperature: 0.0, ..SampleParams::default() },
        scope: CacheScope::salted(&salt.to_string()),
        ..RequestParams::default()
    }
}

/// Mean seconds of a step in which all of these requests decode: from when each has its first token until the first of
/// them ends.
fn step_seconds(handle: &EngineHandle, requests: Vec<RequestParams>) -> Result<f64> {
    let (sender, events) = std::sync::mpsc::channel();
    let mut tickets = Vec::new();
    let n = requests.len();
    for (i, params) in requests.into_iter().enumerate() {
        let sender = sender.clone();
        tickets.push(
            handle.submit(
                handle.check(params)?,
                Box::new(move |event| sender.send((i, Instant::now(), event)).is_ok()),
            )?,
        );
    }
    drop(sender);
    let mut drawn = vec![0usize; n];
    let mut from: Option<(Instant, usize)> = None;
    let mut to: Option<(Instant, usize)> = None;
    for (i, at, event) in events {
        match event {
            Event::Piece { tokens, .. } => drawn[i] += tokens.len(),
            Event::Finished { .. } => to = to.or(Some((at, drawn.iter().sum()))),
            Event::Failed(error) => return Err(Failure::new(error)),
            _ => {}
        }
        if from.is_none() && drawn.iter().all(|n| *n > 0) {
            from = Some((at, drawn.iter().sum()));
        }
    }
    match (from, to) {
        (Some((from, before)), Some((to, after))) if after > before => {
            Ok((to - from).as_secs_f64() * n as f64 / (after - before) as f64)
        }
        _ => Err(Failure::new("the sequences never decoded together")),
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
