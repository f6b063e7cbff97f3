//! Prefill, time to first token, decoding of one and of many sequences: through the engine, as a server runs a model.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use corella_infer::{
    CacheScope, Engine, EngineHandle, EngineOptions, Event, Request, RequestParams, SampleParams, Sink,
};
use corella_model::llama::LlamaConfig;
use corella_model::params::{ModelConfig, ParamSpec, Part};
use corella_model::step_options::PAGE_TOKENS;
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

/// Tokens of what is measured.
struct Lengths {
    context: usize,
    prompt: usize,
    /// That each of several texts is given, and decodes.
    given: usize,
    decoded: usize,
}

impl Lengths {
    /// A prompt of `asked` tokens, or the usual one, as far as the model's context holds it; says where it does not.
    fn of(subject: &Subject, sizes: &Sizes, asked: Option<usize>) -> Lengths {
        let prompt = asked.unwrap_or(PROMPT);
        let context = sizes.context_len.min(prompt + DECODED);
        let (given, decoded) = (GIVEN.min(context / 4), DECODED.min(context / 4));
        let prompt = prompt.min(context - decoded);
        if let Some(asked) = asked.filter(|asked| *asked > prompt) {
            eprintln!(
                "note: {} is measured with a prompt of {prompt} tokens instead of {asked}: its context holds {}, and {decoded} are decoded",
                subject.name, sizes.context_len
            );
        }
        Lengths { context, prompt, given, decoded }
    }

    /// Room for all of it.
    fn options(&self) -> StepOptions {
        let most = BATCHES[BATCHES.len() - 1];
        StepOptions {
            context_len: self.context,
            kv_tokens: self.context + most * (self.given + self.decoded + PAGE_TOKENS),
            kv_kind: KvKind::F16,
            max_seqs: most,
            max_batch_tokens: self.prompt.clamp(2 * most, CHUNK),
            max_logit_rows: most,
        }
    }
}

/// A model that answers.
struct Running {
    name: String,
    sizes: Sizes,
    lengths: Lengths,
    handle: EngineHandle,
}

impl Running {
    /// Tokens of a text; another seed is another text.
    fn ids(&self, seed: usize, len: usize) -> Vec<u32> {
        (0..len).map(|i| ((seed * 31 + i) * 7919 % self.sizes.vocab_size) as u32).collect()
    }

    /// Computes a prompt and one token behind it.
    fn complete(&self, prompt: Vec<u32>, salt: usize) -> Result<()> {
        let done = self.handle.complete(self.handle.check(request(prompt, 1, salt))?)?;
        done.error.map_or(Ok(()), |error| Err(Failure::new(error)))
    }
}

/// Texts that are decoded together.
struct Decoding {
    shape: String,
    /// Bytes that a step reads.
    bytes: f64,
    formula: &'static str,
    /// What each begins with.
    prompts: Vec<Vec<u32>>,
    /// Whether the prompt's pages are those that were kept, instead of others each time.
    kept: bool,
}

/// Measures loading, prefill and decoding.
fn measure(bench: &mut Bench, subject: Subject, asked: Option<usize>, common: &Common) -> Result<()> {
    let sizes = subject.sizes();
    let lengths = Lengths::of(&subject, &sizes, asked);
    // What was held before, to measure the machine, is no part of loading.
    let peak_of_loading = forget_peak_memory();
    let start = Instant::now();
    let model = model::load(subject.weights, Device::choose(common)?, lengths.options(), Invariance::AsFast)?;
    let (load_seconds, peak_memory_bytes) = (start.elapsed().as_secs_f64(), peak_memory());
    let engine = Engine::start(model, Arc::new(|_, _| Vec::new()), EngineOptions::default())?;
    let running = Running { name: subject.name, sizes, lengths, handle: engine.handle() };

    let (first, first_token_seconds) = prefill(bench, &running)?;
    if !common.json {
        println!(
            "{:18} loaded in {load_seconds:.2} s; first token after {:.1} ms, the first time {:.1} ms",
            "",
            first * 1e3,
            first_token_seconds * 1e3
        );
    }
    for batch in BATCHES {
        decode(bench, &running, &beginnings(&running, batch))?;
    }
    if running.lengths.prompt >= LONG {
        decode(bench, &running, &after_the_prompt(&running)?)?;
    }
    let limits = running.handle.model();
    let loaded = Loaded {
        load_seconds,
        first_token_seconds,
        weight_bytes: running.sizes.bytes,
        kv_bytes: limits.pages as f64 * limits.page_bytes as f64,
        peak_memory_bytes,
        name: running.name,
    };
    if !common.json {
        say_memory(&loaded, peak_of_loading);
    }
    bench.models.push(loaded);
    Ok(())
}

