//! `corella serve`: the completions server and the playground, on one model.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use corella_infer::{Engine, EngineOptions, RequestLimits, TokenBytes};
use corella_model::{KvKind, StepOptions};
use corella_server::{Access, App, ListenOptions, Loading, Served, Shutdown, Transcript};
use serde_json::json;

use crate::cli::{Common, KvType};
use crate::error::{Failure, Result};
use crate::model;
use crate::playground;

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A run folder, a Hugging Face folder, or a model file
    pub model: PathBuf,
    /// How to listen
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Most tokens of a text [default: the model's context, at most 8192]
    #[arg(long)]
    pub context_len: Option<usize>,
    /// Tokens of keys and values kept, all texts together [default: eight contexts]
    #[arg(long)]
    pub kv_tokens: Option<usize>,
    /// Number type of cached keys and values
    #[arg(long, value_enum, default_value_t = KvType::F16)]
    pub kv_type: KvType,
    /// Continuations computed at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub parallel: u16,
    /// Requests that may wait; more are answered with 429
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub queue: u32,
    /// Name under which the model is offered [default: the folder's or file's]
    #[arg(long)]
    pub name: Option<String>,
    /// A TOML file with `preamble`, `human` and `assistant`: the transcript behind /v1/chat/completions
    #[arg(long)]
    pub transcript: Option<PathBuf>,
    /// Tokenizer for a model file that carries none: `gpt2` or a tokenizer file
    #[arg(long)]
    pub tokenizer: Option<String>,
}

/// Flags of everything that listens.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// A key that requests must carry (may be given several times; also CORELLA_API_KEY)
    #[arg(long, env = "CORELLA_API_KEY", hide_env_values = true, value_delimiter = ',')]
    pub api_key: Vec<String>,
    /// Listen on an address that other machines reach although there is no key
    #[arg(long)]
    pub allow_exposed: bool,
    /// Answer under this host name too (may be given several times)
    #[arg(long)]
    pub allow_host: Vec<String>,
    /// Let pages of this origin read answers, e.g. <https://example.org> (may be given several times)
    #[arg(long)]
    pub cors_origin: Vec<String>,
    /// Seconds that requests under way have to finish when the server is told to stop
    #[arg(long, default_value_t = 30)]
    pub drain_seconds: u64,
}

impl ListenArgs {
    fn access(&self) -> Result<Access> {
        if self.api_key.iter().any(|key| key.trim().is_empty()) {
            return Err(Failure::usage("an empty API key").hint("unset CORELLA_API_KEY, or give a key"));
        }
        // On this machine alone only its own names are answered; elsewhere any name may be right unless some are listed.
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let hosts = match (self.host.is_loopback(), self.allow_host.is_empty()) {
            (true, _) => own.into_iter().chain(self.allow_host.clone()).collect(),
            (false, true) => Vec::new(),
            (false, false) => self.allow_host.clone(),
        };
        Ok(Access { keys: self.api_key.clone(), hosts, origins: self.cors_origin.clone() })
    }

    fn options(&self) -> ListenOptions {
        ListenOptions {
            address: SocketAddr::new(self.host, self.port),
            allow_exposed: self.allow_exposed,
            drain: Duration::from_secs(self.drain_seconds),
        }
    }
}

/// Runs the command.
pub fn run(args: &ServeArgs, common: &Common) -> Result<()> {
    let transcript = transcript(args.transcript.as_deref())?;
    let run = args.model.join("run.toml").is_file().then(|| args.model.clone());
    let app = App::new(args.listen.access()?, transcript, run);
    let (shutdown, stopped) = Shutdown::new();
    let mut signals = 0;
    ctrlc::set_handler(move || {
        signals += 1;
        if signals > 1 {
            std::process::exit(130);
        }
        eprintln!("finishing what is under way (again: stop at once)");
        shutdown.now();
    })
    .map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
    let settings = Settings::new(args, common);
    let loader = load_aside(&app, settings);
    let json = common.json;
    corella_server::serve(app, &args.listen.options(), stopped, |address| announce(address, json)).map_err(explain)?;
    // The engine has been told to take no more; what is still under way after the time to drain is given up.
    drop(loader.join());
    Ok(())
}

