//! Asking the hub: what a repository holds, and for its files.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response};

use crate::cache::{RepoCache, is_commit, stays_inside};
use crate::download::{Transferred, fetch};
use crate::{HubError, HubName, RepoKind, Settings};

/// Longest wait that a server may ask for before the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Most bytes of a listing.
const LISTING_BYTES: u64 = 256 << 20;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path inside the repository.
    pub path: String,
    /// Size in bytes, where the hub says it.
    pub size: Option<u64>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit that the revision names now. Downloads name it, so that one set is never mixed from two commits.
    pub commit: String,
    /// The files that the name selects, in the order of their paths; never empty.
    pub files: Vec<RemoteFile>,
    /// Why the hub could not be asked, where the listing is that of the cache instead.
    pub unreachable: Option<String>,
}

/// Fetches from the hub into the cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HubClient {
    pub(crate) agent: Agent,
    pub(crate) settings: Settings,
}

impl HubClient {
    /// A client for these settings.
    pub fn new(settings: Settings) -> HubClient {
        let agent = Agent::config_builder()
            .user_agent(concat!("corella/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // The token stays with the hub: the store that a redirect names has its own signature in the address.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        HubClient { agent, settings }
    }

    /// A client for the usual variables: see [`Settings`].
    pub fn from_env() -> Result<HubClient, HubError> {
        Ok(HubClient::new(Settings::from_env()))
    }

    /// The files that a name selects. Where the hub cannot be reached, those of a model are the ones that the cache holds of
    /// the commit that its revision named last; of a data set a part would be taken for all of it.
    pub fn list(&self, name: &HubName) -> Result<Listing, HubError> {
        let cache = self.cache(name);
        let mut unreachable = None;
        let (commit, mut files) = if self.settings.offline {
            self.list_cached(name, &cache)?
        } else {
            let kept = self.list_cached(name, &cache).ok();
            let kept = kept.filter(|(_, files)| name.kind() == RepoKind::Model && !files.is_empty());
            // With something to fall back on nobody waits for a network that is not there.
            let tries = if kept.is_some() { 1 } else { self.settings.tries };
            match (self.list_remote(name, tries), kept) {
                (Err(error), Some(kept)) if error.may_pass() => {
                    unreachable = Some(error.to_string());
                    kept
                }
                (asked, _) => asked?,
            }
        };
        let all = files.len();
        let examples: Vec<String> = files.iter().take(5).map(|f| f.path.clone()).collect();
        files.retain(|f| name.selects(&f.path));
        if files.is_empty() {
            let more = if all > examples.len() { ", …" } else { "" };
            let examples =
                if all == 0 { "no files".to_owned() } else { format!("{all}: {}{more}", examples.join(", ")) };
            return Err(HubError::NoMatch { name: name.to_string(), examples });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        if !self.settings.offline && unreachable.is_none() {
            cache.remember(name.revision(), &commit)?;
        }
        Ok(Listing { commit, files, unreachable })
    }

    /// Fetches one file of a listing unless the cache has it; returns where it lies.
    ///
    /// An interrupted download goes on where it stopped, in this call after a broken connection, and in the next run.
    /// Size and, for large files, SHA-256 are checked. `progress` is called after each piece.
    pub fn download(
        &self,
        name: &HubName,
        commit: &str,
        file: &str,
        progress: &mut dyn FnMut(Transferred<'_>),
    ) -> Result<PathBuf, HubError> {
        let url = self.resolve_url(name, commit, file);
        if !is_commit(commit) || !stays_inside(file) {
            return Err(HubError::BadAnswer { url, what: format!("{commit}/{file} is not a file of a commit") });
        }
        let cache = self.cache(name);
        let local = cache.snapshot(commit).join(file);
        if local.is_file() {
            return Ok(local);
        }
        if self.settings.offline {
            return Err(HubError::Offline(format!("{name} {file}")));
        }
        let blob = fetch(self, &cache, &url, file, progress)?;
        cache.link(commit, file, &blob)
    }

    /// The folder in the cache that holds the downloaded files of a commit under their names.
    pub fn snapshot(&self, name: &HubName, commit: &str) -> PathBuf {
        self.cache(name).snapshot(commit)
    }

    fn cache(&self, name: &HubName) -> RepoCache {
        RepoCache::new(&self.settings.cache, name)
    }

    fn list_cached(&self, name: &HubName, cache: &RepoCache) -> Result<(String, Vec<RemoteFile>), HubError> {
        let commit =
            cache.commit_of(name.revision()).ok_or_else(|| HubError::Offline(format!("{name} (any file of it)")))?;
        let files = cache.files(&commit).into_iter().map(|(path, size)| RemoteFile { path, size: Some(size) });
        Ok((commit, files.collect()))
    }

    fn list_remote(&self, name: &HubName, tries: u32) -> Result<(String, Vec<RemoteFile>), HubError> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
        }
        let (endpoint, plural) = (&self.settings.endpoint, name.kind().plural());
        let url =
            format!("{endpoint}/api/{plural}/{}/revision/{}?blobs=true", name.id(), quote(name.revision(), false));
        let mut response = self.ask(&url, tries, || self.get(&url, &[]))?;
        let bad = |what: String| HubError::BadAnswer { url: url.clone(), what };
        let bytes =
            response.body_mut().with_config().limit(LISTING_BYTES).read_to_vec().map_err(|e| bad(e.to_string()))?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|e| bad(format!("not a listing: {e}")))?;
        if !is_commit(&answer.sha) {
            return Err(bad(format!("sha {:?} is not a commit", answer.sha)));
        }
        if let Some(file) = answer.siblings.iter().find(|s| !stays_inside(&s.rfilename)) {
            return Err(bad(format!("the file name {:?} leads out of the repository", file.rfilename)));
        }
        let files = answer.siblings.into_iter().map(|s| RemoteFile { path: s.rfilename, size: s.size });
        Ok((answer.sha, files.collect()))
    }

    fn resolve_url(&self, name: &HubName, commit: &str, file: &str) -> String {
        let kind = if name.kind() == RepoKind::Dataset { "datasets/" } else { "" };
        format!("{}/{kind}{}/resolve/{commit}/{}", self.settings.endpoint, name.id(), quote(file, true))
    }

    /// GET, with the token where the address is the hub's own.
    pub(crate) fn get(&self, url: &str, headers: &[(&str, String)]) -> Result<Response<ureq::Body>, Box<ureq::Error>> {
        let mut request = self.agent.get(url).header("accept-encoding", "identity");
        if let Some(token) = self.token_for(url) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.call().map_err(Box::new)
    }

    /// HEAD without following redirects: the hub's own answer describes the file.
    pub(crate) fn head(&self, url: &str) -> Result<Response<ureq::Body>, Box<ureq::Error>> {
        let mut request = self.agent.head(url).header("accept-encoding", "identity");
        if let Some(token) = self.token_for(url) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.config().max_redirects(0).build().call().map_err(Box::new)
    }

    fn token_for(&self, url: &str) -> Option<&str> {
        let own = url.strip_prefix(&self.settings.endpoint).is_some_and(|rest| rest.starts_with('/'));
        self.settings.token.as_deref().filter(|_| own)
    }

    /// Sends a request up to `tries` times, until it succeeds (or redirects, for HEAD), or fails for good.
    pub(crate) fn ask(
        &self,
        url: &str,
        tries: u32,
        send: impl Fn() -> Result<Response<ureq::Body>, Box<ureq::Error>>,
    ) -> Result<Response<ureq::Body>, HubError> {
        for attempt in 1.. {
            let last = attempt >= tries.max(1);
            match send() {
                Ok(response) => match response.status().as_u16() {
                    200..=399 | 416 => return Ok(response),
                    429 | 500 | 502 | 503 | 504 if !last => self.wait(attempt, Some(response.headers())),
                    _ => return Err(refusal(url, &response)),
                },
                Err(source) if last || !may_pass(&source) => {
                    return Err(HubError::Transport { url: url.to_owned(), source });
                }
                Err(_) => self.wait(attempt, None),
            }
        }
        unreachable!("the loop returns at the last attempt")
    }

    /// Waits before the next try: as long as the server asks, else longer each time.
    pub(crate) fn wait(&self, attempt: u32, headers: Option<&HeaderMap>) {
        let asked = headers.and_then(|h| h.get("retry-after")?.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let own = self.settings.first_wait.saturating_mul(1 << (attempt - 1).min(6));
        sleep(asked.unwrap_or(own).min(LONGEST_WAIT));
    }
}

/// Whether the same request may succeed a little later.
fn may_pass(error: &ureq::Error) -> bool {
    use ureq::Error::{BadUri, Http, RequireHttpsOnly, Tls, TooManyRedirects};
    !matches!(error, BadUri(_) | Http(_) | RequireHttpsOnly(_) | Tls(_) | TooManyRedirects)
}

fn refusal(url: &str, response: &Response<ureq::Body>) -> HubError {
    let code = response.headers().get("x-error-code").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let url = url.to_owned();
    match response.status().as_u16() {
        401 => HubError::Unauthorized { url, code },
        403 => HubError::Forbidden { url, code },
        404 => HubError::NotFound { url, code },
        429 => HubError::RateLimited { url },
        status => HubError::Status { url, status },
    }
}

/// Percent-encodes a path; the slashes stay if `slashes`.
fn quote(text: &str, slashes: bool) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => quoted.push(char::from(byte)),
            b'/' if slashes => quoted.push('/'),
            other => quoted.push_str(&format!("%{other:02X}")),
        }
    }
    quoted
}
