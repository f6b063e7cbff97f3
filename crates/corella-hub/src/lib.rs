//! A light client of the Hugging Face hub: names, listing, download with resume, and the cache that other tools share.
//!
//! ```no_run
//! use corella_hub::{HubClient, HubError, HubName, RemoteFile};
//!
//! # fn main() -> Result<(), HubError> {
//! let client = HubClient::from_env()?;
//! // A model: everything that is needed of it, as local files in one folder.
//! let name: HubName = "hf://openai-community/gpt2".parse()?;
//! let wanted = |f: &&RemoteFile| f.path.ends_with(".json") || f.path.ends_with(".safetensors");
//! let listing = client.choose(&name, |all| Ok::<_, HubError>(all.iter().filter(wanted).cloned().collect()))?;
//! for local in client.fetch(&name, &listing, &mut |_, done| eprintln!("{} {}", done.path, done.bytes))? {
//!     println!("{}", local.display());
//! }
//! let folder = client.snapshot(&name, &listing.commit); // hands to a loader of Hugging Face folders
//! # let _ = folder; Ok(()) }
//! ```
//!
//! A name may end in a pattern, which selects the files that [`HubClient::list`] returns:
//! `hf://datasets/karpathy/fineweb-edu-100B-gpt2-token-shards/edu_fineweb_train_00000?.bin`.
//!
//! The protocol is that of `huggingface_hub`: `/api/…/revision/REV` lists, `/resolve/REV/PATH` answers `HEAD` with
//! `X-Repo-Commit`, `X-Linked-Etag` and `X-Linked-Size`, and `GET` with a redirect to a store that serves ranges. The cache
//! has its layout too (`blobs/`, `snapshots/COMMIT/`, `refs/`), so what one tool fetched the other finds.

mod address;
mod cache;
mod client;
mod download;
mod error;
mod http;
mod listing;
mod name;
mod notice;
mod record;
mod room;
mod roots;
mod settings;

pub use client::HubClient;
pub use download::Transferred;
pub use error::HubError;
pub use listing::{Listing, RemoteFile};
pub use name::{HubName, PREFIX, RepoKind};
pub use notice::Notice;
pub use room::free_disk;
pub use roots::Roots;
pub use settings::Settings;
