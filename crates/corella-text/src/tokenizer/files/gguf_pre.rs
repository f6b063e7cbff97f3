//! llama.cpp's names for the patterns that split a text (`tokenizer.ggml.pre`).

use super::super::error::FormatError;
use super::super::pretokenize::Split;

/// The pattern that a name stands for, and whether pieces that are tokens are taken whole. Several names have one pattern:
/// llama.cpp keeps the vocabularies apart that it was shown. Those of dense Llamas are here.
pub fn split_of(pre: Option<&str>) -> Result<(Split, bool), FormatError> {
    match pre {
        None | Some("default") => Ok((Split::LlamaCppDefault, false)),
        Some("gpt-2" | "mellum" | "a.x-4.0") => Ok((Split::Gpt2 { single_digits: false }, false)),
        Some("smollm" | "starcoder" | "refact" | "minerva-7b") => Ok((Split::Gpt2 { single_digits: true }, false)),
        Some("llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "midm-2.0") => {
            Ok((Split::Llama3 { digits: 3 }, true))
        }
        Some("smaug-bpe") => Ok((Split::Llama3 { digits: 3 }, false)),
        Some("qwen2" | "megrez") => Ok((Split::Llama3 { digits: 1 }, false)),
        Some(other) => Err(FormatError::Unsupported {
            part: "tokenizer.ggml.pre",
            found: other.to_owned(),
            allowed: "the patterns of gpt-2, smollm, llama-bpe, qwen2 and default can be used",
        }),
    }
}

/// The name to write for a pattern.
pub fn pre_of(split: Split) -> &'static str {
    match split {
        Split::LlamaCppDefault => "default",
        Split::Gpt2 { single_digits: false } => "gpt-2",
        Split::Gpt2 { single_digits: true } => "smollm",
        Split::Llama3 { digits: 1 } => "qwen2",
        Split::Llama3 { .. } => "llama-bpe",
    }
}
