//! `corella convert`: a model from one kind of file to another, with other number formats.

use std::io::Write;
use std::path::Path;

use corella_model::exchange::{Exchange, gguf, hugging_face};
use corella_model::formats::atomic::AtomicFile;
use corella_model::formats::gguf::{Value, open as open_gguf};
use corella_model::gpt2::{Gpt2Checkpoint, save_llmc};
use corella_model::{AnyModel, Checkpoint, ModelError};
use corella_ops::WeightFormat;
use corella_text::tokenizer::Tokenizer;
use corella_train::console::grouped;

use crate::cli::{Common, ConvertArgs};
use crate::error::{Failure, Result};
use crate::gguf_tokenizer;
use crate::inputs::{no_card, open_any, tokenizer_for};
use crate::model::{note_padding, own_tokenizer};
use crate::output::deliver;
use crate::unfinished::Unfinished;

/// Runs the command.
pub fn run(args: &ConvertArgs, common: &Common) -> Result<()> {
    no_card(common)?;
    let kind = kind_of(&args.output)?;
    let (model, at) = open_any(&args.input)?;
    let parameters = model.parameter_count();
    if kind == "llm.c" && args.tokenizer.is_some() {
        return Err(Failure::usage("llm.c's files hold no tokenizer").hint("leave --tokenizer out"));
    }
    let unfinished = Unfinished::beside(&args.output)?;
    let to = unfinished.path();
    match &model {
        AnyModel::Gpt2(checkpoint) if kind == "llm.c" => {
            // llm.c's files hold one of two formats; the one that keeps every number.
            let own = checkpoint.plain_format();
            let kept = if own == WeightFormat::Bf16 { own } else { WeightFormat::F32 };
            let format = args.dtype.unwrap_or(kept);
            say_quantised(&model, format);
            save_llmc(&**checkpoint, format, &to)?;
            say_lost_ends(checkpoint, &to)?;
        }
        AnyModel::Llama(_) if kind == "llm.c" => {
            return Err(Failure::usage("llm.c's files hold GPT-2 only")
                .hint("name a folder (Hugging Face) or a .gguf for a Llama"));
        }
        AnyModel::Gpt2(checkpoint) => write(&model, checkpoint, &at, args, &to)?,
        AnyModel::Llama(checkpoint) => write(&model, checkpoint, &at, args, &to)?,
    }
    unfinished.finish(&args.output)?;
    if common.json {
        deliver(
            serde_json::json!({"output": args.output.display().to_string(), "format": kind, "parameters": parameters}),
        )
    } else {
        deliver(format_args!("wrote {} ({kind}, {} parameters)", args.output.display(), grouped(parameters as u64)))
    }
}

/// Endings of files that hold models, or what stands in front of one, and are not written.
const NOT_WRITTEN: [&str; 12] =
    ["safetensors", "pt", "pth", "ckpt", "h5", "onnx", "npz", "pkl", "ggml", "tflite", "json", "zip"];

/// What is to be written, by the ending of its name.
fn kind_of(output: &Path) -> Result<&'static str> {
    let hint = "name a folder (Hugging Face), a file.gguf, or a file.bin (llm.c)";
    if output.as_os_str() == "-" {
        return Err(Failure::usage("a model is not written to standard output").hint(hint));
    }
    let ending = output.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "bin" => Ok("llm.c"),
        "gguf" => Ok("GGUF"),
        other if NOT_WRITTEN.contains(&other) => {
            Err(Failure::usage(format!("{}: files that end in .{other} are not written", output.display())).hint(hint))
        }
        _ => Ok("Hugging Face"),
    }
}

/// Says which tokens end a text where an llm.c file, which names none, will be read otherwise.
fn say_lost_ends(checkpoint: &Gpt2Checkpoint, written: &Path) -> Result<()> {
    let lost = &checkpoint.special.eos;
    if !lost.is_empty() && Gpt2Checkpoint::open(written)?.special.eos != *lost {
        let ids: Vec<String> = lost.iter().map(u32::to_string).collect();
        eprintln!("note: llm.c's files do not say which tokens end a text: for this model {}", ids.join(", "));
    }
    Ok(())
}

/// Writes a GGUF file, or a folder for `transformers`.
fn write<C: Exchange>(
    model: &AnyModel,
    checkpoint: &Checkpoint<C>,
    at: &Path,
    args: &ConvertArgs,
    to: &Path,
) -> Result<()> {
    let given = match &args.tokenizer {
        Some(name) => {
            let tokenizer = tokenizer_for(name, 0, &[])?;
            note_padding(&tokenizer, model.vocab_size())?;
            Some(tokenizer)
        }
        None => None,
    };
    if is_gguf(to) {
        let name = args.output.file_stem().unwrap_or_default().to_string_lossy();
        // Two bytes a number: those that the weights have, so that nothing is lost or grows beyond what halves hold.
        let own = checkpoint.plain_format();
        let format = args.dtype.unwrap_or(if own == WeightFormat::Bf16 { own } else { WeightFormat::F16 });
        say_front(given.as_ref(), model, at);
        say_quantised(model, format);
        let ragged = gguf::save(checkpoint, &name, tokenizer_keys(model, at, given)?, format, to)?;
        say_ragged(&ragged, format);
        return Ok(());
    }
    let format = args.dtype.unwrap_or_else(|| checkpoint.plain_format());
    if format.block_len() > 1 {
        return Err(Failure::usage(format!("safetensors do not hold {}", format.name()))
            .hint("f32, f16 or bf16 for a folder; quantised formats for a .gguf"));
    }
    say_quantised(model, format);
    hugging_face::save(checkpoint, &checkpoint.special, format, to).map_err(|error| match error {
        ModelError::BadConfig { field: "rope_freqs", .. } => {
            Failure::from(error).hint("the .gguf itself can be used: every command that takes a model reads it")
        }
        error => error.into(),
    })?;
    say_front(given.as_ref(), model, at);
    write_tokenizer(model, at, given, to)
}

