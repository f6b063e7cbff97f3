//! `hf://` names.

use std::fmt;
use std::str::FromStr;

use crate::HubError;

/// What every name on the hub begins with.
pub const PREFIX: &str = "hf://";

/// The two kinds of repository that Corella reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepoKind {
    /// `hf://OWNER/NAME`
    Model,
    /// `hf://datasets/OWNER/NAME`
    Dataset,
}

impl RepoKind {
    /// `models` or `datasets`: as the hub's interface and the cache's folders spell it.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        }
    }
}

/// `hf://[datasets/]OWNER/NAME[@REVISION][/PATH]`, PATH being a file, a folder, or a pattern with `*`, `?`, `**`, `[…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    kind: RepoKind,
    id: String,
    revision: String,
    path: Option<String>,
}

impl HubName {
    /// Model or data set.
    pub fn kind(&self) -> RepoKind {
        self.kind
    }

    /// `OWNER/NAME`; old models have no owner.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Branch, tag or commit; `main` if none was named.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Which files are meant; all if `None`.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The name without its path.
    pub fn repository(&self) -> HubName {
        HubName { path: None, ..self.clone() }
    }

    /// Whether a file of the repository is meant.
    pub fn selects(&self, file: &str) -> bool {
        let Some(path) = &self.path else { return true };
        let below = file.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        below || glob::Pattern::new(path).is_ok_and(|p| p.matches_with(file, options))
    }
}

impl FromStr for HubName {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let bad = || HubError::BadName(text.to_owned());
        let rest = text.strip_prefix(PREFIX).ok_or_else(bad)?;
        let (kind, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => (RepoKind::Dataset, rest),
            None => (RepoKind::Model, rest.strip_prefix("models/").unwrap_or(rest)),
        };
        let slashes: Vec<usize> = rest.match_indices('/').map(|(at, _)| at).collect();
        // Old models such as hf://gpt2 have no owner; behind its revision the name has ended.
        let ownerless = slashes.first().is_none_or(|&slash| rest[..slash].contains('@'));
        let end = slashes.get(usize::from(!ownerless)).copied().unwrap_or(rest.len());
        let (id, mut path) = (&rest[..end], rest.get(end + 1..).filter(|p| !p.is_empty()));
        let (id, revision) = match id.split_once('@') {
            Some((id, "refs")) => {
                let (revision, rest) = reference(path.unwrap_or_default()).ok_or_else(bad)?;
                path = rest;
                (id, revision)
            }
            Some((id, revision)) => (id, revision.replace("%2F", "/")),
            None => (id, "main".to_owned()),
        };
        let word = |s: &str| {
            !s.is_empty()
                && !s.starts_with('.')
                && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let safe = |s: &str| !s.split('/').any(|p| p.is_empty() || p == "." || p == "..") && !s.contains('\\');
        if !id.split('/').all(word) || !safe(&revision) || path.is_some_and(|p| !safe(p.trim_end_matches('/'))) {
            return Err(bad());
        }
        let path = path.map(|p| p.trim_end_matches('/').to_owned());
        Ok(HubName { kind, id: id.to_owned(), revision, path })
    }
}

/// Takes the rest of a reference off what follows `refs/`: `pr/NUMBER` or `convert/NAME`, which `huggingface_hub` lets stand
/// unquoted too. Returns the whole reference and what is left.
fn reference(text: &str) -> Option<(String, Option<&str>)> {
    let mut parts = text.splitn(3, '/');
    let (kind, value) = (parts.next()?, parts.next()?);
    let known = match kind {
        "pr" => !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()),
        "convert" => !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
        _ => false,
    };
    known.then(|| (format!("refs/{kind}/{value}"), parts.next().filter(|p| !p.is_empty())))
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == RepoKind::Dataset { "datasets/" } else { "" };
        write!(f, "{PREFIX}{kind}{}", self.id)?;
        if self.revision != "main" {
            let alone = self.revision.strip_prefix("refs/").and_then(reference).is_some_and(|(_, rest)| rest.is_none());
            let revision = if alone { self.revision.clone() } else { self.revision.replace('/', "%2F") };
            write!(f, "@{revision}")?;
        }
        self.path.iter().try_for_each(|p| write!(f, "/{p}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{HubName, RepoKind};

    #[test]
    fn names_are_taken_apart_and_print_as_they_were() {
        for (text, kind, id, revision, path) in [
            ("hf://gpt2", RepoKind::Model, "gpt2", "main", None),
            ("hf://openai-community/gpt2@v1.0", RepoKind::Model, "openai-community/gpt2", "v1.0", None),
            ("hf://datasets/a/b.c/x/*.parquet", RepoKind::Dataset, "a/b.c", "main", Some("x/*.parquet")),
            ("hf://datasets/a/b@refs%2Fconvert/d", RepoKind::Dataset, "a/b", "refs/convert", Some("d")),
            ("hf://a/b@feature%2Fx", RepoKind::Model, "a/b", "feature/x", None),
            ("hf://a/b@refs/pr/1", RepoKind::Model, "a/b", "refs/pr/1", None),
            ("hf://gpt2@refs/pr/1/c.gguf", RepoKind::Model, "gpt2", "refs/pr/1", Some("c.gguf")),
            (
                "hf://datasets/a/b@refs/convert/parquet/c/*",
                RepoKind::Dataset,
                "a/b",
                "refs/convert/parquet",
                Some("c/*"),
            ),
        ] {
            let name: HubName = text.parse().expect(text);
            assert_eq!((name.kind(), name.id(), name.revision(), name.path()), (kind, id, revision, path));
            assert_eq!(name.to_string(), text);
        }
        let quoted: HubName = "hf://a/b@refs%2Fpr%2F1/c".parse().expect("a name");
        assert_eq!((quoted.revision(), quoted.path()), ("refs/pr/1", Some("c")));
    }

    #[test]
    fn what_could_leave_the_cache_or_the_repository_is_no_name() {
        for text in [
            "a/b",
            "hf://",
            "hf://datasets/",
            "hf://../b",
            "hf://a/..",
            "hf://a/b@../x",
            "hf://a/b@refs/x/1",
            "hf://a/b@refs/pr/..",
            "hf://a/b@refs",
            "hf://a/b/../../c",
            "hf://a/b?x=1",
            "hf://a b/c",
            "hf://a/b/c\\d",
        ] {
            assert!(text.parse::<HubName>().is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_folders_and_files_select() {
        let selects = |path: &str, file: &str| {
            format!("hf://datasets/a/b/{path}").parse::<HubName>().expect("a name").selects(file)
        };
        assert!(selects("train/*.parquet", "train/0.parquet") && !selects("train/*.parquet", "train/x/0.parquet"));
        assert!(selects("**/*.parquet", "train/x/0.parquet"));
        assert!(selects("train", "train/x/0.parquet") && !selects("train", "training/0.parquet"));
        assert!(selects("a_?.bin", "a_1.bin") && selects("a_1.bin", "a_1.bin") && !selects("a_1.bin", "a_1.bin.md"));
    }
}
