//! Data sets and models on the hub, fetched into the cache.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corella_hub::{HubClient, HubName, Listing, RemoteFile, Transferred};
use corella_text::data::readers::SourceFile;

use crate::error::{Failure, Result};

/// Endings of files that hold data, where the user names a whole repository.
const DATA: [&str; 12] =
    [".parquet", ".jsonl", ".ndjson", ".json", ".txt", ".gz", ".zst", ".bin", ".warc", ".wet", ".zip", ".tar"];

/// Fetches the files that a name (`hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`) selects; what the cache holds is not
/// fetched again, and a broken download goes on where it stopped.
pub fn fetch(name: &str, quiet: bool) -> Result<Vec<SourceFile>> {
    let name: HubName = name.parse()?;
    let client = HubClient::from_env()?;
    let listing = client.list(&name)?;
    say_if_cached(&listing);
    let wanted = |file: &&RemoteFile| {
        let base = file.path.rsplit('/').next().unwrap_or(&file.path);
        name.path().is_some()
            || (DATA.iter().any(|ending| base.ends_with(ending))
                && !base.starts_with('.')
                && base != "dataset_infos.json")
    };
    let files: Vec<&RemoteFile> = listing.files.iter().filter(wanted).collect();
    let mut bar = Bar { quiet, terminal: std::io::stderr().is_terminal(), drawn: Instant::now(), line: false };
    let mut fetched = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let mut show = |done: Transferred<'_>| bar.draw(i + 1, files.len(), done);
        let path = client.download(&name, &listing.commit, &file.path, &mut show)?;
        fetched.push(SourceFile { path, name: format!("{}/{}", name.repository(), file.path) });
    }
    bar.end();
    Ok(fetched)
}

/// Files that a model's folder needs, beside its weights.
const MODEL: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    // They name the tokens at the ends of a text, and say whether the model was tuned to follow instructions.
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "vocab.bpe",
    "merges.txt",
];

/// Fetches a model (`hf://OWNER/NAME[@REVISION]`, or one `.gguf` file of it behind a `/`) into the cache, as
/// [`fetch`] does, and says where it lies. Of a `.gguf` that is split all files come, and the first is named. A model that
/// the cache holds whole needs no network.
pub fn fetch_model(name: &str) -> Result<PathBuf> {
    let name: HubName = name.parse()?;
    let client = HubClient::from_env()?;
    let whole = client.list(&name.repository())?;
    let paths: Vec<&str> = whole.files.iter().map(|file| &file.path[..]).collect();
    let wanted = match name.path() {
        None => folder_files(&name, &paths)?,
        Some(_) => model_file(&name, &paths)?,
    };
    say_if_cached(&whole);
    let mut bar = Bar { quiet: false, terminal: std::io::stderr().is_terminal(), drawn: Instant::now(), line: false };
    let mut fetched = Vec::new();
    for (i, file) in wanted.iter().enumerate() {
        let mut show = |done: Transferred<'_>| bar.draw(i + 1, wanted.len(), done);
        fetched.push(client.download(&name, &whole.commit, file, &mut show)?);
    }
    bar.end();
    let first = fetched.into_iter().next().filter(|_| name.path().is_some());
    Ok(first.unwrap_or_else(|| client.snapshot(&name, &whole.commit)))
}

/// Says it where the hub was not asked.
fn say_if_cached(listing: &Listing) {
    if let Some(why) = &listing.unreachable {
        eprintln!("note: the hub cannot be reached, so what the cache holds is used: {why}");
    }
}

/// The files of a repository that make a model's folder.
fn folder_files<'a>(name: &HubName, paths: &[&'a str]) -> Result<Vec<&'a str>> {
    let wanted = paths.iter().copied().filter(|path| MODEL.contains(path) || is_weights(path));
    let wanted: Vec<&str> = wanted.collect();
    if wanted.iter().any(|path| is_weights(path)) {
        return Ok(wanted);
    }
    let repository = name.repository();
    let ggufs: Vec<&str> = paths.iter().copied().filter(|path| path.ends_with(GGUF)).collect();
    Err(match ggufs.first() {
        Some(first) => Failure::new(format!("{repository} holds no model.safetensors"))
            .hint(format!("name one of its {} .gguf files: {repository}/{first}", ggufs.len())),
        None => Failure::new(format!("{repository} holds no model.safetensors and no .gguf file"))
            .hint("name a repository that has either; pickle files (pytorch_model.bin) are not read"),
    })
}

/// Whether a file holds weights as `transformers` names them, or says which files do; those of variants (`model.fp16.…`) are
/// left out.
fn is_weights(path: &str) -> bool {
    let rest = path.strip_prefix("model").and_then(|rest| rest.strip_suffix(".safetensors"));
    matches!(path, "model.safetensors.index.json" | "model.safetensors")
        || rest.and_then(part).is_some_and(|(name, ..)| name.is_empty())
}

