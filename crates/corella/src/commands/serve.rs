//! `corella serve`: the completions server and the playground, on one model.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::TypedValueParser;
use corella_infer::{Engine, EngineOptions, RequestLimits};
use corella_model::{KvKind, StepOptions};
use corella_server::{NoKeys, Peer, Served, Transcript};
use corella_train::folder;
use serde_json::{Value, json};

use crate::cli::{Common, DeviceFlag, KvType};
use crate::commands::inspect;
use crate::device::Device;
use crate::error::{Failure, Result, of_path};
use crate::inputs::model_folder;
use crate::loading::Progress;
use crate::model::{self, Invariance};
use crate::room::Sizes;
use crate::site::{ListenArgs, Site};
use crate::units::gib;

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A run folder, a Hugging Face folder, a model file, or hf://owner/name
    pub model: PathBuf,
    /// How to listen
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Most tokens of a text [default: the model's context, at most 8192]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub context_len: Option<usize>,
    /// Tokens of keys and values kept, all texts together [default: eight contexts, fewer where the memory is short]
    #[arg(long)]
    pub kv_tokens: Option<usize>,
    /// Number type of cached keys and values
    #[arg(long, value_enum, default_value_t = KvType::F16)]
    pub kv_type: KvType,
    /// On a card, compute each text in one order of additions, whatever is computed beside it; on the processor that is
    /// always so
    #[arg(long)]
    pub batch_invariant: bool,
    /// Continuations computed at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub parallel: u16,
    /// Requests that may wait beyond those for which places (--parallel) are free; while there are as many, others are answered
    /// with 429
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub queue: u32,
    /// Propose at most N tokens at once from what stood in the text before: faster on texts that repeat themselves, the
    /// answers are the same
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=16))]
    pub lookup: u8,
    /// Name under which the model is offered [default: the folder's or file's]
    #[arg(long)]
    pub name: Option<String>,
    /// A TOML file with `preamble`, `human` and `assistant`: the transcript behind /v1/chat/completions
    #[arg(long)]
    pub transcript: Option<PathBuf>,
    /// A model of another server of completions to show beside this one, by its name there, as NAME=URL (may be given
    /// several times); the key that it asks for is CORELLA_PEER_KEY_NAME (the name in upper case, _ for what is neither letter
    /// nor digit), or CORELLA_PEER_KEY where there is one such server only
    #[arg(long, value_name = "NAME=URL")]
    pub peer: Vec<Peer>,
    /// The same for a server that only offers chats: a text is handed to it as the beginning of its own answer
    #[arg(long, value_name = "NAME=URL")]
    pub chat_peer: Vec<Peer>,
    /// Tokenizer for a model file that carries none: `gpt2` or a tokenizer file
    #[arg(long)]
    pub tokenizer: Option<String>,
}

/// Runs the command.
pub fn run(args: &ServeArgs, common: &Common) -> Result<()> {
    let run = folder::is_run(&args.model).then(|| args.model.clone());
    // A run has its live page before it has a model; anything else that is no model is known to be none at once.
    if run.is_none() && !args.model.to_string_lossy().starts_with(corella_hub::PREFIX) {
        model_folder(&args.model)?;
    }
    let settings = Settings::new(args, common)?;
    settings.check_names()?;
    let site = Site::start(&args.listen, transcript(args.transcript.as_deref())?, run)?;
    site.announce(common.json, &[("playground", ""), ("completions", "v1/completions")]);
    site.serve(&settings)
}

fn transcript(path: Option<&Path>) -> Result<Transcript> {
    let Some(path) = path else { return Ok(Transcript::default()) };
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| of_path(path, e))?;
    toml::from_str(&text).map_err(|e| {
        Failure::new(format!("{name}: {e}")).hint("it needs `preamble`, `human` and `assistant`, each a string")
    })
}

/// What loading needs.
#[derive(Clone)]
pub struct Settings {
    model: PathBuf,
    tokenizer: Option<String>,
    name: Option<String>,
    context_len: Option<usize>,
    kv_tokens: Option<usize>,
    kv_kind: KvKind,
    parallel: usize,
    queue: usize,
    invariance: Invariance,
    lookup: usize,
    /// What the seeds of requests that name none follow from.
    seed: Option<u64>,
    peers: Vec<Peer>,
    common: Common,
}

impl Settings {
    fn new(args: &ServeArgs, common: &Common) -> Result<Settings> {
        Ok(Settings {
            model: args.model.clone(),
            tokenizer: args.tokenizer.clone(),
            name: args.name.clone(),
            context_len: args.context_len,
            kv_tokens: args.kv_tokens,
            kv_kind: args.kv_type.into(),
            parallel: args.parallel.into(),
            queue: args.queue as usize,
            invariance: Invariance::of_flag(args.batch_invariant),
            lookup: args.lookup.into(),
            seed: common.seed,
            peers: peers(args)?,
            common: common.clone(),
        })
    }

    /// A model that was just trained, with everything as it is by default.
    pub fn of_run(run: &Path, common: &Common) -> Settings {
        Settings {
            model: run.to_path_buf(),
            tokenizer: None,
            name: None,
            context_len: None,
            kv_tokens: None,
            kv_kind: KvKind::F16,
            parallel: 32,
            queue: 256,
            invariance: Invariance::AsFast,
            lookup: 0,
            // One that was named is the run's.
            seed: None,
            peers: Vec::new(),
            // Wherever it was trained, the processor writes.
            common: Common { device: DeviceFlag::Cpu, ..common.clone() },
        }
    }

