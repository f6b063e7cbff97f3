//! A site on this machine: the live page of a run while the run goes on, the playground once there is a model.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use corella_server::{Access, App, Extras, ListenOptions, Loading, RunFiles, ServeError, Shutdown, Transcript};
use corella_train::{folder, heartbeat};
use serde_json::json;

use crate::commands::serve::{Loaded, Settings, load};
use crate::error::{Failure, Result};
use crate::playground;
use crate::signals::{end_at_once, on_stop};

/// Where a site is if nothing is said.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PORT: u16 = 8080;
/// The variable that holds keys.
const KEYS: &str = "CORELLA_API_KEY";

/// What to do where a server cannot start: the ways out differ with the flags that there are.
#[derive(Clone, Copy, Debug)]
struct WaysOut {
    exposed: &'static str,
    taken: &'static str,
}

/// Of `corella serve`.
const OF_SERVE: WaysOut = WaysOut {
    exposed: "give --api-key KEY, or --allow-exposed if everyone may use it",
    taken: "choose another --port (0 takes a free one), or stop what listens there",
};
/// Of `--serve=ADDRESS` beside other work.
const OF_RUN: WaysOut = WaysOut {
    exposed: "set the environment variable CORELLA_API_KEY to a key that requests must carry, or listen on 127.0.0.1",
    taken: "choose another port with --serve=ADDRESS:PORT (0 takes a free one), or stop what listens there",
};

/// Flags of everything that listens.
#[derive(Clone, Debug, Args)]
pub struct ListenArgs {
    /// Address to listen on, or a name of this machine
    #[arg(long, default_value_t = HOST, value_parser = host)]
    pub host: IpAddr,
    /// Port; 0 takes a free one
    #[arg(long, default_value_t = PORT)]
    pub port: u16,
    /// A key that requests must carry (may be given several times; also CORELLA_API_KEY, where commas stand between keys)
    #[arg(long)]
    pub api_key: Vec<String>,
    /// Listen on an address that other machines reach although there is no key
    #[arg(long)]
    pub allow_exposed: bool,
    /// Answer under this host name too (may be given several times)
    #[arg(long)]
    pub allow_host: Vec<String>,
    /// Let pages of this origin ask and read answers, e.g. <https://example.org> (may be given several times; `*`: all)
    #[arg(long)]
    pub cors_origin: Vec<String>,
    /// Seconds that requests under way have to finish when the server is told to stop
    #[arg(long, default_value_t = 30)]
    pub drain_seconds: u64,
    /// Write a line for each request to stderr: who, what, status, bytes, time
    #[arg(long)]
    pub log_requests: bool,
}

/// The keys in the environment, where a list can only be one text: commas stand between them. None where there is no variable.
fn keys_of_environment() -> Option<Vec<String>> {
    // What is no text becomes a key that is refused.
    let keys = std::env::var_os(KEYS)?.to_string_lossy().into_owned();
    Some(keys.split(',').map(str::to_owned).collect())
}

impl ListenArgs {
    /// What `--serve=ADDRESS` stands for: the same with everything else as it is by default.
    fn at(address: SocketAddr) -> ListenArgs {
        let mut keys = keys_of_environment().unwrap_or_default();
        keys.retain(|key| !key.trim().is_empty());
        ListenArgs {
            host: address.ip(),
            port: address.port(),
            api_key: keys,
            allow_exposed: false,
            allow_host: Vec::new(),
            cors_origin: Vec::new(),
            drain_seconds: 5,
            log_requests: false,
        }
    }

    /// The same with the keys of the environment where none is given by flag.
    fn with_keys_of_environment(&self) -> ListenArgs {
        let mut listen = self.clone();
        if listen.api_key.is_empty() {
            listen.api_key = keys_of_environment().unwrap_or_default();
        }
        listen
    }