/// Prints where the server listens, in a form that scripts can wait for.
fn announce(address: SocketAddr, json: bool) {
    if json {
        println!("{}", json!({"address": address.to_string()}));
    } else {
        println!("playground: http://{address}/\ncompletions: http://{address}/v1/completions");
    }
}

fn explain(error: corella_server::ServeError) -> Failure {
    use corella_server::ServeError::{Exposed, Listen, Runtime};
    match error {
        Exposed(_) => Failure::usage(error).hint("give --api-key KEY, or --allow-exposed if everyone may use it"),
        Listen { .. } => {
            Failure::new(error).hint("choose another --port (0 takes a free one), or stop what listens there")
        }
        Runtime(_) => Failure::new(error),
    }
}

fn transcript(path: Option<&Path>) -> Result<Transcript> {
    let Some(path) = path else { return Ok(Transcript::default()) };
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| Failure::new(format!("{name}: {e}")))?;
    toml::from_str(&text).map_err(|e| {
        Failure::new(format!("{name}: {e}")).hint("it needs `preamble`, `human` and `assistant`, each a string")
    })
}

/// What loading needs, owned by its thread.
pub struct Settings {
    model: PathBuf,
    tokenizer: Option<String>,
    name: Option<String>,
    context_len: Option<usize>,
    kv_tokens: Option<usize>,
    kv_kind: KvKind,
    parallel: usize,
    queue: usize,
    common: Common,
}

impl Settings {
    fn new(args: &ServeArgs, common: &Common) -> Settings {
        Settings {
            model: args.model.clone(),
            tokenizer: args.tokenizer.clone(),
            name: args.name.clone(),
            context_len: args.context_len,
            kv_tokens: args.kv_tokens,
            kv_kind: match args.kv_type {
                KvType::F16 => KvKind::F16,
                KvType::Bf16 => KvKind::Bf16,
                KvType::Q8 => KvKind::Q8,
            },
            parallel: args.parallel.into(),
            queue: args.queue as usize,
            common: common.clone(),
        }
    }
}

/// Loads the model while the server already answers /health. The thread's result keeps the engine alive.
fn load_aside(app: &Arc<App>, settings: Settings) -> JoinHandle<Option<Engine>> {
    let app = app.clone();
    std::thread::spawn(move || match load(&settings) {
        Ok((engine, served)) => {
            app.ready(served, playground::extras(&settings.model));
            if !settings.common.json {
                println!("ready");
            }
            Some(engine)
        }
        Err(failure) => {
            eprintln!("{failure}");
            app.loading(Loading::Failed(failure.to_string()));
            None
        }
    })
}

/// Longest context that is planned for when nothing is said.
const CONTEXT: usize = 8192;

fn load(settings: &Settings) -> Result<(Engine, Served)> {
    let opened = model::open(&settings.model, settings.tokenizer.as_deref())?;
    let tokenizer = opened.tokenizer.clone();
    let (whole, base, eos) = (opened.context_len(), !opened.is_instruct(), opened.eos());
    let context_len = settings.context_len.unwrap_or(CONTEXT).min(whole);
    let max_batch_tokens = 512.max(2 * settings.parallel);
    let step = StepOptions {
        context_len,
        kv_tokens: settings.kv_tokens.unwrap_or(8 * context_len).max(context_len),
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
    let for_engine = tokenizer.clone();
    let bytes: TokenBytes = Arc::new(move |id| for_engine.token_bytes(id).to_vec());
    let engine = Engine::start(opened.load(&settings.common, step)?, bytes, options)?;
    let path = &settings.model;
    let name =
        settings.name.clone().unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    let facts = json!({"path": path.display().to_string(), "model_context": whole, "kv_tokens": step.kv_tokens});
    let served = Served::new(name, engine.handle(), tokenizer, base, facts);
    Ok((engine, served))
}
