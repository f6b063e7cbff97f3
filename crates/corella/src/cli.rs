//! What the user can type.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::prepare::PrepareArgs;
use crate::commands::tokenizer::TokenizerCommand;
use corella_model::llama::LlamaConfig;
use corella_model::{Dtype, KvKind};
use corella_ops::WeightFormat;
use corella_ops::cpu::Rounding;
use corella_text::data::Order;
use corella_train::Schedule;

use crate::error::Failure;
use crate::shape::{GPT2_CUSTOM, GPT2_PRESETS, LLAMA_CUSTOM, presets};
use crate::units::{bytes, count};

/// Train GPT-2 and Llama from random weights, run Llama 3.1 base models, and serve them with a playground.
#[derive(Debug, Parser)]
#[command(name = "corella", version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("CORELLA_COMMIT"), ")"), propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags that every command has.
    #[command(flatten)]
    pub common: Common,
}

/// Flags that every command has.
#[derive(Debug, Args, Clone)]
pub struct Common {
    /// One JSON document on stdout (the last line where there is a stream)
    #[arg(long, global = true)]
    pub json: bool,
    /// Where to compute: cpu, cuda, cuda:N, or auto for the best there is (cards only when asked for)
    #[arg(long, global = true, value_parser = DeviceFlag::parse, default_value = "cpu")]
    pub device: DeviceFlag,
    /// Worker threads [default: the processor's cores]
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Seed of everything random: weights, data order, samples [default: that of the run file, or 42; generate draws one]
    #[arg(long, global = true)]
    #[arg(allow_negative_numbers = true, value_parser = parse_seed)]
    pub seed: Option<u64>,
    /// What products with BF16 weights make of activations, on a processor with instructions for them
    #[arg(long, global = true, value_enum, default_value = "exact")]
    pub activations: Activations,
}

/// What products with BF16 weights make of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Activations {
    /// They keep 16 bits or more: logits as in f32
    Exact,
    /// Rounded to 8 bits, as llama.cpp and transformers do: prompts are read up to twice as fast
    Bf16,
}

impl From<Activations> for Rounding {
    fn from(name: Activations) -> Rounding {
        match name {
            Activations::Exact => Rounding::Exact,
            Activations::Bf16 => Rounding::Bf16,
        }
    }
}

impl Cli {
    /// Refuses what would do nothing.
    pub fn check(&self) -> Result<(), Failure> {
        use Command::{Bench, Eval, Generate, Serve};
        if self.common.activations == Activations::Exact {
            return Ok(());
        }
        let refused = match (&self.command, self.common.device) {
            (_, DeviceFlag::Cuda(_)) => "--activations is for the processor",
            (Generate(_) | Serve(_) | Eval(_) | Bench(_), _) => return Ok(()),
            _ => "--activations is for commands that load models as they are stored",
        };
        Err(Failure::usage(refused).hint("leave it out; generate, serve, eval and bench take it, on the processor"))
    }
}

impl Common {
    /// The seed where none is named.
    pub const DEFAULT_SEED: u64 = 42;

    /// The seed where nothing else says one.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(Common::DEFAULT_SEED)
    }
}

/// Where to compute, as it is asked for: what it stands for on a machine says [`Device::choose`](crate::device::Device::choose).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFlag {
    /// The best there is
    Auto,
    /// The processor
    Cpu,
    /// The GPU of this number
    Cuda(u32),
}