const GGUF: &str = ".gguf";

/// Of `NAME-00002-of-00003` the name, the number and the count.
fn part(stem: &str) -> Option<(&str, &str, &str)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (digits(number) && digits(count)).then_some((name, number, count))
}

/// The model file that a name selects; where it is split, all its parts in their order.
fn model_file<'a>(name: &HubName, paths: &[&'a str]) -> Result<Vec<&'a str>> {
    let selected: Vec<&str> = paths.iter().copied().filter(|path| name.selects(path)).collect();
    let path = name.path().unwrap_or_default();
    let models: Vec<&str> = selected.iter().copied().filter(|path| path.ends_with(GGUF)).collect();
    let candidates = if models.is_empty() { &selected } else { &models };
    let Some(&first) = candidates.first() else {
        return Err(Failure::new(format!("{} has no file {path}", name.repository())));
    };
    let whole = |path: &'a str| part(path.strip_suffix(GGUF)?).map(|(name, _, count)| (name, count));
    if let Some(split) = whole(first) {
        if candidates.iter().copied().all(|path| whole(path) == Some(split)) {
            let mut parts: Vec<&str> = paths.iter().copied().filter(|path| whole(path) == Some(split)).collect();
            parts.sort_unstable();
            return Ok(parts);
        }
    } else if candidates.len() == 1 {
        return Ok(vec![first]);
    }
    let some: Vec<&str> = candidates.iter().copied().take(5).collect();
    Err(Failure::new(format!("{name} names several models: {}", some.join(", "))).hint("name one of them"))
}

/// Draws the progress of downloads on standard error.
struct Bar {
    quiet: bool,
    terminal: bool,
    drawn: Instant,
    line: bool,
}

impl Bar {
    fn draw(&mut self, file: usize, files: usize, done: Transferred<'_>) {
        let every = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.quiet || (self.drawn.elapsed() < every && done.bytes < done.size) {
            return;
        }
        self.drawn = Instant::now();
        let megabytes = |b: u64| b as f64 / 1e6;
        let text = format!(
            "fetching {file} of {files}: {}, {:.1} of {:.1} MB",
            done.path,
            megabytes(done.bytes),
            megabytes(done.size)
        );
        if self.terminal {
            eprint!("\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
            self.line = true;
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&mut self) {
        if self.line {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: &str, paths: &[&'static str]) -> std::result::Result<Vec<&'static str>, String> {
        let name: HubName = name.parse().expect("a name");
        let files = if name.path().is_some() { model_file(&name, paths) } else { folder_files(&name, paths) };
        files.map_err(|refused| refused.to_string())
    }

    #[test]
    fn all_parts_of_a_split_file_belong_to_it() {
        let paths = [
            "Q8/m-00001-of-00002.gguf",
            "Q8/m-00002-of-00002.gguf",
            "README.md",
            "mod-00001-of-00003.gguf",
            "mod-00002-of-00003.gguf",
            "mod-00003-of-00003.gguf",
            "other.gguf",
        ];
        for name in ["mod-00001-of-00003.gguf", "mod-00003-of-00003.gguf", "mod-*.gguf"] {
            assert_eq!(chosen(&format!("hf://o/n/{name}"), &paths), Ok(paths[3..6].to_vec()), "{name}");
        }
        assert_eq!(chosen("hf://o/n/Q8", &paths), Ok(paths[..2].to_vec()));
        assert_eq!(chosen("hf://o/n/other.gguf", &paths), Ok(vec!["other.gguf"]));
        assert!(chosen("hf://o/n/*.gguf", &paths).expect_err("two models").contains("hint: name one"));
        assert!(chosen("hf://o/n/none.gguf", &paths).expect_err("no such file").contains("has no file none.gguf"));
    }

    #[test]
    fn a_folder_has_one_kind_of_weights_and_no_variants() {
        let paths = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let more = ["model.fp16.safetensors", "model.safetensors.index.json", "model.safetensors.index.fp16.json"];
        let others = ["onnx/model.safetensors", "model.fp16-00001-of-00002.safetensors", "consolidated.safetensors"];
        let all = [&paths[..], &more, &others].concat();
        assert_eq!(chosen("hf://o/n", &all), Ok([&paths[..], &more[1..2]].concat()));
        let refused = chosen("hf://o/n", &["config.json", "pytorch_model.bin"]).expect_err("a pickle");
        assert!(refused.contains("no .gguf file") && refused.contains("pickle"), "{refused}");
        let refused = chosen("hf://o/n", &["a.gguf", "b.gguf"]).expect_err("not a folder");
        assert!(refused.contains("name one of its 2 .gguf files: hf://o/n/a.gguf"), "{refused}");
    }
}