    /// The name under which the model is offered.
    fn served_name(&self) -> String {
        // A folder's name has no ending, whatever dots are in it.
        let name = || if self.model.is_file() { self.model.file_stem() } else { self.model.file_name() };
        let file = || name().unwrap_or_default().to_string_lossy().into_owned();
        self.name.clone().unwrap_or_else(file)
    }

    /// A request names its model, so no two may have one name.
    fn check_names(&self) -> Result<()> {
        let own = self.served_name();
        if own.trim().is_empty() {
            return Err(Failure::usage("the model has no name, by which requests could ask for it").hint("--name NAME"));
        }
        for (i, Peer { name, .. }) in self.peers.iter().enumerate() {
            let hint = if *name == own {
                "--name gives the model of this server another name"
            } else if self.peers[..i].iter().any(|peer| peer.name == *name) {
                "give one --peer or --chat-peer for each name"
            } else {
                continue;
            };
            let message = format!("two models have the name `{name}`: requests could reach only one of them");
            return Err(Failure::usage(message).hint(hint));
        }
        Ok(())
    }

    /// Models of other servers.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The MODEL argument.
    pub fn model(&self) -> &Path {
        &self.model
    }

    /// Whether output is for programs.
    pub fn json(&self) -> bool {
        self.common.json
    }
}

fn peers(args: &ServeArgs) -> Result<Vec<Peer>> {
    let chats = args.chat_peer.iter().map(|peer| Peer { chat: true, ..peer.clone() });
    let peers = args.peer.iter().cloned().chain(chats).collect();
    Peer::with_keys(peers, |name| std::env::var(name).ok()).map_err(|error| {
        let hint = match &error {
            NoKeys::Shared { variables, .. } => {
                format!("give each its own, or an empty one where it asks for none: {}", variables.join(", "))
            }
            NoKeys::OneName { .. } => "give one of them a name with other letters or digits".to_owned(),
        };
        Failure::usage(error.to_string()).hint(hint)
    })
}

/// Longest context that is planned for when nothing is said.
const CONTEXT: usize = 8192;

/// Positions of keys and values to keep; says which where it is not what was asked for, and of the processor's memory (`free`
/// of it) what is taken, before it is.
fn kv_tokens(settings: &Settings, sizes: Sizes, context_len: usize, free: Option<u64>) -> usize {
    if let Some(asked) = settings.kv_tokens.filter(|asked| *asked < context_len) {
        eprintln!("note: --kv-tokens {asked} is less than one text of {context_len} tokens; {context_len} are kept");
    }
    let positions = settings.kv_tokens.unwrap_or_else(|| sizes.usual_positions(context_len, free)).max(context_len);
    if let Some(free) = free {
        let pages = sizes.token_bytes.saturating_mul(positions as u64);
        eprintln!(
            "memory: {:.2} GiB of weights, {:.2} GiB for {positions} positions of keys and values; {:.2} GiB are free",
            gib(sizes.stored),
            gib(pages),
            gib(free)
        );
    }
    positions
}

/// A model that answers.
pub struct Loaded {
    /// It computes as long as this lives.
    pub engine: Engine,
    /// The server's side of it.
    pub served: Served,
    /// What it is made of, as `inspect --json` prints it.
    pub anatomy: Value,
}

/// Loads the model and starts its engine; `progress` is told the share of the weights that has been read.
pub fn load(settings: &Settings, progress: &Progress<'_>) -> Result<Loaded> {
    let opened = model::open(&settings.model, settings.tokenizer.as_deref())?;
    let tokenizer = opened.tokenizer()?;
    let (whole, base, eos) = (opened.context_len(), !opened.is_instruct(), opened.eos());
    let context_len = settings.context_len.unwrap_or(CONTEXT).min(whole);
    if let Some(asked) = settings.context_len.filter(|asked| *asked > whole) {
        eprintln!("note: --context-len {asked} is more than the model's context; texts have up to {whole} tokens");
    }
    let device = Device::choose(&settings.common)?;
    let kv_tokens = kv_tokens(settings, opened.sizes(settings.kv_kind), context_len, device.free_memory());
    let max_batch_tokens = 512.max(2 * settings.parallel);
    let step = StepOptions {
        context_len,
        kv_tokens,
        kv_kind: settings.kv_kind,
        max_seqs: settings.parallel,
        max_batch_tokens,
        max_logit_rows: max_batch_tokens.min(settings.parallel + 128),
    };
    let options = EngineOptions {
        max_running: settings.parallel,
        max_queue: settings.queue,
        limits: RequestLimits::default(),
        eos,
        vocab_size: Some(tokenizer.vocab_size()),
    };
    let bytes = opened.token_bytes();
    let (files, at) = opened.files();
    let anatomy = inspect::document_of(files, at, &settings.model)?;
    let engine = Engine::start(opened.load_watched(device, step, settings.invariance, progress)?, bytes, options)?;
    let path = &settings.model;
    let facts = json!({"path": path.display().to_string(), "model_context": whole, "kv_tokens": step.kv_tokens});
    let served = Served::new(settings.served_name(), engine.handle(), tokenizer, base, facts);
    let served = served.with_lookup(settings.lookup);
    let served = settings.seed.into_iter().fold(served, Served::with_seed);
    Ok(Loaded { engine, served, anatomy })
}