    fn access(&self) -> Result<Access> {
        // Requests carry a key in a header, without the space around it.
        let keys: Vec<String> = self.api_key.iter().map(|key| key.trim().to_owned()).collect();
        if keys.iter().any(String::is_empty) {
            return Err(Failure::usage("an empty API key").hint("unset CORELLA_API_KEY, or give a key"));
        }
        if keys.iter().any(|key| key.bytes().any(|byte| !(b' '..=b'~').contains(&byte))) {
            let message = "an API key with characters that no request can carry";
            return Err(Failure::usage(message).hint("a key has letters, digits and signs of ASCII only"));
        }
        if let Some(wrong) = self.allow_host.iter().find(|name| !is_host(name)) {
            return Err(Failure::usage(format!("--allow-host {wrong:?} is no host name"))
                .hint("give the name alone, as in --allow-host models.example.org: no scheme, port or path"));
        }
        let origin = |text: &String| {
            as_sent(text).ok_or_else(|| {
                Failure::usage(format!("--cors-origin {text:?} is no origin"))
                    .hint("give scheme and host (in ASCII, as browsers send it), and the port where it is not the usual one, as in --cors-origin https://example.org; `*`: all")
            })
        };
        let origins = self.cors_origin.iter().map(origin).collect::<Result<_>>()?;
        Ok(Access { keys, hosts: self.hosts(), origins })
    }

    /// On this machine alone only its own names are answered; elsewhere any name may be right unless some are listed.
    fn hosts(&self) -> Vec<String> {
        if !self.host.is_loopback() {
            return self.allow_host.clone();
        }
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        // Where it listens at another of its addresses, that is what it announces.
        let here = match self.host {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        own.into_iter().chain([here]).chain(self.allow_host.clone()).collect()
    }

    fn options(&self) -> ListenOptions {
        ListenOptions {
            address: SocketAddr::new(self.host, self.port),
            allow_exposed: self.allow_exposed,
            drain: Duration::from_secs(self.drain_seconds),
        }
    }
}

/// An address, or the first address of a name, of the older kind where it has both.
fn host(text: &str) -> std::result::Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found =
        (text, 0).to_socket_addrs().map_err(|error| format!("no address, and no name that has one: {error}"))?;
    let found: Vec<IpAddr> = found.map(|found| found.ip()).collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| "the name has no address".to_owned())
}

/// Whether requests can come under this name: a host's name, or an IPv6 address in brackets, without a port.
fn is_host(name: &str) -> bool {
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-._".contains(c)),
    }
}

/// An origin as a browser sends it, if it may be one: `scheme://host`, perhaps a port, and nothing behind it. Browsers write
/// scheme and host in small letters, and no port that is the scheme's usual one.
fn as_sent(origin: &str) -> Option<String> {
    if origin == "*" || origin == "null" {
        return Some(origin.to_owned());
    }
    let (scheme, place) = origin.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (host, port) = match place.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (place, None),
    };
    let named = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !named || !host.is_ascii() || !is_host(host) {
        return None;
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => format!("[{}]", address.parse::<std::net::Ipv6Addr>().ok()?),
        None => host.to_ascii_lowercase(),
    };
    let usual = matches!((&*scheme, port), ("http", Some(80)) | ("https", Some(443)));
    let port = port.filter(|_| !usual).map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{host}{port}"))
}

/// How a server has ended: with so many requests cut off, or not begun.
type Served = std::result::Result<usize, ServeError>;

/// A server on a thread of its own.
pub struct Site {
    app: Arc<App>,
    address: SocketAddr,
    shutdown: Arc<Shutdown>,
    server: JoinHandle<Served>,
    ways_out: WaysOut,
}

/// What the live page shows of the run in `dir`.
fn files_of(dir: &Path) -> RunFiles {
    RunFiles {
        plan: dir.join(folder::PLAN),
        log: dir.join(folder::LOG),
        samples: dir.join(folder::SAMPLES),
        heartbeat: dir.join(heartbeat::FILE),
    }
}

/// Whether a site of a run can be at `address`. Asked before the work begins, which may take long until it needs the site.
pub fn check(address: SocketAddr) -> Result<()> {
    let listen = ListenArgs::at(address);
    listen.options().check(&listen.access()?).map_err(|error| explain(error, OF_RUN))?;
    let bound = TcpListener::bind(address);
    bound.map(drop).map_err(|source| explain(ServeError::Listen { address, source }, OF_RUN))
}