/// Says what becomes of weights that were quantised before: of those of the layers, since heads may have another format.
fn say_quantised(model: &AnyModel, format: WeightFormat) {
    let mut found: Vec<&str> = Vec::new();
    for (_, _, place) in model.tensors().into_iter().filter(|(layer, ..)| layer.is_some()) {
        let name = place.format.name();
        if place.format.block_len() > 1 && place.format != format && !found.contains(&name) {
            found.push(name);
        }
    }
    if found.is_empty() {
        return;
    }
    let (found, format_name) = (found.join(", "), format.name());
    if format.block_len() > 1 {
        eprintln!(
            "warning: the weights are quantised already ({found}); in {format_name} they lose a second time: convert the \
             model that they were made of, if it can be had"
        );
    } else {
        eprintln!(
            "note: the weights are quantised ({found}); in {format_name} they take more room, and what was lost does not \
             come back"
        );
    }
}

/// Most tensors that are named one by one.
const NAMED: usize = 4;

/// Says which tensors are not in the format that was asked for.
fn say_ragged(names: &[String], format: WeightFormat) {
    if !names.is_empty() {
        let more = if names.len() > NAMED { ", …" } else { "" };
        eprintln!(
            "note: tensors whose rows are no multiple of {} numbers are stored in F16 instead of {} ({}): {}{more}",
            format.block_len(),
            format.name(),
            names.len(),
            names[..names.len().min(NAMED)].join(", ")
        );
    }
}

/// Says where other programs will begin a text otherwise: GPT-2's own files do not say that anything goes in front, and nothing
/// does there, while here the end of the document before does.
fn say_front(given: Option<&Tokenizer>, model: &AnyModel, at: &Path) {
    let own = if given.is_none() && !is_gguf(at) { own_tokenizer(model, at).ok() } else { None };
    let Some(tokenizer) = given.or(own.as_ref()) else { return };
    let start = tokenizer.start_of_text();
    if tokenizer.roles().add_bos.is_none() && start == tokenizer.end_of_text() {
        eprintln!(
            "note: the tokenizer's files do not say that a token goes in front of a text: other programs put none there, \
             `corella generate` and `corella eval --text` put {} there (--no-bos leaves it out)",
            String::from_utf8_lossy(tokenizer.token_bytes(start))
        );
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// The keys of the tokenizer that was given; else as they are where the model comes from a GGUF file, else those of the tokenizer
/// beside it.
fn tokenizer_keys(model: &AnyModel, at: &Path, given: Option<Tokenizer>) -> Result<Vec<(String, Value)>> {
    if given.is_none() && is_gguf(at) {
        let (_, header) = open_gguf(at).map_err(corella_model::ModelError::from)?;
        return Ok(header.metadata.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")).collect());
    }
    let special = model.special();
    let keys_of = |tokenizer| gguf_tokenizer::metadata(&tokenizer, &special, model.vocab_size());
    let mut keys = match given {
        Some(tokenizer) => keys_of(tokenizer)?,
        None => own_tokenizer(model, at).and_then(keys_of).unwrap_or_else(|why| {
            eprintln!("warning: the file will hold no tokenizer: {}", why.message());
            why.eprint_hint();
            gguf_tokenizer::bare(&special)
        }),
    };
    let template = model.chat_template().map(|template| Value::String(template.to_owned()));
    keys.extend(template.map(|template| (gguf::CHAT_TEMPLATE.to_owned(), template)));
    Ok(keys)
}

/// Puts the tokenizer beside the weights: the files that were there, else ones with the same ids, or with those of the one that was
/// given. What else a folder says of how texts begin and end comes along.
fn write_tokenizer(model: &AnyModel, at: &Path, given: Option<Tokenizer>, output: &Path) -> Result<()> {
    let names = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];
    let whole = given.is_none() && at.join(names[0]).is_file();
    let copied = names.into_iter().filter(|_| whole).chain(["generation_config.json"]);
    for name in copied.filter(|name| at.join(name).is_file()) {
        std::fs::copy(at.join(name), output.join(name))?;
    }
    // It stands in a file of its own, or in tokenizer_config.json.
    let own = hugging_face::CHAT_TEMPLATE;
    if let Some(template) = model.chat_template().filter(|_| !whole || at.join(own).is_file()) {
        std::fs::write(output.join(own), template)?;
    }
    if whole {
        return Ok(());
    }
    match given.map_or_else(|| own_tokenizer(model, at), Ok) {
        Ok(tokenizer) => {
            for (name, text) in tokenizer.files() {
                let mut file = AtomicFile::create(&output.join(name))?;
                file.write_all(text.as_bytes())?;
                file.commit()?;
            }
            Ok(())
        }
        Err(_) => {
            eprintln!("warning: the model carries no tokenizer; the folder has none");
            Ok(())
        }
    }
}
