//! The completions server and the playground. It knows text and HTTP; the engine knows tokens.
//!
//! A request's way: the router (access, sizes, times) → `completions` (parsed, checked) → the engine's thread → events →
//! one document or a stream.

mod access;
mod app;
mod arrival;
mod aside;
mod call;
mod chat;
mod completions;
mod demos;
mod error;
mod fields;
mod follow;
mod heard;
mod listener;
mod live;
mod monitor;
mod openapi;
mod patience;
mod peers;
mod places;
mod playground;
mod requests_log;
mod served;
mod socket;
mod tally;
mod tokens;
mod trace;

pub use access::Access;
pub use app::{App, Extras, Loading};
pub use chat::Transcript;
pub use demos::{assistant_page, recap};
pub use listener::{ListenOptions, ServeError, Shutdown, Stopped, serve};
pub use live::{LiveRun, RunFiles};
pub use peers::{NoKeys, NoPeer, Peer};
pub use served::Served;
pub use trace::{Place, Span, Tracer};
