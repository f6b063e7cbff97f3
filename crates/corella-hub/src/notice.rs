//! What a person should hear of while the client works: why nothing moves, and what could not be kept.

use std::fmt;
use std::time::Duration;

use crate::HubError;

/// Something that is no failure.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Another process fetches the same file, and is waited for.
    OtherProcess {
        /// File inside the repository.
        file: &'a str,
    },
    /// A request failed and is sent again after a while.
    Again {
        /// What went wrong.
        why: &'a str,
        /// How long the client waits.
        wait: Duration,
    },
    /// What an earlier download left is damaged, and the whole file is fetched once more.
    Anew {
        /// File inside the repository.
        file: &'a str,
        /// What is wrong with it.
        what: &'a str,
    },
    /// Everything was fetched, but the cache could not note which commit the revision names.
    NotRemembered {
        /// What stood in the way.
        why: &'a HubError,
    },
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::OtherProcess { file } => write!(f, "another process is fetching {file}; waiting for it"),
            Notice::Again { why, wait } => write!(f, "{why}; trying again in {} s", wait.as_secs_f64().ceil()),
            Notice::Anew { file, what } => {
                write!(f, "{file}: the download that was gone on with is damaged ({what}); fetching the whole again")
            }
            Notice::NotRemembered { why } => {
                write!(f, "the cache cannot note which version this is, so it is not found without a network: {why}")
            }
        }
    }
}
