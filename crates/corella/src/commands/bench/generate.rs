//! Prefill, time to first token, decoding of one and of many sequences: through the engine, as a server runs a model.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use corella_infer::{
    CacheScope, Engine, EngineHandle, EngineOptions, Event, Request, RequestParams, SampleParams, Sink,
};
use corella_model::llama::LlamaConfig;
use corella_model::params::{ModelConfig, ParamSpec, Part};
use corella_model::{KvKind, Source, StepOptions};
use corella_ops::cpu::Cpu;
use corella_ops::{Dtype, WeightFormat};

use super::processor::Beside;
use super::random_rows::RandomRows;
use super::{Bench, Bound, Loaded, median, train};
use crate::cli::{BenchArgs, Common};
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::inputs::open_any;
use crate::machine::{forget_peak_memory, peak_memory};
use crate::model::{self, Invariance, Loadable};

/// Sequences that are decoded together.
const BATCHES: [usize; 3] = [1, 8, 32];
/// Tokens that each of them is given, and decodes.
const GIVEN: usize = 16;
const DECODED: usize = 64;
/// Tokens of the prompt where nothing is said.
const PROMPT: usize = 512;
/// Tokens of a prompt that are prefilled at once, at most.
const CHUNK: usize = 2048;
/// From so many tokens on, decoding after the prompt is timed as well.
const LONG: usize = 1024;
/// The salt of the pages of that prompt.
const KEPT: usize = 100;

/// A model to measure.
pub struct Subject {
    name: String,
    weights: Loadable,
}

/// What the weights of a step are.
struct Sizes {
    vocab_size: usize,
    context_len: usize,
    /// Parameters in products with every token, without the output head.
    products: f64,
    /// Those of the head.
    head: f64,
    /// Bytes of the weights that a step reads: all but tables of which it reads a row.
    bytes: f64,
    /// Parameters that are multiplied as integers, and in BF16.
    quantised: f64,
    brain: f64,
}

impl Sizes {
    /// The arithmetic in which most of the products are done.
    fn bound(&self, cpu: &Cpu, operations: f64) -> Bound {
        let rest = self.products + self.head - self.quantised - self.brain;
        if self.quantised >= rest.max(self.brain) {
            Bound::Integers(operations)
        } else if self.brain >= rest && cpu.multiplies_bf16() {
            Bound::Compute(Dtype::Bf16, operations)
        } else {
            Bound::Compute(Dtype::F32, operations)
        }
    }
}

impl Subject {
    fn sizes(&self) -> Sizes {
        match &self.weights {
            Loadable::Gpt2(source) => sizes(&**source),
            Loadable::Llama(source) => sizes(&**source),
        }
    }
}

fn sizes<C: ModelConfig>(source: &dyn Source<C>) -> Sizes {
    let config = source.config();
    let (table, head) = (config.table(), config.head());
    let read = table.iter().enumerate().filter(|(row, _)| *row == head || !C::LOOKED_UP.contains(row));
    let bytes = |row: usize, spec: &ParamSpec<C::Tensor>| -> usize {
        let part =
            |(i, part): (usize, &Part<C::Tensor>)| part.rows * source.format(row, i).row_bytes(spec.cols).unwrap_or(0);
        spec.parts.iter().enumerate().map(part).sum()
    };
    let head_parameters = table[head].len();
    let parameters = |wanted: fn(WeightFormat) -> bool| -> f64 {
        let parts =
            read.clone().flat_map(|(row, spec)| spec.parts.iter().enumerate().map(move |part| (row, spec, part)));
        let stored = parts.filter(|(row, _, (i, _))| wanted(source.format(*row, *i)));
        stored.map(|(_, spec, (_, part))| part.rows * spec.cols).sum::<usize>() as f64
    };
    Sizes {
        quantised: parameters(|format| format.block_len() > 1),
        brain: parameters(|format| format == WeightFormat::Bf16),
        vocab_size: config.vocab_size(),
        context_len: config.context_len(),
        products: (read.clone().map(|(_, spec)| spec.len()).sum::<usize>() - head_parameters) as f64,
        head: head_parameters as f64,
        bytes: read.map(|(row, spec)| bytes(row, spec)).sum::<usize>() as f64,
    }
}

