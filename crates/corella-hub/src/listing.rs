//! What a name stands for: the hub's list of a repository, or, where the hub cannot be reached, that of the cache.

use serde::Deserialize;

use crate::address::{quote, same_origin};
use crate::cache::{RepoCache, is_commit, stays_inside};
use crate::client::HubClient;
use crate::{HubError, HubName, RepoKind, record};

/// Most bytes of a listing.
const LISTING_BYTES: u64 = 256 << 20;
/// Most pages of a tree, which has a thousand files a page.
const TREE_PAGES: usize = 10_000;

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
    /// The files that were chosen.
    pub files: Vec<RemoteFile>,
    /// Why the hub could not be asked, where the listing is that of the cache instead; the cache then holds all files.
    pub unreachable: Option<String>,
}

/// What was chosen of a commit that the cache knows.
struct Kept {
    commit: String,
    files: Vec<RemoteFile>,
    /// How many of them it holds.
    have: usize,
    /// Whether the hub said what there is; else it is what lies in the folder.
    recorded: bool,
}

impl Kept {
    fn is_whole(&self) -> bool {
        self.have == self.files.len()
    }

    fn listing(self, unreachable: Option<String>) -> Listing {
        Listing { commit: self.commit, files: self.files, unreachable }
    }

    fn incomplete(&self, name: &HubName, why: Option<HubError>) -> HubError {
        HubError::Incomplete {
            name: name.to_string(),
            have: self.have,
            of: self.files.len(),
            source: why.map(Box::new),
        }
    }
}

impl HubClient {
    /// The files that a name selects, in the order of their paths; never none. See [`HubClient::choose`].
    pub fn list(&self, name: &HubName) -> Result<Listing, HubError> {
        self.list_wanted(name, |_| true)
    }

    /// Those of the files that a name selects that are `wanted`; never none. The others need not be in the cache.
    pub fn list_wanted(&self, name: &HubName, wanted: impl Fn(&RemoteFile) -> bool) -> Result<Listing, HubError> {
        self.choose(name, |all| {
            let selected = all.iter().filter(|f| name.selects(&f.path) && wanted(f));
            let mut files: Vec<RemoteFile> = selected.cloned().collect();
            if files.is_empty() {
                return Err(HubError::no_match(name, all));
            }
            files.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(files)
        })
    }

    /// The files that `choose` takes of all files of the name's repository.
    ///
    /// Where the hub cannot be reached, they are those of the commit that was fetched last, if the cache holds all of them. A
    /// cache that `huggingface_hub` has filled does not tell what else there was: of a model what is there is then taken as the
    /// whole if `choose` is content with it, of a data set it could be any part, and is taken only with `offline`.
    pub fn choose<E: From<HubError>>(
        &self,
        name: &HubName,
        choose: impl Fn(&[RemoteFile]) -> Result<Vec<RemoteFile>, E>,
    ) -> Result<Listing, E> {
        let cache = self.cache(name);
        let (mut whole, mut part, mut refused) = (None, None::<Kept>, None);
        for commit in cache.commits_of(name.revision()) {
            match kept(&cache, &commit, &choose) {
                Some(Ok(kept)) if kept.is_whole() => whole = whole.or(Some(kept)),
                Some(Ok(kept)) if kept.have > part.as_ref().map_or(0, |p| p.have) => part = Some(kept),
                Some(Err(error)) => refused = Some(error),
                _ => {}
            }
        }
        if self.settings.offline {
            return match (whole, part, refused) {
                (Some(whole), ..) => Ok(whole.listing(None)),
                (_, Some(part), _) => Err(part.incomplete(name, None).into()),
                (.., Some(refused)) => Err(refused),
                _ => Err(HubError::Offline(name.to_string()).into()),
            };
        }
        let whole = whole.filter(|kept| kept.recorded || name.kind() == RepoKind::Model);
        // With something to fall back on nobody waits for a network that is not there.
        let tries = if whole.is_some() { 1 } else { self.settings.tries };
        match (self.list_remote(name, tries), whole, part) {
            (Ok((commit, all)), ..) => {
                // A cache that cannot be written may still hold everything; if not, the download says what is wrong.
                let _ = record::write(&cache, &commit, &all);
                let _ = cache.remember_named(name.revision(), &commit);
                Ok(Listing { commit, files: choose(&all)?, unreachable: None })
            }
            (Err(error), Some(whole), _) if error.may_pass() => Ok(whole.listing(Some(error.to_string()))),
            (Err(error), _, Some(part)) if error.may_pass() => Err(part.incomplete(name, Some(error)).into()),
            (Err(error), ..) => Err(error.into()),
        }
    }

