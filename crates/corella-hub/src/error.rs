//! What can go wrong with the hub, and what to do about it.

use std::path::PathBuf;

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
    /// Nothing in the repository matches.
    #[error("{name}: no file matches; it has {examples}")]
    NoMatch {
        /// What was asked for.
        name: String,
        /// Some that there are.
        examples: String,
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

impl HubError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            HubError::Unauthorized { .. } => {
                Some("check the spelling; for a private or gated repository set HF_TOKEN to an access token")
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
            HubError::Transport { .. } => Some(
                "check the network; the same command goes on where it stopped; with HF_HUB_OFFLINE=1 only the cache is used",
            ),
            HubError::Status { .. } | HubError::BadAnswer { .. } => {
                Some("is HF_ENDPOINT right? the same command goes on where it stopped")
            }
            HubError::Corrupt { .. } => Some("run the same command again to fetch it anew"),
            HubError::Offline(_) => Some("unset HF_HUB_OFFLINE, or set HF_HOME to the cache that holds it"),
            HubError::BadName(_) | HubError::NoMatch { .. } | HubError::Io { .. } => None,
        }
    }

    /// Whether the hub itself could not answer, which says nothing of what was asked for.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            HubError::Transport { .. } | HubError::RateLimited { .. } | HubError::Status { status: 500.., .. }
        )
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> HubError {
        let path = path.to_path_buf();
        move |source| HubError::Io { path, source }
    }
}
