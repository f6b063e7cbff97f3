//! What a prepared folder, or one in the making, must not be mistaken for: another plan's work, another process's, another
//! vocabulary's, files from elsewhere.

mod preparing;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use corella_text::data::filters::FilterOptions;
use corella_text::data::readers::SourceFile;
use corella_text::data::{
    DataError, Dataset, DatasetInfo, PrepareOptions, Problem, Report, TokenStream, Vocabulary, Watch, prepare,
    read_index, write_shard,
};
use corella_text::tokenizer::{Tokenizer, TrainOptions};
use preparing::{Folder, Witness, contents, options};

fn text(i: usize) -> String {
    let words: Vec<String> = (0..40).map(|k| format!("word{}", (i * 7919 + k * k * 31) % 997)).collect();
    words.join(" ")
}

fn lines(documents: usize) -> String {
    (0..documents).map(|i| format!("{}\n", serde_json::json!({ "text": text(i) }))).collect()
}

fn run(file: &SourceFile, out: &Path, options: &PrepareOptions) -> Result<(DatasetInfo, Report), DataError> {
    let vocabulary = Vocabulary::Trained { size: 300, sample_bytes: 20_000 };
    prepare(std::slice::from_ref(file), &vocabulary, out, options, &mut Witness::default())
}

/// A prepared folder in another one, and what its dataset.json says.
fn prepared(folder: &Folder) -> (PathBuf, DatasetInfo) {
    let (file, out) = (folder.file("a.jsonl", lines(20)), folder.0.join("out"));
    let (info, _) = run(&file, &out, &options()).expect("prepared");
    (out, info)
}

#[test]
fn work_that_another_plan_left_behind_is_not_taken_up() {
    let folder = Folder::new("other-plan");
    let file = folder.file("a.jsonl", lines(30));
    let (out, fresh) = (folder.0.join("out"), folder.0.join("fresh"));
    // Reads everything, keeps nothing, and so does not come to its end.
    let filters = FilterOptions { min_bytes: 100_000, ..FilterOptions::default() };
    run(&file, &out, &PrepareOptions { filters, ..options() }).expect_err("nothing is left");
    assert!(out.join(".prepare/progress.json").exists(), "it would go on from here");
    let (_, report) = run(&file, &out, &options()).expect("prepared");
    assert_eq!((report.kept.documents, report.dropped.len()), (30, 0));
    run(&file, &fresh, &options()).expect("prepared");
    assert!(contents(&out) == contents(&fresh));
}

/// Copies the working folder when the survey is complete.
struct Copyist<'a>(&'a Path, &'a Path);

impl Watch for Copyist<'_> {
    fn surveyed(&mut self, _: u64, _: u64) {}
    fn file_done(&mut self, _: u64) {}
    fn problem(&mut self, _: &Problem) {}
    fn begins_tokens(&mut self, _: &Report) {
        fs::create_dir_all(self.1).expect("made");
        for name in ["plan.json", "progress.json", "survey.bin"] {
            fs::copy(self.0.join(name), self.1.join(name)).expect("copied");
        }
    }
    fn tokenised(&mut self, _: u64, _: u64) {}
    fn goes_on(&mut self, _: u64) {}
}

#[test]
fn killed_while_it_tidies_up_it_has_lost_nothing() {
    let folder = Folder::new("tidying");
    let file = folder.file("a.jsonl", lines(30));
    let (out, kept) = (folder.0.join("out"), folder.0.join("kept"));
    let work = out.join(".prepare");
    let vocabulary = Vocabulary::Trained { size: 300, sample_bytes: 20_000 };
    let mut copyist = Copyist(&work, &kept);
    let (info, report) =
        prepare(std::slice::from_ref(&file), &vocabulary, &out, &options(), &mut copyist).expect("prepared");
    let finished = contents(&out);
    assert!(!work.exists(), "a finished run leaves nothing behind");
    let put_back = |names: &[&str]| {
        fs::create_dir_all(&work).expect("made");
        for name in names {
            fs::copy(kept.join(name), work.join(name)).expect("copied");
        }
    };
    // Everything is there but the survey.
    put_back(&["plan.json", "progress.json"]);
    assert_eq!(run(&file, &out, &options()).expect("it was finished"), (info.clone(), report));
    assert!(contents(&out) == finished);
    // Not finished, and the survey is shorter than what was noted.
    put_back(&["plan.json", "progress.json", "survey.bin"]);
    let survey = File::options().write(true).open(work.join("survey.bin")).expect("there");
    survey.set_len(survey.metadata().expect("there").len() / 2).expect("cut");
    fs::remove_file(out.join("dataset.json")).expect("removed");
    assert_eq!(run(&file, &out, &options()).expect("surveyed again").0, info);
    assert!(contents(&out) == finished);
}

