//! What can go wrong with the hub, and what to do about it.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::http::is_certificate;
use crate::{HubName, RemoteFile};

/// Most files that are named where none matches.
const EXAMPLES: usize = 5;

/// Why something could not be had from the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The text after `hf://` is not a name.
    #[error("{0} is not a name on the hub: hf://[datasets/]OWNER/NAME[@REVISION][/PATH]")]
    BadName(String),
    /// The hub wants to know who asks, or does not know the repository (it answers the same to strangers).
    #[error("{url}: the hub refuses without a login (401{})", detail(.code))]
    Unauthorized {
        /// What was asked for.
        url: String,
        /// The hub's own word for it.
        code: Option<String>,
    },
    /// The hub does not take the token.
    #[error("{url}: the hub refuses the token of {from} (401{})", detail(.code))]
    TokenRefused {
        /// What was asked for.
        url: String,
        /// The hub's own word for it.
        code: Option<String>,
        /// Variable or file that the token is from.
        from: String,
    },
    /// What should be a token cannot be sent as one.
    #[error("{from} holds no access token: there is a character in it that a token cannot have")]
    BadToken {
        /// Variable or file.
        from: String,
    },
    /// The certificates that are to be trusted cannot be read.
    #[error("{variable}={}: {what}", path.display())]
    BadRoots {
        /// Variable that names the file.
        variable: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The account may not read it.
    #[error("{url}: this account may not read it (403{})", detail(.code))]
    Forbidden {
        /// What was asked for.
        url: String,
        /// The hub's own word for it.
        code: Option<String>,
    },
    /// No such repository, revision or file.
    #[error("{url}: not found (404{})", detail(.code))]
    NotFound {
        /// What was asked for.
        url: String,
        /// The hub's own word for it.
        code: Option<String>,
    },
    /// Too many requests, also after waiting.
    #[error("{url}: too many requests (429)")]
    RateLimited {
        /// What was asked for.
        url: String,
    },
    /// Any other answer that is not a success.
    #[error("{url}: the server answers {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The server could not be reached, or the connection broke again and again.
    #[error("{url}: {source}")]
    Transport {
        /// What was asked for.
        url: String,
        /// What the client says.
        source: Box<ureq::Error>,
    },
    /// The server's answer makes no sense.
    #[error("{url}: {what}")]
    BadAnswer {
        /// What was asked for.
        url: String,
        /// Field, what was found, what is allowed.
        what: String,
    },
    /// A file arrived whole, but is not what the hub describes.
    #[error("{path}: {what}; the download was removed")]
    Corrupt {
        /// File on the hub.
        path: String,
        /// What differs.
        what: String,
    },
    /// `HF_HUB_OFFLINE` is set and the cache does not hold it.
    #[error("{0} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it")]
    Offline(String),
    /// The cache holds a part of what is wanted, and the rest cannot be had.
    #[error("only {have} of the {of} files that {name} needs are cached, and {}", no_more(.source))]
    Incomplete {
        /// What was asked for.
        name: String,
        /// Files in the cache.
        have: usize,
        /// Files that are wanted.
        of: usize,
        /// Why the hub could not be asked; none if `HF_HUB_OFFLINE` forbids it.
        source: Option<Box<HubError>>,
    },
    /// Nothing in the repository matches.
    #[error("{name}: no file matches; it has {examples}")]
    NoMatch {
        /// What was asked for.
        name: String,
        /// Some that there are.
        examples: String,
    },
    /// What is to be fetched is more than the disk has room for.
    #[error("{:.2} GB are to be fetched, and {:.2} GB are free in {}", gb(.needed), gb(.free), folder.display())]
    NoRoom {
        /// The cache, or the folder that it will lie in.
        folder: PathBuf,
        /// Bytes that the cache lacks.
        needed: u64,
        /// Bytes that may still be written there.
        free: u64,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn detail(code: &Option<String>) -> String {
    code.as_ref().map(|c| format!(", {c}")).unwrap_or_default()
}

/// How many files there are, and the first of them.
fn examples(all: &[RemoteFile]) -> String {
    if all.is_empty() {
        return "no files".to_owned();
    }
    let first: Vec<&str> = all.iter().take(EXAMPLES).map(|f| &f.path[..]).collect();
    format!("{}: {}{}", all.len(), first.join(", "), if all.len() > EXAMPLES { ", …" } else { "" })
}

fn gb(bytes: &u64) -> f64 {
    *bytes as f64 / 1e9
}

fn no_more(why: &Option<Box<HubError>>) -> &'static str {
    if why.is_some() { "the hub cannot be reached" } else { "HF_HUB_OFFLINE forbids to fetch the rest" }
}

impl HubError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            HubError::Unauthorized { .. } => {
                Some("check the spelling; for a private or gated repository set HF_TOKEN to an access token")
            }
            HubError::TokenRefused { .. } | HubError::BadToken { .. } => Some(
                "copy the token again from https://huggingface.co/settings/tokens; without one, public repositories can be read",
            ),
            HubError::BadRoots { .. } => {
                Some("name a PEM file of the certificates to trust, or unset the variable: then the built-in ones are")
            }
            HubError::Forbidden { .. } => {
                Some("open the repository's page, accept its terms, and use a token that may read it")
            }
            HubError::NotFound { .. } => {
                Some("check owner, name, revision and path; data sets are hf://datasets/OWNER/NAME")
            }
            HubError::RateLimited { .. } => Some(
                "wait some minutes and run the same command again: finished files are kept; HF_TOKEN raises the limit",
            ),
            HubError::Transport { source, .. } if is_certificate(source) => Some(
                "is a proxy in between? SSL_CERT_FILE names a PEM file of the certificates to trust instead of the built-in ones",
            ),
            HubError::Transport { .. } => Some(
                "check the network; the same command goes on where it stopped; with HF_HUB_OFFLINE=1 only the cache is used",
            ),
            HubError::Status { .. } | HubError::BadAnswer { .. } => {
                Some("is HF_ENDPOINT right? the same command goes on where it stopped")
            }
            HubError::Corrupt { .. } => Some("run the same command again to fetch it anew"),
            HubError::Incomplete { source: Some(_), .. } => {
                Some("run the same command again when there is a network: it goes on where it stopped")
            }
            HubError::Offline(_) | HubError::Incomplete { source: None, .. } => {
                Some("unset HF_HUB_OFFLINE, or set HF_HOME to the cache that holds it")
            }
            HubError::BadName(_) => Some(
                "a model is hf://OWNER/NAME, a data set hf://datasets/OWNER/NAME; write a / inside REVISION as %2F",
            ),
            HubError::NoRoom { .. } => Some("make room, or set HF_HOME to a folder on another disk"),
            HubError::Io { source, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Some(
                    "make room and run the same command again: the download goes on where it stopped; HF_HOME names a cache elsewhere",
                ),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    Some("set HF_HOME to a folder that you may write, or change who may write the cache")
                }
                _ => None,
            },
            HubError::NoMatch { .. } => None,
        }
    }

    /// Nothing in the repository matches a name, `all` being what there is.
    pub fn no_match(name: &HubName, all: &[RemoteFile]) -> HubError {
        HubError::NoMatch { name: name.to_string(), examples: examples(all) }
    }

    /// Whether the hub itself could not answer, which says nothing of what was asked for.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            HubError::Transport { .. } | HubError::RateLimited { .. } | HubError::Status { status: 408 | 500.., .. }
        )
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> HubError {
        let path = path.to_path_buf();
        move |source| HubError::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, HubError};

    #[test]
    fn hints_name_the_way_out_of_each_trouble() {
        let full = HubError::io("x".as_ref())(ErrorKind::StorageFull.into());
        assert!(full.hint().is_some_and(|h| h.contains("the download goes on") && !h.contains("--resume")));
        let unknown = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        let refused = HubError::Transport { url: "x".to_owned(), source: Box::new(unknown.into()) };
        assert!(refused.hint().is_some_and(|h| h.contains("SSL_CERT_FILE")));
        let bad = "hf://".parse::<crate::HubName>().expect_err("no name");
        assert!(bad.hint().is_some_and(|h| h.contains("hf://datasets/OWNER/NAME")));
    }
}
