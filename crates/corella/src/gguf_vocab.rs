//! The tokenizer that a GGUF file carries in its metadata.

use std::path::Path;

use corella_model::formats::gguf::{Array, Gguf, Value};
use corella_text::tokenizer::{FormatError, GgufVocab, Tokenizer};

/// The tokenizer in the header of the file at `path`, which is named in a warning; `None` where there is none.
pub fn tokenizer(header: &Gguf, path: &Path) -> Option<Result<Tokenizer, FormatError>> {
    let mut vocab = vocab(header)?;
    if vocab.model == "gpt2" && vocab.pre.is_none() {
        // Of this family the pattern is known; for others it is what llama.cpp takes.
        let family = header.get("general.architecture").and_then(Value::as_str);
        vocab.pre = Some(if family == Some("gpt2") { "gpt-2" } else { "default" }.to_owned());
        let taken = if family == Some("gpt2") { "GPT-2's pattern" } else { "llama.cpp's default" };
        eprintln!(
            "warning: {} does not say how its text is split (tokenizer.ggml.pre); {taken} is taken, and ids may be wrong\nhint: convert the model again with a converter of today, or name its tokenizer.json with --tokenizer",
            path.display()
        );
    }
    Some(Tokenizer::from_gguf(&vocab))
}

/// The keys `tokenizer.ggml.*`; `None` where the file names no tokenizer, as converters do for bare weights.
fn vocab(header: &Gguf) -> Option<GgufVocab> {
    let get = |key: &str| header.get(&format!("tokenizer.ggml.{key}"));
    let text = |key: &str| get(key).and_then(Value::as_str).map(str::to_owned);
    let id = |key: &str| get(key).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let truth = |key: &str| if let Some(Value::Bool(value)) = get(key) { Some(*value) } else { None };
    let texts = |key: &str| match get(key) {
        Some(Value::Array(Array::String(values))) => Some(values.clone()),
        _ => None,
    };
    Some(GgufVocab {
        model: text("model").filter(|model| model != "none" && model != "no_vocab")?,
        pre: text("pre"),
        tokens: texts("tokens")?,
        scores: match get("scores") {
            Some(Value::Array(Array::F32(values))) => Some(values.clone()),
            _ => None,
        },
        token_types: match get("token_type") {
            Some(Value::Array(Array::I32(values))) => Some(values.clone()),
            _ => None,
        },
        merges: texts("merges"),
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        unk: id("unknown_token_id"),
        pad: id("padding_token_id"),
        add_bos: truth("add_bos_token"),
        add_space_prefix: truth("add_space_prefix"),
    })
}
