//! Data sets and models on the hub, fetched into the cache.

mod selection;

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corella_hub::{HubClient, HubName, Listing, Notice, RemoteFile, Transferred};
use corella_text::data::readers::SourceFile;

use crate::error::{Failure, Result};
use selection::select;

/// Fetches the files that a name (`hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`) selects ([`select`]); what the cache holds is not
/// fetched again, and a broken download goes on where it stopped.
pub fn fetch(name: &str, quiet: bool) -> Result<Vec<SourceFile>> {
    let name: HubName = name.parse()?;
    let client = client(quiet)?;
    let left_out = RefCell::new(None);
    let listing = client.choose(&name, |all| {
        let selection = select(&name, all)?;
        left_out.replace(selection.left_out);
        Ok::<_, Failure>(selection.files)
    })?;
    if let Some(left_out) = left_out.into_inner() {
        say(&mut io::stderr(), &format!("note: {left_out}\n"));
    }
    let paths = fetch_all(&client, &name, &listing, quiet)?;
    let named = |file: &RemoteFile| format!("{}/{}", name.repository(), file.path);
    Ok(paths.into_iter().zip(&listing.files).map(|(path, file)| SourceFile { path, name: named(file) }).collect())
}

/// A client that says on standard error what it waits for.
fn client(quiet: bool) -> Result<HubClient> {
    let client = HubClient::from_env()?;
    let terminal = io::stderr().is_terminal();
    Ok(client.on_notice(move |notice| {
        if !quiet && let Some(line) = note(&notice, terminal) {
            say(&mut io::stderr(), &line);
        }
    }))
}

/// The line that tells of a notice; none for waits that nobody sees. On a terminal it replaces a bar, which is drawn again.
fn note(notice: &Notice<'_>, terminal: bool) -> Option<String> {
    if matches!(notice, Notice::Again { wait, .. } if *wait < Duration::from_secs(1)) {
        return None;
    }
    Some(format!("{}note: {notice}\n", if terminal { CLEAR } else { "" }))
}

/// Fetches a listing's files, and says how far it is.
fn fetch_all(client: &HubClient, name: &HubName, listing: &Listing, quiet: bool) -> Result<Vec<PathBuf>> {
    if let Some(why) = &listing.unreachable {
        let text = format!("note: the hub cannot be reached, so what the cache holds is used: {why}\n");
        say(&mut io::stderr(), &text);
    }
    let quiet = quiet || !client.settings().progress;
    let mut bar = Bar::new(io::stderr(), quiet, io::stderr().is_terminal());
    let files = listing.files.len();
    Ok(client.fetch(name, listing, &mut |i, done| bar.draw(i + 1, files, done))?)
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
    let client = client(false)?;
    let listing = client.choose(&name, |files| {
        let paths: Vec<&str> = files.iter().map(|file| &file.path[..]).collect();
        let wanted = match name.path() {
            None => folder_files(&name, &paths)?,
            Some(_) => model_file(&name, &paths)?,
        };
        let file = |path: &&str| files.iter().find(|file| file.path == *path).cloned();
        Ok::<_, Failure>(wanted.iter().filter_map(file).collect())
    })?;
    let fetched = fetch_all(&client, &name, &listing, false)?;
    let first = fetched.into_iter().next().filter(|_| name.path().is_some());
    Ok(first.unwrap_or_else(|| client.snapshot(&name, &listing.commit)))
}

/// The files of a repository that make a model's folder.
fn folder_files<'a>(name: &HubName, paths: &[&'a str]) -> Result<Vec<&'a str>> {
    let wanted = paths.iter().copied().filter(|path| MODEL.contains(path) || is_weights(path));
    let wanted: Vec<&str> = wanted.collect();
    let repository = name.repository();
    if let Some(lacking) = lacking_part(&wanted, SAFETENSORS).filter(|_| !wanted.contains(&"model.safetensors")) {
        return Err(Failure::new(format!("{repository} lacks {lacking}")).hint("is the upload complete?"));
    }
    if wanted.iter().any(|path| path.ends_with(SAFETENSORS)) {
        return Ok(wanted);
    }
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
const SAFETENSORS: &str = ".safetensors";

/// The first part of a split file that is not there.
fn lacking_part(paths: &[&str], ending: &str) -> Option<String> {
    let there: HashSet<&str> = paths.iter().copied().collect();
    paths.iter().find_map(|path| {
        let (name, _, count) = part(path.strip_suffix(ending)?)?;
        let mut names = (1..=count.parse::<u32>().ok()?).map(|n| format!("{name}-{n:05}-of-{count}{ending}"));
        names.find(|name| !there.contains(&name[..]))
    })
}

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
    let repository = name.repository();
    let Some(&first) = candidates.first() else {
        return Err(Failure::new(format!("{repository} has no file {path}")).hint(what_there_is(&repository, paths)));
    };
    // Weights alone are no model: config.json and the vocabulary lie beside them.
    if models.is_empty() && selected.iter().any(|p| p.ends_with(SAFETENSORS) || p.ends_with(".safetensors.index.json"))
    {
        return Err(Failure::new(format!("{name} is a part of a model")).hint(format!("name the whole: {repository}")));
    }
    let whole = |path: &'a str| part(path.strip_suffix(GGUF)?).map(|(name, _, count)| (name, count));
    if let Some(split) = whole(first) {
        if candidates.iter().copied().all(|path| whole(path) == Some(split)) {
            let mut parts: Vec<&str> = paths.iter().copied().filter(|path| whole(path) == Some(split)).collect();
            parts.sort_unstable();
            return match lacking_part(&parts, GGUF) {
                Some(lacking) => Err(Failure::new(format!("{repository} lacks {lacking}"))),
                None => Ok(parts),
            };
        }
    } else if candidates.len() == 1 {
        return Ok(vec![first]);
    }
    let some: Vec<&str> = candidates.iter().copied().take(5).collect();
    Err(Failure::new(format!("{name} names several models: {}", some.join(", "))).hint("name one of them"))
}