impl Site {
    /// Starts to listen. `run` is the folder whose log the live page follows.
    pub fn start(listen: &ListenArgs, transcript: Transcript, run: Option<PathBuf>) -> Result<Site> {
        Site::begin(&listen.with_keys_of_environment(), transcript, run, OF_SERVE)
    }

    fn begin(listen: &ListenArgs, transcript: Transcript, run: Option<PathBuf>, ways_out: WaysOut) -> Result<Site> {
        let app = App::new(listen.access()?, transcript, run.as_deref().map(files_of), listen.log_requests);
        let (shutdown, stopped) = Shutdown::new();
        let (send, bound) = mpsc::channel();
        let (for_server, options) = (app.clone(), listen.options());
        let server = std::thread::spawn(move || {
            corella_server::serve(for_server, &options, stopped, |address| {
                // Whoever started it waits for this.
                let _ = send.send(address);
            })
        });
        match bound.recv() {
            Ok(address) => Ok(Site { app, address, shutdown: Arc::new(shutdown), server, ways_out }),
            Err(_) => Err(ended(server, ways_out).err().unwrap_or_else(|| Failure::new("the server ended at once"))),
        }
    }

    /// Starts a site for the run in `run`: at `address`, or, where none is named, at the usual one or any free port.
    pub fn of_run(address: Option<SocketAddr>, run: &Path) -> Result<Site> {
        let start = |at| Site::begin(&ListenArgs::at(at), Transcript::default(), Some(run.to_path_buf()), OF_RUN);
        let site = match address {
            Some(address) => start(address),
            None => start((HOST, PORT).into()).or_else(|_| start((HOST, 0).into())),
        }?;
        site.app.loading(Loading::Busy { what: "training begins".to_owned(), share: None });
        Ok(site)
    }

    /// Prints where the site is, in a form that scripts can wait for.
    pub fn announce(&self, json: bool, what: &[(&str, &str)]) {
        if json {
            println!("{}", json!({"address": self.address.to_string()}));
        } else {
            what.iter().for_each(|(name, path)| println!("{name}: http://{}/{path}", self.address));
        }
    }

    /// For those who tell the site how far things are.
    pub fn app(&self) -> Arc<App> {
        self.app.clone()
    }

    /// Loads the model while the site already answers /health, and serves it until the program is told to stop. Where the model
    /// cannot be loaded the site ends with the reason, unless it follows a run: that is still worth looking at.
    pub fn serve(self, settings: &Settings) -> Result<()> {
        let shutdown = self.shutdown.clone();
        let (send, news) = mpsc::channel();
        let stopped = send.clone();
        let mut signals = 0;
        on_stop(move || {
            signals += 1;
            if signals > 1 {
                end_at_once();
            }
            eprintln!("finishing what is under way (again: stop at once)");
            shutdown.now();
            // Nobody listens any more where the model is there.
            let _ = stopped.send(News::Stop);
        })?;
        // On a thread of its own, so that whoever stops the program meanwhile waits for no model: the thread ends with it.
        let (app, for_loading) = (self.app(), settings.clone());
        std::thread::spawn(move || {
            let loading =
                |share| app.loading(Loading::Busy { what: "loading the model".to_owned(), share: Some(share) });
            let loaded = catch_unwind(AssertUnwindSafe(|| load(&for_loading, &loading)));
            let outcome = loaded.unwrap_or_else(|_| Err(Failure::new("the model could not be loaded")));
            // Nobody listens any more where the program was told to stop.
            let _ = send.send(News::Loaded(Box::new(outcome)));
        });
        let outcome = match news.recv() {
            Ok(News::Loaded(outcome)) => *outcome,
            Ok(News::Stop) | Err(_) => return self.stop(),
        };
        // What is loaded stays until the server has ended: the engine stops when it is dropped.
        let engine = match outcome {
            Ok(Loaded { engine, served, anatomy }) => {
                self.app.loading(Loading::Busy { what: "preparing the playground".to_owned(), share: None });
                let (anatomy, peers) = (Some(anatomy), settings.peers().to_vec());
                let extras = Extras { anatomy, peers, ..playground::extras(settings.model()) };
                self.app.ready(served, extras);
                let shutdown = self.shutdown.clone();
                engine.when_it_fails(move || shutdown.now());
                if !settings.json() {
                    println!("ready");
                }
                Some(engine)
            }
            Err(failure) if self.app.run.is_none() => return self.stop().and(Err(failure)),
            Err(failure) => {
                eprintln!("{failure}");
                eprintln!(
                    "note: the run's page stays, completions are answered with 503 and this message; Ctrl-C ends it"
                );
                self.app.loading(Loading::Failed(failure.to_string()));
                None
            }
        };
        ended(self.server, self.ways_out)?;
        if engine.is_some_and(|engine| engine.has_failed()) {
            // What has no engine any more would answer that it is well: whoever started it is to know, and start it again.
            return Err(Failure::new("the engine failed, for the reason above").hint("start the server again"));
        }
        Ok(())
    }

