//! File formats that know nothing of models.

pub mod atomic;
pub mod encoding;
pub mod error;
pub mod file;
pub mod gguf;
pub mod safetensors;
pub mod sniff;
pub mod tensors_file;

pub use encoding::Encoding;
pub use error::{Cause, FormatError};
pub use file::ModelFile;