#[test]
fn something_is_always_left_to_train_on() {
    let folder = Folder::new("all-val");
    for documents in [2, 4, 30] {
        let file = folder.file("a.jsonl", lines(documents));
        let out = folder.0.join(format!("out-{documents}"));
        let options = PrepareOptions { val_fraction: 0.999_999, ..options() };
        let (info, _) = run(&file, &out, &options).expect("prepared");
        assert_eq!((info.train.documents, info.val.documents), (1, documents as u64 - 1));
    }
}

#[test]
fn two_processes_do_not_work_in_one_folder() {
    let folder = Folder::new("in-use");
    let file = folder.file("a.jsonl", lines(5));
    let out = folder.0.join("out");
    fs::create_dir_all(out.join(".prepare")).expect("made");
    let lock = File::create(out.join(".prepare/lock")).expect("made");
    lock.try_lock().expect("nobody has it");
    let refused = run(&file, &out, &options()).expect_err("in use").to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    assert_eq!(contents(&out).len(), 1, "nothing was written beside the other's folder");
    drop(lock);
    run(&file, &out, &options()).expect("prepared");
}

/// Makes the source another one when it has been read once.
struct Meddler<'a>(&'a Path, String);

impl Watch for Meddler<'_> {
    fn surveyed(&mut self, _: u64, _: u64) {}
    fn file_done(&mut self, _: u64) {}
    fn problem(&mut self, _: &Problem) {}
    fn begins_tokens(&mut self, _: &Report) {
        fs::write(self.0, &self.1).expect("written");
    }
    fn tokenised(&mut self, _: u64, _: u64) {}
    fn goes_on(&mut self, _: u64) {}
}

#[test]
fn sources_that_become_shorter_or_longer_meanwhile_are_noticed() {
    let folder = Folder::new("meddled");
    for documents in [19, 21] {
        let file = folder.file("a.jsonl", lines(20));
        let out = folder.0.join(format!("out-{documents}"));
        let mut meddler = Meddler(&file.path, lines(documents));
        let vocabulary = Vocabulary::Given(Tokenizer::gpt2());
        let refused = prepare(std::slice::from_ref(&file), &vocabulary, &out, &options(), &mut meddler);
        let said = refused.expect_err("other documents").to_string();
        assert!(said.contains("the sources changed while they were prepared"), "{said}");
        assert!(!out.join("dataset.json").exists());
    }
}

#[test]
fn a_folder_with_another_tokenizer_is_refused() {
    let folder = Folder::new("other-tokenizer");
    let (out, info) = prepared(&folder);
    let own = Dataset::open(&out).expect("a data set").tokenizer;
    // Of the same size, with other merges.
    let words: String = (0..2000).map(|i| format!("number{} ", i * i % 997)).collect();
    let other = Tokenizer::train([&words[..]], info.vocab_size, TrainOptions::default()).expect("trained");
    assert_eq!(other.vocab_size(), info.vocab_size);
    fs::write(out.join("tokenizer.json"), other.to_json()).expect("written");
    let said = Dataset::open(&out).expect_err("other ids").to_string();
    assert!(said.contains("tokenizer.json is not the one that the shards were made with"), "{said}");
    fs::write(out.join("tokenizer.json"), own.to_json()).expect("written");
    Dataset::open(&out).expect("a data set");
}

#[test]
fn shards_outside_the_folder_are_refused() {
    let folder = Folder::new("outside");
    let (out, info) = prepared(&folder);
    let shard = &info.shards.iter().find(|(name, _)| name.starts_with("train_")).expect("a shard").0;
    // The right file is where the name leads.
    fs::create_dir(out.join("train_x")).expect("made");
    fs::rename(out.join(shard), folder.0.join("moved.bin")).expect("moved");
    let path = out.join("dataset.json");
    let text = fs::read_to_string(&path).expect("readable");
    let away = text.replace(&format!("\"{shard}\""), "\"train_x/../../moved.bin\"");
    assert_ne!(away, text);
    fs::write(&path, away).expect("written");
    let said = Dataset::open(&out).expect_err("elsewhere").to_string();
    assert!(said.contains("is not a plain file name"), "{said}");
}