/// Times the prompt: the median of its repetitions, and the first of all, which touches the memory for the first time.
fn prefill(bench: &mut Bench, running: &Running) -> Result<(f64, f64)> {
    let (sizes, prompt) = (&running.sizes, running.lengths.prompt);
    let compute = sizes.bound(&bench.cpu, 2.0 * (sizes.products * prompt as f64 + sizes.head));
    let (mut seconds, mut beside): (Vec<f64>, Beside) = (Vec::new(), Beside::default());
    for repeat in 0..=bench.repeat {
        bench.look(&mut beside, compute);
        let ids = running.ids(repeat, prompt);
        let start = Instant::now();
        running.complete(ids, repeat)?;
        seconds.push(start.elapsed().as_secs_f64());
        bench.look(&mut beside, compute);
    }
    let very_first = seconds.remove(0);
    let first = median(&mut seconds);
    let name = format!("prefill {}", running.name);
    bench.row(&name, format!("{prompt} tokens"), compute, "2·N per token, 2·V·C once", first, &beside);
    bench.tokens(prompt as f64 / first);
    Ok((first, very_first))
}

/// Texts with a few tokens each.
fn beginnings(running: &Running, batch: usize) -> Decoding {
    let Lengths { given, decoded, .. } = running.lengths;
    Decoding {
        shape: format!("{batch} × {decoded} tokens"),
        bytes: running.sizes.bytes,
        formula: "bytes of all weights per step",
        prompts: (0..batch).map(|i| running.ids(1000 + i, given)).collect(),
        kept: false,
    }
}

/// One text behind the whole prompt. Its pages are found again, so that the ceiling is measured right before and after decoding,
/// not before a long prefill.
fn after_the_prompt(running: &Running) -> Result<Decoding> {
    let Lengths { prompt, decoded, .. } = running.lengths;
    let ids = running.ids(1000, prompt);
    running.complete(ids.clone(), KEPT)?;
    let position = running.handle.model().page_bytes as f64 / PAGE_TOKENS as f64;
    Ok(Decoding {
        shape: format!("{decoded} tokens after {prompt}"),
        bytes: running.sizes.bytes + position * (prompt + decoded / 2) as f64,
        formula: "bytes of all weights, keys and values per step",
        prompts: vec![ids],
        kept: true,
    })
}

/// Times the steps in which texts decode together.
fn decode(bench: &mut Bench, running: &Running, texts: &Decoding) -> Result<()> {
    let (mut steps, mut beside): (Vec<f64>, Beside) = (Vec::new(), Beside::default());
    let bound = Bound::Memory(texts.bytes);
    for repeat in 0..bench.repeat.clamp(1, 3) {
        let salt = if texts.kept { KEPT } else { 1000 * (repeat + 1) };
        let of = |(i, prompt): (usize, &Vec<u32>)| request(prompt.clone(), running.lengths.decoded, salt + i);
        let requests = texts.prompts.iter().enumerate().map(of).collect();
        bench.look(&mut beside, bound);
        steps.push(step_seconds(&running.handle, requests)?);
        bench.look(&mut beside, bound);
    }
    let step = median(&mut steps);
    bench.row(&format!("decode {}", running.name), texts.shape.clone(), bound, texts.formula, step, &beside);
    bench.tokens(texts.prompts.len() as f64 / step);
    Ok(())
}

/// Prints what a model takes; `of_loading` where the peak is that of loading alone.
fn say_memory(loaded: &Loaded, of_loading: bool) {
    let mib = |bytes: f64| bytes / 1_048_576.0;
    let when = if of_loading { "while loading" } else { "by the program until it was loaded" };
    let peak = loaded.peak_memory_bytes;
    let peak = peak.map_or(String::new(), |b| format!(", {:.0} MiB held at most {when}", mib(b as f64)));
    println!(
        "{:18} {:.0} MiB of weights are read per step, {:.0} MiB of KV pages{peak}",
        "",
        mib(loaded.weight_bytes),
        mib(loaded.kv_bytes)
    );
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
