//! From the bytes of tokens to text: whole characters only, and nothing of a stop string.

mod stop;
mod stream;

pub use stop::{StopError, StopStrings};
pub use stream::{Released, TextStream};
