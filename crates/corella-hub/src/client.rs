//! Fetching the hub's files into the cache.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ureq::Agent;

use crate::address::quote;
use crate::cache::{RepoCache, is_commit, stays_inside};
use crate::download::{Transferred, fetch};
use crate::{HubError, HubName, Listing, Notice, RemoteFile, RepoKind, Settings, http, room};

/// Who hears of notices.
type Listener = Arc<dyn Fn(Notice<'_>) + Send + Sync>;

/// Fetches from the hub into the cache. Cheap to clone.
#[derive(Clone)]
pub struct HubClient {
    pub(crate) agent: Agent,
    pub(crate) settings: Settings,
    listener: Option<Listener>,
}

impl fmt::Debug for HubClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl HubClient {
    /// A client for these settings.
    pub fn new(settings: Settings) -> HubClient {
        HubClient { agent: http::agent(settings.roots.as_ref()), settings, listener: None }
    }

    /// A client for the usual variables: see [`Settings`].
    pub fn from_env() -> Result<HubClient, HubError> {
        Ok(HubClient::new(Settings::from_env()?))
    }

    /// Has notices told to `listener`; without one nobody hears of them.
    pub fn on_notice(mut self, listener: impl Fn(Notice<'_>) + Send + Sync + 'static) -> HubClient {
        self.listener = Some(Arc::new(listener));
        self
    }

    pub(crate) fn say(&self, notice: Notice<'_>) {
        if let Some(listener) = &self.listener {
            listener(notice);
        }
    }

    /// What the client was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Fetches what the cache lacks of a listing's files; returns where they lie, in their order.
    ///
    /// Only then the cache notes that the revision names this commit: until everything is there, the commit that it named
    /// before is what can be had without a network. `progress` is told the place of the file in the listing.
    pub fn fetch(
        &self,
        name: &HubName,
        listing: &Listing,
        progress: &mut dyn FnMut(usize, Transferred<'_>),
    ) -> Result<Vec<PathBuf>, HubError> {
        if !self.settings.offline {
            room::check(&self.cache(name), &listing.commit, &listing.files)?;
        }
        let mut fetched = Vec::with_capacity(listing.files.len());
        for (i, file) in listing.files.iter().enumerate() {
            fetched.push(self.download(name, &listing.commit, file, &mut |done| progress(i, done))?);
        }
        if !self.settings.offline && listing.unreachable.is_none() {
            // What was asked for is there all the same.
            if let Err(why) = self.cache(name).remember(name.revision(), &listing.commit) {
                self.say(Notice::NotRemembered { why: &why });
            }
        }
        Ok(fetched)
    }

    /// Fetches one file of a listing unless the cache has it; returns where it lies.
    ///
    /// An interrupted download goes on where it stopped, in this call after a broken connection, and in the next run.
    /// Size and, for large files, SHA-256 are checked; of a file in the cache the size. `progress` is called after each piece.
    pub fn download(
        &self,
        name: &HubName,
        commit: &str,
        file: &RemoteFile,
        progress: &mut dyn FnMut(Transferred<'_>),
    ) -> Result<PathBuf, HubError> {
        let path = &file.path;
        let url = self.resolve_url(name, commit, path);
        if !is_commit(commit) || !stays_inside(path) {
            return Err(HubError::BadAnswer { url, what: format!("{commit}/{path} is not a file of a commit") });
        }
        let cache = self.cache(name);
        if cache.holds(commit, file) {
            return Ok(cache.snapshot(commit).join(path));
        }
        if self.settings.offline {
            return Err(HubError::Offline(format!("{name} {path}")));
        }
        let blob = fetch(self, &cache, &url, path, progress)?;
        cache.link(commit, path, &blob)
    }

    /// The folder in the cache that holds the downloaded files of a commit under their names.
    pub fn snapshot(&self, name: &HubName, commit: &str) -> PathBuf {
        self.cache(name).snapshot(commit)
    }

    pub(crate) fn cache(&self, name: &HubName) -> RepoCache {
        RepoCache::new(&self.settings.cache, name)
    }

    fn resolve_url(&self, name: &HubName, commit: &str, file: &str) -> String {
        let kind = if name.kind() == RepoKind::Dataset { "datasets/" } else { "" };
        format!("{}/{kind}{}/resolve/{commit}/{}", self.settings.endpoint, name.id(), quote(file, true))
    }
}