/// What `bench generate [MODEL]` measures: the model named, or models with random weights.
pub fn subjects(args: &BenchArgs) -> Result<Vec<Subject>> {
    Ok(match (&args.path, args.model.as_deref()) {
        (Some(path), _) => vec![Subject { name: name(path), weights: open_any(path)?.0.into() }],
        (None, Some(llama)) if LlamaConfig::preset(llama).is_some() => {
            let config = LlamaConfig::preset(llama).into_iter();
            let format = args.weights.unwrap_or(WeightFormat::Bf16);
            let subject = |config| Subject {
                name: format!("{llama} {}", format.name()),
                weights: Loadable::Llama(Box::new(RandomRows::new(config, format))),
            };
            config.map(subject).collect()
        }
        (None, model) => {
            let format = args.weights.unwrap_or(WeightFormat::F32);
            let subject = |shape: train::Shape| Subject {
                name: shape.name.to_owned(),
                weights: Loadable::Gpt2(Box::new(RandomRows::new(shape.config, format))),
            };
            train::shapes(model, &LlamaConfig::PRESETS)?.into_iter().map(subject).collect()
        }
    })
}

/// Measures them.
pub fn run(bench: &mut Bench, subjects: Vec<Subject>, args: &BenchArgs, common: &Common) -> Result<()> {
    subjects.into_iter().try_for_each(|subject| measure(bench, subject, args.prompt, common))
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Times prefill of `asked` tokens, and decoding.
fn measure(bench: &mut Bench, subject: Subject, asked: Option<usize>, common: &Common) -> Result<()> {
    let (sizes, prompt) = (subject.sizes(), asked.unwrap_or(PROMPT));
    let context = sizes.context_len.min(prompt + DECODED);
    let (given, decoded) = (GIVEN.min(context / 4), DECODED.min(context / 4));
    let prompt = prompt.min(context - decoded);
    if let Some(asked) = asked.filter(|asked| *asked > prompt) {
        eprintln!(
            "note: {} is measured with a prompt of {prompt} tokens instead of {asked}: its context holds {}, and {decoded} are decoded",
            subject.name, sizes.context_len
        );
    }
    let most = BATCHES[BATCHES.len() - 1];
    let options = StepOptions {
        context_len: context,
        kv_tokens: context + most * (given + decoded + corella_model::step_options::PAGE_TOKENS),
        kv_kind: KvKind::F16,
        max_seqs: most,
        max_batch_tokens: prompt.clamp(2 * most, CHUNK),
        max_logit_rows: most,
    };
    let (name, vocab_size) = (subject.name.clone(), sizes.vocab_size);
    // What was held before, to measure the machine, is no part of loading.
    let peak_of_loading = forget_peak_memory();
    let start = Instant::now();
    let model = model::load(subject.weights, Device::choose(common)?, options, Invariance::AsFast)?;
    let (loading, loaded_memory) = (start.elapsed().as_secs_f64(), peak_memory());
    let engine = Engine::start(model, Arc::new(|_, _| Vec::new()), EngineOptions::default())?;
    let handle = engine.handle();
    let ids = |seed: usize, len: usize| -> Vec<u32> {
        (0..len).map(|i| ((seed * 31 + i) * 7919 % vocab_size) as u32).collect()
    };

    let operations = 2.0 * (sizes.products * prompt as f64 + sizes.head);
    let compute = sizes.bound(&bench.cpu, operations);
    let (mut seconds, mut beside): (Vec<f64>, Beside) = (Vec::new(), Beside::default());
    for repeat in 0..=bench.repeat {
        bench.look(&mut beside, compute);
        let params = request(ids(repeat, prompt), 1, repeat);
        let start = Instant::now();
        let done = handle.complete(handle.check(params)?)?;
        if let Some(error) = done.error {
            return Err(Failure::new(error));
        }
        seconds.push(start.elapsed().as_secs_f64());
        bench.look(&mut beside, compute);
    }
    // The first run touches the memory for the first time.
    let very_first = seconds.remove(0);
    let first = median(&mut seconds);
    bench.row(
        &format!("prefill {name}"),
        format!("{prompt} tokens"),
        compute,
        "2·N per token, 2·V·C once",
        first,
        &beside,
    );
    bench.tokens(prompt as f64 / first);
    if !common.json {
        println!(
            "{:18} loaded in {loading:.2} s; first token after {:.1} ms, the first time {:.1} ms",
            "",
            first * 1e3,
            very_first * 1e3
        );
    }
    let mut decode = |shape: String,
                      bytes: f64,
                      formula,
                      batch: usize,
                      salt: fn(usize) -> usize,
                      prompt: &dyn Fn(usize) -> Vec<u32>|
     -> Result<()> {
        let (mut steps, mut beside): (Vec<f64>, Beside) = (Vec::new(), Beside::default());
        let bound = Bound::Memory(bytes);
        for repeat in 0..bench.repeat.clamp(1, 3) {
            let prompts = (0..batch).map(|i| request(prompt(i), decoded, salt(repeat) + i));
            bench.look(&mut beside, bound);
            steps.push(step_seconds(&handle, prompts.collect())?);
            bench.look(&mut beside, bound);
        }
        let step = median(&mut steps);
        bench.row(&format!("decode {name}"), shape, bound, formula, step, &beside);
        bench.tokens(batch as f64 / step);
        Ok(())
    };
    for batch in BATCHES {
        let shape = format!("{batch} × {decoded} tokens");
        decode(shape, sizes.bytes, "bytes of all weights per step", batch, |repeat| 1000 * (repeat + 1), &|i| {
            ids(1000 + i, given)
        })?;
    }
    if prompt >= LONG {
        let position = handle.model().page_bytes as f64 / corella_model::step_options::PAGE_TOKENS as f64;
        let bytes = sizes.bytes + position * (prompt + decoded / 2) as f64;
        let shape = format!("{decoded} tokens after {prompt}");
        // Its pages are found again, so that the ceiling is measured right before and after decoding, not before a long prefill.
        let kept = handle.complete(handle.check(request(ids(1000, prompt), 1, KEPT))?)?;
        if let Some(error) = kept.error {
            return Err(Failure::new(error));
        }
        decode(shape, bytes, "bytes of all weights, keys and values per step", 1, |_| KEPT, &|_| ids(1000, prompt))?;
    }
    let kv_bytes = handle.model().pages as f64 * handle.model().page_bytes as f64;
    if !common.json {
        let mib = |bytes: f64| bytes / 1_048_576.0;
        let when = if peak_of_loading { "while loading" } else { "by the program until it was loaded" };
        let peak = loaded_memory.map_or(String::new(), |b| format!(", {:.0} MiB held at most {when}", mib(b as f64)));
        println!(
            "{:18} {:.0} MiB of weights are read per step, {:.0} MiB of KV pages{peak}",
            "",
            mib(sizes.bytes),
            mib(kv_bytes)
        );
    }
    bench.models.push(Loaded {
        name,
        load_seconds: loading,
        first_token_seconds: very_first,
        weight_bytes: sizes.bytes,
        kv_bytes,
        peak_memory_bytes: loaded_memory,
    });
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
    let n = requests.len();
    let mut all: Vec<(Request, Sink)> = Vec::with_capacity(n);
    for (i, params) in requests.into_iter().enumerate() {
        let sender = sender.clone();
        all.push((handle.check(params)?, Box::new(move |event| sender.send((i, Instant::now(), event)).is_ok())));
    }
    drop(sender);
    // At once: one of a small model could end before the last is handed over.
    let _tickets = handle.submit_all(all)?;
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