#[test]
fn an_index_whose_documents_do_not_follow_each_other_is_refused() {
    let folder = Folder::new("unordered");
    let (out, info) = prepared(&folder);
    let path = out.join(&info.indexes[0].0);
    let right = fs::read(&path).expect("an index");
    let tokens = u64::from_le_bytes(right[24..32].try_into().expect("eight bytes"));
    let entries = read_index(&path, tokens).expect("an index");
    assert!(entries.len() > 2);
    // A header of 64 bytes with the checksum at 32, and entries of 40.
    let read = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = right.clone();
        change(&mut bytes[64..]);
        let crc = crc32fast::hash(&bytes[64..]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, bytes).expect("written");
        read_index(&path, tokens).map_err(|error| error.to_string())
    };
    assert_eq!(read(&|_| {}).expect("as it was"), entries);
    let says = format!("the documents' places do not ascend below {tokens}");
    let swapped = read(&|body| body[..80].rotate_left(40)).expect_err("the second before the first");
    assert!(swapped.contains(&says), "{swapped}");
    let twice = read(&|body| body.copy_within(40..80, 0)).expect_err("the second twice");
    assert!(twice.contains(&says), "{twice}");
    let behind = read(&|body| {
        let last = body.len() - 40;
        body[last..last + 8].copy_from_slice(&tokens.to_le_bytes());
    });
    assert!(behind.expect_err("behind the last token").contains(&says));
}

/// CRC-32 of the tokens' bytes, so many each.
fn checksum_of(tokens: &[u32], width: usize) -> u32 {
    crc32fast::hash(&tokens.iter().flat_map(|t| t.to_le_bytes()[..width].to_vec()).collect::<Vec<u8>>())
}

#[test]
fn all_tokens_have_one_checksum_in_memory_in_prepared_shards_and_in_files_of_others() {
    let folder = Folder::new("checksums");
    let (file, out) = (folder.file("a.jsonl", lines(20)), folder.0.join("out"));
    let (info, _) = run(&file, &out, &PrepareOptions { shard_tokens: 700, ..options() }).expect("prepared");
    let goes_on = AtomicBool::new(false);
    let Dataset { train, .. } = Dataset::open(&out).expect("a data set");
    assert!(train.shards().len() > 1, "{:?}", info.shards);
    let tokens = train.to_vec().expect("tokens");
    let known = train.checksum().expect("noted by prepare");
    assert_eq!((known.width, known.crc), (2, checksum_of(&tokens, 2)));
    assert_eq!(train.read_through(&goes_on).expect("whole"), Some(known));
    assert_eq!(TokenStream::in_memory(tokens.clone()).checksum(), Some(known));

    // nanoGPT's file of bare tokens has nothing noted, and the same tokens.
    let bare = folder.file("train.bin", tokens.iter().flat_map(|t| (*t as u16).to_le_bytes()).collect::<Vec<u8>>());
    let bare = TokenStream::open(&[bare.path], info.vocab_size).expect("tokens");
    assert_eq!((bare.checksum(), bare.read_through(&goes_on).expect("readable")), (None, Some(known)));
    assert_eq!(bare.read_through(&AtomicBool::new(true)).expect("not wrong"), None, "told to stop");

    // Tokens of four bytes, in two shards.
    let (first, second) = (folder.0.join("a.bin"), folder.0.join("b.bin"));
    let parts: [&[u32]; 2] = [&[1, 70_000, 128_255], &[2, 65_536]];
    let mut noted = Vec::new();
    for (path, tokens) in [first, second].into_iter().zip(parts) {
        let crc = write_shard(&path, tokens, 128_256).expect("written");
        noted.push((path, crc));
    }
    let wide = TokenStream::open_noted(&noted, 128_256).expect("shards");
    let known = wide.checksum().expect("noted");
    assert_eq!((known.width, known.crc), (4, checksum_of(&parts.concat(), 4)));
    assert_eq!(wide.read_through(&goes_on).expect("whole"), Some(known));
    assert_eq!(TokenStream::in_memory(parts.concat()).checksum(), Some(known));
}

#[test]
fn a_damaged_shard_is_named_when_it_is_read_through() {
    let folder = Folder::new("damaged-shard");
    let (out, info) = prepared(&folder);
    let goes_on = AtomicBool::new(false);
    for (shard, noted) in &info.shards {
        let path = out.join(shard);
        let right = fs::read(&path).expect("a shard");
        // The first word of the header that means nothing, the first token, the last: all others stay in the vocabulary.
        for at in [12, 1024, right.len() - 2] {
            let mut bytes = right.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("written");
            let data = Dataset::open(&out).expect("the sizes are right");
            let part = if shard.starts_with("train_") { &data.train } else { &data.val };
            let said = part.read_through(&goes_on).expect_err("damaged").to_string();
            let found = crc32fast::hash(&bytes);
            let expected = format!("damaged: its checksum is {found:08x}, dataset.json says {noted:08x}");
            assert!(said.contains(&path.display().to_string()) && said.contains(&expected), "{said}");
        }
        fs::write(&path, right).expect("written");
    }
    let data = Dataset::open(&out).expect("a data set");
    assert!(data.train.read_through(&goes_on).is_ok() && data.val.read_through(&goes_on).is_ok());
}