    fn list_remote(&self, name: &HubName, tries: u32) -> Result<(String, Vec<RemoteFile>), HubError> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Option<Vec<Sibling>>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
        }
        let (endpoint, plural) = (&self.settings.endpoint, name.kind().plural());
        let url =
            format!("{endpoint}/api/{plural}/{}/revision/{}?blobs=true", name.id(), quote(name.revision(), false));
        let (bytes, _) = self.get_whole(&url, tries, LISTING_BYTES)?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|e| no_listing(&url, &e))?;
        if !is_commit(&answer.sha) {
            return Err(HubError::BadAnswer { url, what: format!("sha {:?} is not a commit", answer.sha) });
        }
        let files = match answer.siblings {
            Some(siblings) => siblings.into_iter().map(|s| RemoteFile { path: s.rfilename, size: s.size }).collect(),
            None => self.list_tree(name, &answer.sha, tries)?,
        };
        if let Some(file) = files.iter().find(|file| !stays_inside(&file.path)) {
            let what = format!("the file name {:?} leads out of the repository", file.path);
            return Err(HubError::BadAnswer { url, what });
        }
        Ok((answer.sha, files))
    }

    /// The files of a commit page by page: of large repositories the hub does not name them otherwise.
    fn list_tree(&self, name: &HubName, commit: &str, tries: u32) -> Result<Vec<RemoteFile>, HubError> {
        #[derive(Deserialize)]
        struct Entry {
            #[serde(rename = "type")]
            kind: String,
            path: String,
            size: Option<u64>,
        }
        let (endpoint, plural) = (&self.settings.endpoint, name.kind().plural());
        let mut url = format!("{endpoint}/api/{plural}/{}/tree/{commit}?recursive=true", name.id());
        let mut files = Vec::new();
        for _ in 0..TREE_PAGES {
            let (bytes, next) = self.get_whole(&url, tries, LISTING_BYTES)?;
            let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|e| no_listing(&url, &e))?;
            let found = entries.into_iter().filter(|entry| entry.kind == "file");
            files.extend(found.map(|entry| RemoteFile { path: entry.path, size: entry.size }));
            match next {
                Some(next) if same_origin(&next, endpoint) => url = next,
                Some(next) => {
                    return Err(HubError::BadAnswer { url, what: format!("the next page is elsewhere: {next}") });
                }
                None => return Ok(files),
            }
        }
        Err(HubError::BadAnswer { url, what: format!("more than {TREE_PAGES} pages of files") })
    }
}

fn no_listing(url: &str, error: &serde_json::Error) -> HubError {
    HubError::BadAnswer { url: url.to_owned(), what: format!("not a listing: {error}") }
}

/// What is chosen of a commit, by what the cache knows of it. Nothing if it knows nothing; the chooser's own refusal only where
/// it has seen all that there is.
fn kept<E>(
    cache: &RepoCache,
    commit: &str,
    choose: impl Fn(&[RemoteFile]) -> Result<Vec<RemoteFile>, E>,
) -> Option<Result<Kept, E>> {
    let record = record::read(cache, commit);
    let recorded = record.is_some();
    let all = record.unwrap_or_else(|| cache.files(commit));
    match choose(&all) {
        Ok(files) if !files.is_empty() => {
            let have = files.iter().filter(|file| cache.holds(commit, file)).count();
            Some(Ok(Kept { commit: commit.to_owned(), files, have, recorded }))
        }
        Err(error) if recorded => Some(Err(error)),
        _ => None,
    }
}
