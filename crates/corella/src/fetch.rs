//! Data sets and models on the hub, fetched into the cache.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corella_hub::{HubClient, HubName, RemoteFile, Transferred};
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
const MODEL: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    // They name the tokens at the ends of a text, and say whether the model was tuned to follow instructions.
    "tokenizer_config.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "vocab.bpe",
    "merges.txt",
];

/// Fetches a model (`hf://OWNER/NAME[@REVISION]`, or one `.gguf` file of it behind a `/`) into the cache, as
/// [`fetch`] does, and says where it lies. A model that the cache holds whole needs no network with `HF_HUB_OFFLINE=1`.
pub fn fetch_model(name: &str) -> Result<PathBuf> {
    let name: HubName = name.parse()?;
    let client = HubClient::from_env()?;
    let listing = client.list(&name)?;
    let has_weights = listing.files.iter().any(|f| f.path.ends_with(".safetensors"));
    let wanted = |file: &&RemoteFile| {
        let in_root = !file.path.contains('/');
        let weights = file.path.starts_with("model") && file.path.contains(".safetensors");
        match name.path() {
            Some(_) => true,
            None => in_root && (MODEL.contains(&&file.path[..]) || weights),
        }
    };
    let files: Vec<&RemoteFile> = listing.files.iter().filter(wanted).collect();
    if name.path().is_none() && !has_weights {
        return Err(Failure::new(format!("{} holds no safetensors", name.repository()))
            .hint("name one of its .gguf files: hf://OWNER/NAME/FILE.gguf"));
    }
    let mut bar = Bar { quiet: false, terminal: std::io::stderr().is_terminal(), drawn: Instant::now(), line: false };
    let mut last = None;
    for (i, file) in files.iter().enumerate() {
        let mut show = |done: Transferred<'_>| bar.draw(i + 1, files.len(), done);
        last = Some(client.download(&name, &listing.commit, &file.path, &mut show)?);
    }
    bar.end();
    match (name.path(), last) {
        (None, _) => Ok(client.snapshot(&name, &listing.commit)),
        (Some(_), Some(file)) => Ok(file),
        (Some(path), None) => Err(Failure::new(format!("{} has no file {path}", name.repository()))),
    }
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