/// Most files that are named where the one asked for is missing.
const FILES_SHOWN: usize = 8;

/// The names that could have been meant: the `.gguf` files, else the first of all.
fn what_there_is(repository: &HubName, paths: &[&str]) -> String {
    let ggufs: Vec<&str> = paths.iter().copied().filter(|path| path.ends_with(GGUF)).collect();
    let all = if ggufs.is_empty() { paths } else { &ggufs };
    let more = if all.len() > FILES_SHOWN { format!(", and {} more", all.len() - FILES_SHOWN) } else { String::new() };
    format!("{repository} has {}{more}", all[..all.len().min(FILES_SHOWN)].join(", "))
}

/// Writes at once. A terminal that is gone is no reason to stop a download.
fn say(out: &mut impl Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Begins the terminal's line anew.
const CLEAR: &str = "\r\x1b[2K";

/// Draws the progress of downloads on standard error; its line ends when it is dropped, also before an error is printed.
struct Bar<W: Write> {
    out: W,
    quiet: bool,
    terminal: bool,
    drawn: Instant,
    line: bool,
}

impl<W: Write> Bar<W> {
    fn new(out: W, quiet: bool, terminal: bool) -> Bar<W> {
        Bar { out, quiet, terminal, drawn: Instant::now(), line: false }
    }

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
        let text = if self.terminal { format!("{CLEAR}{text}") } else { format!("{text}\n") };
        say(&mut self.out, &text);
        self.line = self.terminal;
    }
}

impl<W: Write> Drop for Bar<W> {
    fn drop(&mut self) {
        if self.line {
            say(&mut self.out, "\n");
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
    fn a_name_that_selects_no_model_says_which_there_are() {
        let paths = ["README.md", "a.gguf", "b.gguf", "config.json", "model.safetensors"];
        let refused = chosen("hf://o/n/nope.gguf", &paths).expect_err("no such file");
        assert!(refused.contains("hint: hf://o/n has a.gguf, b.gguf"), "{refused}");
        let refused =
            chosen("hf://o/n/nope", &["1", "2", "3", "4", "5", "6", "7", "8", "9"]).expect_err("no such file");
        assert!(refused.ends_with("7, 8, and 1 more"), "{refused}");
        for weights in ["model.safetensors", "*.safetensors"] {
            let refused = chosen(&format!("hf://o/n/{weights}"), &paths).expect_err("a part");
            assert!(refused.ends_with("name the whole: hf://o/n"), "{refused}");
        }
    }

    #[test]
    fn a_split_model_that_lacks_a_part_is_refused() {
        let paths = ["config.json", "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"];
        let index = [&paths[..], &["model.safetensors.index.json"]].concat();
        let refused = chosen("hf://o/n", &index).expect_err("two of three");
        assert!(refused.contains("lacks model-00002-of-00003.safetensors"), "{refused}");
        assert!(chosen("hf://o/n", &["config.json", index[3]]).is_err(), "an index is no weights");
        let refused = chosen("hf://o/n/Q8", &["Q8/m-00002-of-00002.gguf"]).expect_err("one of two");
        assert!(refused.contains("lacks Q8/m-00001-of-00002.gguf"), "{refused}");
    }

    #[test]
    fn notices_have_a_line_of_their_own() {
        let wait = |seconds| Notice::Again { why: "the hub answers 429", wait: Duration::from_secs(seconds) };
        assert_eq!(note(&wait(0), false), None);
        let line = note(&wait(30), false).expect("a line");
        assert_eq!(line, "note: the hub answers 429; trying again in 30 s\n");
        assert_eq!(note(&wait(30), true), Some(format!("{CLEAR}{line}")));
    }

    #[test]
    fn a_bar_ends_its_line_when_something_fails() {
        let done = |bytes| Transferred { path: "a", bytes, size: 4 };
        let mut drawn = Vec::new();
        Bar::new(&mut drawn, false, true).draw(1, 2, done(4));
        let text = String::from_utf8(drawn).expect("text");
        assert_eq!(text, format!("{CLEAR}fetching 1 of 2: a, 0.0 of 0.0 MB\n"));
        let mut drawn = Vec::new();
        Bar::new(&mut drawn, true, true).draw(1, 2, done(4));
        assert!(drawn.is_empty());
        // A terminal that is gone.
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        Bar::new(Gone, false, true).draw(1, 2, done(4));
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