impl DeviceFlag {
    fn parse(text: &str) -> Result<DeviceFlag, String> {
        match text {
            "auto" => Ok(DeviceFlag::Auto),
            "cpu" => Ok(DeviceFlag::Cpu),
            "cuda" => Ok(DeviceFlag::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok().map(DeviceFlag::Cuda))
                .ok_or_else(|| "auto, cpu, cuda or cuda:N".to_owned()),
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The lesson, live and offline: a random network learns the tiny internet; then each phenomenon is measured
    Tour(TourArgs),
    /// Train a GPT-2 or a Llama from random weights, or from a model
    Train(Box<TrainArgs>),
    /// Continue a text
    Generate(GenerateArgs),
    /// Turn text into token shards
    Prepare(Box<PrepareArgs>),
    /// Train a vocabulary, encode, decode, look inside
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
    /// Convert a model between Hugging Face folders, GGUF and llm.c files, and between number formats
    Convert(ConvertArgs),
    /// What a model file is: code, configuration, and one long list of numbers
    Inspect(crate::commands::inspect::InspectArgs),
    /// Loss, perplexity and bits per byte on a text or data set; scores on tasks
    Eval(crate::commands::eval::EvalArgs),
    /// What a run will cost: operations, memory, hours, dollars, energy
    Plan(Box<crate::commands::plan::PlanArgs>),
    /// The page of a run, or several runs beside each other
    Report(crate::commands::report::ReportArgs),
    /// What this machine has, what is missing, what will be used and why
    Doctor,
    /// Serve the model: OpenAI-compatible completions, and the playground
    Serve(Box<crate::commands::serve::ServeArgs>),
    /// Where text comes from: spans that stand in the training data, and what a model has by heart
    Trace(crate::commands::trace::TraceArgs),
    /// Measure the kernels beside the machine's limits; the last line is one JSON document
    Bench(BenchArgs),
}

/// Flags of `tour`.
#[derive(Clone, Debug, Args)]
pub struct TourArgs {
    /// Folder of the run
    #[arg(long, default_value = TOUR_FOLDER)]
    pub out: PathBuf,
    /// Tokens to train on, in millions; the default is all that the corpus has
    #[arg(long, default_value_t = TOUR_TOKENS)]
    pub million_tokens: f64,
    /// Number format of activations and products: f32, or bf16 with f32 masters [default: bf16 where the processor multiplies
    /// it faster, else f32; with --resume that of the run]
    #[arg(long, value_parser = dtype_parser())]
    pub dtype: Option<Dtype>,
    /// Go on from the last checkpoint of an earlier tour
    #[arg(long)]
    pub resume: bool,
    /// Show the run live and end in the playground, at this address [default: on a terminal, at 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = SITE)]
    pub serve: Option<SocketAddr>,
    /// Only print
    #[arg(long, conflicts_with = "serve")]
    pub no_serve: bool,
}

/// Where the tour is kept when nothing is said.
pub const TOUR_FOLDER: &str = "out/tour";
/// Millions of tokens that the tour reads when nothing is said.
pub const TOUR_TOKENS: f64 = 3.9;

/// Where `--serve` without an address is.
const SITE: &str = "127.0.0.1:8080";

/// Flags of `train`.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub struct TrainArgs {
    /// A run file (.toml), or text to train on: a file or a folder
    pub source: Option<PathBuf>,
    /// The model by its name
    #[arg(long, help = models())]
    pub model: Option<String>,
    /// Layers (custom models) [default: 4]
    #[arg(long)]
    pub n_layer: Option<usize>,
    /// Heads (custom models) [default: 4]
    #[arg(long)]
    pub n_head: Option<usize>,
    /// Width (custom models) [default: 256]
    #[arg(long)]
    pub n_embd: Option<usize>,
    /// Heads of keys and values (llama-custom) [default: as many as heads]
    #[arg(long)]
    pub n_kv_head: Option<usize>,
    /// Width of the feed-forward layer (llama-custom) [default: 8/3 of the width]
    #[arg(long)]
    pub n_ff: Option<usize>,
    /// Context length T [default: 256, or the published model's]
    #[arg(long)]
    pub seq_len: Option<usize>,
    /// Size of the vocabulary to train on the text [default: 2048]
    #[arg(long)]
    pub vocab_size: Option<usize>,
    /// `gpt2`, `own` (trained on the text), or a tokenizer.json [default: own; gpt2 with a published GPT-2]
    #[arg(long)]
    pub tokenizer: Option<String>,
    /// A prepared folder, a text file or folder, or `tiny-internet`
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Order of the sequences: windows, documents (whole ones, one behind the other), file (as they stand) or llm.c [default:
    /// windows]
    #[arg(long, value_parser = order_parser())]
    pub order: Option<Order>,
    /// Folder of the run [default: out/ and the name of the run file or text]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Go on from the last checkpoint in --out
    #[arg(long)]
    pub resume: bool,
    /// Start from the weights of this model instead of random ones
    #[arg(long)]
    pub init_from: Option<PathBuf>,
    /// Updates to make [default: 1000]
    #[arg(long, conflicts_with = "tokens")]
    pub steps: Option<u64>,
    /// Tokens to train on, instead of --steps, e.g. 300e9 or 33.55B
    #[arg(long, value_parser = count)]
    pub tokens: Option<u64>,
    /// Tokens per update [default: one micro-batch]
    #[arg(long)]
    pub batch_tokens: Option<usize>,
    /// Sequences per forward and backward pass, or `auto`: as many as fit into the memory [default: 8, or 4
    /// with a published model]
    #[arg(long, value_parser = |text: &str| corella_train::parse_micro_batch(text))]
    pub micro_batch: Option<usize>,
    /// Memory that `--micro-batch auto` may fill, for example 8GiB [default: 80 % of what is free]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub memory: Option<usize>,
    /// Dollars per hour of the whole machine, for the bill
    #[arg(long)]
    pub price: Option<f64>,
    /// Watts of the whole machine, for the bill
    #[arg(long)]
    pub watts: Option<f64>,
    /// Peak learning rate [default: 2e-3, or 6e-4 with a run file or a published model]
    #[arg(long)]
    pub lr: Option<f64>,
    /// Updates until the peak [default: 40, or all of a shorter run]
    #[arg(long)]
    pub warmup_steps: Option<u64>,
    /// How the rate falls; wsd: constant, then down with the square root of the progress, over the last fifth or
    /// decay_fraction of a run file [default: cosine]
    #[arg(long, value_parser = schedule_parser())]
    pub schedule: Option<Schedule>,
    /// Last learning rate, as a fraction of the peak [default: 0.1]
    #[arg(long)]
    pub final_lr_fraction: Option<f64>,
    /// AdamW's decay of matrices and embeddings [default: 0.1]
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// Longest gradient; a longer one (Euclidean norm of all) is shortened to this [default: 1]
    #[arg(long)]
    pub clip: Option<f64>,
    /// Number format of activations and products: f32, or bf16 with f32 masters [default: f32]
    #[arg(long, value_parser = dtype_parser())]
    pub dtype: Option<Dtype>,
    /// Compute activations again in the backward pass instead of keeping them (--recompute=false against a run file)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub recompute: Option<bool>,
    /// Leave out an update whose loss is this many standard deviations above the recent mean (0: never) [default: 7]
    #[arg(long)]
    pub spike_z_loss: Option<f64>,
    /// The same for the gradient norm, where the loss is above its mean too [default: 7]
    #[arg(long)]
    pub spike_z_norm: Option<f64>,
    /// Updates that a spike is compared with [default: 128]
    #[arg(long)]
    pub spike_window: Option<usize>,
    /// Updates between checkpoints; 0: one at the end [default: 250]
    #[arg(long)]
    pub checkpoint_every: Option<u64>,
    /// Newest checkpoints to keep, beside the best [default: 2]
    #[arg(long)]
    pub keep: Option<usize>,
    /// Shell command that is started after each checkpoint (CORELLA_CHECKPOINT is its folder)
    #[arg(long)]
    pub on_checkpoint: Option<String>,
    /// Shell command that is run when a checkpoint fails or the run ends by an error (CORELLA_ERROR says which)
    #[arg(long)]
    pub on_failure: Option<String>,
    /// Updates between samples; 0: none [default: 100]
    #[arg(long)]
    pub sample_every: Option<u64>,
    /// Text that the samples continue (may be given several times)
    #[arg(long)]
    pub sample_prompt: Vec<String>,
    /// Tokens of a sample [default: 64]
    #[arg(long)]
    pub sample_tokens: Option<usize>,
    /// Updates between measurements of the validation loss; 0: none [default: 100]
    #[arg(long)]
    pub val_every: Option<u64>,
    /// Tokens of the validation loss [default: 50000]
    #[arg(long)]
    pub val_tokens: Option<usize>,
    /// Updates between evaluations on the tasks of --eval
    #[arg(long)]
    pub eval_every: Option<u64>,
    /// A task to evaluate during training: a file, or TASK=FILE (may be given several times; files of one task are joined)
    #[arg(long)]
    pub eval: Vec<String>,
    /// Most items of each task, of MMLU of each subject [default: 200]
    #[arg(long)]
    pub eval_limit: Option<usize>,
    /// Show the run live in the browser, then the playground with the trained model [without ADDRESS: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = SITE)]
    pub serve: Option<SocketAddr>,
}

/// Number formats by name.
fn dtype_parser() -> impl TypedValueParser<Value = Dtype> {
    PossibleValuesParser::new(Dtype::ALL.map(Dtype::name)).map(|name| Dtype::from_name(&name).unwrap_or_default())
}

/// Schedules by name.
fn schedule_parser() -> impl TypedValueParser<Value = Schedule> {
    PossibleValuesParser::new(Schedule::ALL.map(Schedule::name))
        .map(|name| Schedule::ALL.into_iter().find(|schedule| schedule.name() == name).unwrap_or_default())
}

/// What the help says of the models that can be trained.
fn models() -> String {
    format!("{}, {GPT2_CUSTOM} or {LLAMA_CUSTOM} [default: {GPT2_CUSTOM}]", presets().join(", "))
}

/// What it says of those that are measured with random weights.
fn measured_models() -> String {
    let (gpt2, llama) = (GPT2_PRESETS.join(", "), LlamaConfig::PRESETS.join(", "));
    format!("Only this model, with random weights: tour, small, mid, {gpt2} (train and generate), {llama} (generate)")
}

/// Orders of the data by name.
fn order_parser() -> impl TypedValueParser<Value = Order> {
    PossibleValuesParser::new(Order::ALL.map(Order::name))
        .map(|name| Order::ALL.into_iter().find(|order| order.name() == name).unwrap_or_default())
}

/// Flags of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// A run folder, a Hugging Face folder, a model file, or hf://owner/name
    pub model: PathBuf,
    /// The text to continue
    #[arg(short, long, group = "input", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// A file with the text to continue (`-`: standard input)
    #[arg(long, group = "input")]
    pub prompt_file: Option<PathBuf>,
    /// The token ids to continue, e.g. 1,2,3
    #[arg(long, group = "input", value_delimiter = ',', allow_negative_numbers = true, value_parser = parse_id)]
    pub prompt_ids: Option<Vec<u32>>,
    /// Number of continuations; side by side on a terminal that is wide enough
    #[arg(short, default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub n: u32,
    /// Draw so many continuations and keep the n likeliest
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub best_of: Option<u32>,
    /// Most tokens to add
    #[arg(long, default_value_t = 128, allow_negative_numbers = true, value_parser = parse_most_tokens)]
    pub max_tokens: usize,
    /// No end before so many tokens
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub min_tokens: usize,
    /// How to draw
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// End before this text; \n, \t and \\ stand for a line end, a tabulator and a backslash, as in '\nHuman:' (may be given
    /// several times)
    #[arg(long, value_name = "TEXT", value_parser = unescaped, allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// End before this token (may be given several times)
    #[arg(long)]
    pub stop_id: Vec<u32>,
    /// Report the K likeliest tokens at each position, with --json or --show-tokens; colours tokens by probability on a terminal
    #[arg(long, value_name = "K")]
    pub logprobs: Option<usize>,
    /// Report probabilities as the draw uses them, after temperature and filters
    #[arg(long, requires = "logprobs")]
    pub filtered: bool,
    /// Print a table of tokens, those of the prompt too: position, id, probability, text
    #[arg(long, conflicts_with = "json")]
    pub show_tokens: bool,
    /// Do not put the token in front that marks the start of a text; it is there unless the tokenizer's file forbids it
    #[arg(long, conflicts_with = "prompt_ids")]
    pub no_bos: bool,
    /// Take names of special tokens in the text for these tokens (<|endoftext|>); otherwise they are text
    #[arg(long, conflicts_with = "prompt_ids")]
    pub parse_special: bool,
    /// Go on after an end-of-text token
    #[arg(long)]
    pub ignore_eos: bool,
    /// Propose at most N tokens at once from what stood in the text before: faster on text that repeats itself, the
    /// output is the same
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub lookup: usize,
    /// Number type of cached keys and values
    #[arg(long, value_enum, default_value_t = KvType::F16)]
    pub kv_type: KvType,
    /// On a card, compute each text in one order of additions, whatever is computed beside it; on the processor that is
    /// always so
    #[arg(long)]
    pub batch_invariant: bool,
    /// Tokenizer for a model file that carries none: `gpt2` or a tokenizer file
    #[arg(long)]
    pub tokenizer: Option<String>,
}

/// How a token is drawn.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// 0 always takes the likeliest token; 1 draws from the model's distribution. The order is: bias, penalties,
    /// temperature, top-k, top-p, min-p, typical-p
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// The temperature comes behind top-k, top-p, min-p and typical-p, as in llama.cpp
    #[arg(long)]
    pub temperature_last: bool,
    /// Draw from the K likeliest tokens only (0 or -1: from all)
    #[arg(long, allow_negative_numbers = true, value_parser = parse_top_k)]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that together reach this probability
    #[arg(long, allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Draw from tokens at least this likely, relative to the likeliest (0: from all)
    #[arg(long, allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Draw from the tokens closest to the expected surprise that together reach this probability
    #[arg(long, allow_negative_numbers = true)]
    pub typical_p: Option<f32>,
    /// Above 1: tokens of prompt and output become less likely (in llama.cpp only the last 64 of them)
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub repetition_penalty: f32,
    /// Above 0: a token becomes less likely with each time that it was drawn
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
    /// Above 0: a token that was drawn becomes less likely
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Make a token likelier, or less likely: ID=BIAS (may be given several times)
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias)]
    pub logit_bias: Vec<(u32, f32)>,
}