    /// Ends the site.
    pub fn stop(self) -> Result<()> {
        self.shutdown.now();
        ended(self.server, self.ways_out)
    }
}

/// What ends the time of loading.
enum News {
    Loaded(Box<Result<Loaded>>),
    Stop,
}

/// Waits for the server's end.
fn ended(server: JoinHandle<Served>, ways_out: WaysOut) -> Result<()> {
    match server.join() {
        Ok(Ok(0)) => Ok(()),
        Ok(Ok(cut)) => {
            let requests = if cut == 1 { "1 request was" } else { &format!("{cut} requests were") };
            eprintln!("warning: {requests} cut off: they took longer than the time to finish (--drain-seconds)");
            Ok(())
        }
        Ok(Err(error)) => Err(explain(error, ways_out)),
        Err(_) => Err(Failure::new("the server failed")),
    }
}

fn explain(error: ServeError, ways_out: WaysOut) -> Failure {
    use ServeError::{Exposed, Listen, Runtime};
    match error {
        Exposed(_) => Failure::usage(error).hint(ways_out.exposed),
        Listen { .. } => Failure::new(error).hint(ways_out.taken),
        Runtime(_) => Failure::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> ListenArgs {
        ListenArgs { api_key: Vec::new(), ..ListenArgs::at(SocketAddr::new(host.parse().expect("an address"), 0)) }
    }

    #[test]
    fn a_server_answers_under_the_address_that_it_announces() {
        let hosts = |host| at(host).access().expect("access").hosts;
        assert!(hosts("127.0.0.2").contains(&"127.0.0.2".to_owned()));
        assert!(hosts("::1").contains(&"[::1]".to_owned()));
        assert!(hosts("0.0.0.0").is_empty(), "any name");
    }

    #[test]
    fn keys_have_no_space_around_them_and_are_such_as_a_header_can_carry() {
        let keys = |keys: &[&str]| {
            let api_key = keys.iter().map(|key| (*key).to_owned()).collect();
            ListenArgs { api_key, ..at("127.0.0.1") }.access().map(|access| access.keys)
        };
        assert_eq!(keys(&["a", " b", "c\r"]).expect("keys"), ["a", "b", "c"]);
        for wrong in ["", " ", "schlüssel", "a\u{7}b"] {
            assert!(keys(&[wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_may_have_a_comma_and_the_variable_separates_several() {
        use clap::Parser;
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            listen: ListenArgs,
        }
        let flags = |words: &[&str]| Flags::parse_from([&["x"], words].concat()).listen;
        assert_eq!(flags(&["--api-key", "a,longsecret", "--api-key", "b"]).api_key, ["a,longsecret", "b"]);
    }

    #[test]
    fn an_origin_is_compared_as_browsers_send_it() {
        let of = |origin: &str| {
            let listen = ListenArgs { cors_origin: vec![origin.to_owned()], ..at("127.0.0.1") };
            listen.access().map(|access| access.origins.concat())
        };
        for (given, sent) in [
            ("https://Example.ORG", "https://example.org"),
            ("HTTPS://b.example:443", "https://b.example"),
            ("http://b.example:443", "http://b.example:443"),
            ("http://[0:0::1]:80", "http://[::1]"),
            ("chrome-extension://abc", "chrome-extension://abc"),
            ("null", "null"),
            ("*", "*"),
        ] {
            assert_eq!(of(given).expect(given), sent);
        }
        for wrong in ["example.org", "https://bücher.example", "https://a.example/", "https://a.example:99999", "://a"]
        {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