/// A seed.
fn parse_seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a whole number from 0 to 18446744073709551615".to_owned())
}

/// A token id, with or without a space beside it.
fn parse_id(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| "expected token ids: whole numbers from 0 on".to_owned())
}

/// A number of tokens.
fn parse_most_tokens(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| {
        "expected a whole number from 0 on; a large one is as many tokens as the context leaves room for".to_owned()
    })
}

/// 0 and −1 mean no limit, as in requests to the server.
fn parse_top_k(text: &str) -> Result<usize, String> {
    if text == "-1" {
        return Ok(0);
    }
    text.parse().map_err(|_| "expected a whole number from 1 on, or 0 or -1 for no limit".to_owned())
}

/// `ID=BIAS`.
fn parse_bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parsed.ok_or_else(|| "expected ID=BIAS, for example 50256=-100".to_owned())
}

/// A text in which `\n`, `\t` and `\\` stand for what a shell does not let people type; any other backslash is one.
fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let stands_for = match (c, rest.as_str().chars().next()) {
            ('\\', Some('n')) => '\n',
            ('\\', Some('t')) => '\t',
            ('\\', Some('\\')) => '\\',
            _ => {
                out.push(c);
                continue;
            }
        };
        rest.next();
        out.push(stands_for);
    }
    Ok(out)
}

/// Number types of cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvType {
    /// As computed (on the processor)
    F32,
    /// Half precision
    F16,
    /// The upper half of a single
    Bf16,
    /// 8-bit integers
    Q8,
}

impl From<KvType> for KvKind {
    fn from(name: KvType) -> KvKind {
        match name {
            KvType::F32 => KvKind::F32,
            KvType::F16 => KvKind::F16,
            KvType::Bf16 => KvKind::Bf16,
            KvType::Q8 => KvKind::Q8,
        }
    }
}

/// Formats of these names.
fn format_parser<const N: usize>(names: [&'static str; N]) -> impl TypedValueParser<Value = WeightFormat> {
    PossibleValuesParser::new(names).map(|name| {
        let known = WeightFormat::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(&name));
        known.unwrap_or(WeightFormat::F32)
    })
}

/// Formats that are written.
fn weight_format_parser() -> impl TypedValueParser<Value = WeightFormat> {
    format_parser(["f32", "f16", "bf16", "q8_0", "q4_0"])
}

/// Flags of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A run folder, a Hugging Face folder, a .gguf file, an llm.c or llama2.c .bin, or hf://owner/name
    pub input: PathBuf,
    /// A folder (Hugging Face), a name ending in .gguf, or one ending in .bin (llm.c, f32 or bf16)
    pub output: PathBuf,
    /// Number format of the matrices; beside q4_0 the output head is q8_0, the embedding too where it is the head [default: in a
    /// .gguf bf16 where they are bf16, else f16; elsewhere as they are, quantised ones f32]
    #[arg(long, value_parser = weight_format_parser())]
    pub dtype: Option<WeightFormat>,
    /// The tokenizer to write beside the weights, for a model that carries none: `gpt2` or a tokenizer file
    #[arg(long)]
    pub tokenizer: Option<String>,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    pub what: BenchWhat,
    /// A run folder, a Hugging Face folder or a model file (generate)
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    pub path: Option<PathBuf>,
    /// Repetitions; the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000).map(usize::from))]
    pub repeat: usize,
    /// The model by its name
    #[arg(long, help = measured_models())]
    pub model: Option<String>,
    /// Number format of the random weights [default: f32; bf16 of a Llama] (generate)
    #[arg(long, value_name = "FORMAT", value_parser = format_parser(["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k"]), conflicts_with = "path")]
    pub weights: Option<WeightFormat>,
    /// Tokens of the prompt whose prefill is timed [default: 512] (generate)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=131_072).map(|n| n as usize))]
    pub prompt: Option<usize>,
    /// Only this number format: f32 or bf16 (ops and train)
    #[arg(long, value_parser = dtype_parser())]
    pub dtype: Option<Dtype>,
    /// Only operations whose name has this in it, such as "linear Q4_K" or attention (ops)
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The text to measure on (prepare) [default: the tiny internet]
    #[arg(long)]
    pub text: Option<PathBuf>,
    /// Sequences of a micro-batch (train)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096).map(usize::from))]
    pub micro_batch: Option<usize>,
}

impl BenchWhat {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            BenchWhat::Ops => "ops",
            BenchWhat::Train => "train",
            BenchWhat::Generate => "generate",
            BenchWhat::Prepare => "prepare",
        }
    }
}

/// What `bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchWhat {
    /// Every operation
    Ops,
    /// Updates of whole models
    Train,
    /// Prefill and decoding of whole models
    Generate,
    /// Reading, cleaning, judging, hashing and tokenising of text
    Prepare,
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn line_ends_tabulators_and_backslashes_can_be_typed() {
        for (typed, meant) in [
            (r"\nHuman:", "\nHuman:"),
            (r"a\tb\n\n", "a\tb\n\n"),
            (r"\\n", r"\n"),
            (r"C:\dir\", r"C:\dir\"),
            ("é\n", "é\n"),
            ("", ""),
        ] {
            assert_eq!(unescaped(typed).as_deref(), Ok(meant), "{typed}");
        }
    }
}
