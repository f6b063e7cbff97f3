//! A prepared folder: the same bytes whatever the threads and the memory, an index that agrees with the shards, a choice of
//! validation documents that stays, a report of what was dropped.

mod preparing;

use std::collections::BTreeSet;
use std::path::Path;

use corella_text::data::filters::{FilterOptions, Rule};
use corella_text::data::readers::{SourceFile, expand};
use corella_text::data::{
    DataError, Dataset, DatasetInfo, Document, Origin, PrepareOptions, ProblemKind, Report, TextCorpus, Vocabulary,
    is_token_file, prepare, prepare_tokens, read_index, read_shard, tokens_of, write_shard,
};
use corella_text::tokenizer::Tokenizer;
use preparing::{Folder, Witness, contents, options};

fn text(i: usize) -> String {
    let words: Vec<String> = (0..40 + i * 37 % 100).map(|k| format!("word{}", (i * 7919 + k * k * 31) % 997)).collect();
    words.join(" ")
}

/// 300 documents in three files: texts between separators, JSON lines, and a text alone.
fn sources(folder: &Folder) -> Vec<SourceFile> {
    let texts: Vec<String> = (0..150).map(text).collect();
    let json: String = (150..299).map(|i| format!("{}\n", serde_json::json!({ "text": text(i) }))).collect();
    vec![
        folder.file("a.txt", texts.join("<|endoftext|>")),
        folder.file("b.jsonl", json),
        folder.file("c.txt", text(299)),
    ]
}

fn run(
    files: &[SourceFile],
    folder: &Folder,
    name: &str,
    options: &PrepareOptions,
) -> Result<(DatasetInfo, Report), DataError> {
    let vocabulary = Vocabulary::Trained { size: 400, sample_bytes: 20_000 };
    prepare(files, &vocabulary, &folder.0.join(name), options, &mut Witness::default())
}

#[test]
fn threads_and_memory_do_not_change_a_byte() {
    let folder = Folder::new("bytes");
    let files = sources(&folder);
    let near = PrepareOptions { near_duplicates: Some(0.7), ..options() };
    run(&files, &folder, "one", &PrepareOptions { threads: 1, ..near.clone() }).expect("prepared");
    let one = contents(&folder.0.join("one"));
    assert!(one.len() > 10 && one.iter().any(|(name, _)| name == "train_000003.bin"), "several shards");
    assert!(!one.iter().any(|(name, _)| name.contains("partial") || name == ".prepare"), "nothing is left over");
    for (threads, memory) in [(2, 64 << 20), (7, 64 << 20), (3, 1 << 30)] {
        let name = format!("{threads}-{memory}");
        run(&files, &folder, &name, &PrepareOptions { threads, memory, ..near.clone() }).expect("prepared");
        assert!(one == contents(&folder.0.join(&name)), "{threads} threads, {memory} bytes");
    }
    // Over an older output of other options, nothing of that stays.
    let over = PrepareOptions { overwrite: true, ..options() };
    run(&files[..1], &folder, "one", &PrepareOptions { shard_tokens: 700, ..over }).expect("prepared");
    run(&files, &folder, "one", &PrepareOptions { overwrite: true, ..near }).expect("prepared");
    assert!(one == contents(&folder.0.join("one")));
}

#[test]
fn what_stands_in_the_folder_is_replaced_only_where_that_is_asked_for() {
    let folder = Folder::new("occupied");
    let files = sources(&folder);
    run(&files, &folder, "out", &options()).expect("prepared");
    let out = folder.0.join("out");
    let before = contents(&out);
    let other = PrepareOptions { val_fraction: 0.2, ..options() };
    let occupied = |error: DataError, by: &str| matches!(&error, DataError::Occupied { name, .. } if name == by);
    let refused = |options: &PrepareOptions| run(&files[..1], &folder, "out", options).expect_err("occupied");
    assert!(occupied(refused(&other), "dataset.json") && occupied(refused(&options()), "dataset.json"));
    // The same for files of tokens, which have the whole folder again if they fail half-way.
    let (gpt2, bin) = (Tokenizer::gpt2(), folder.file("train.bin", [1, 0, 2, 0]));
    let prepared = |files: &[SourceFile], overwrite| prepare_tokens(files, &gpt2, &out, 1000, overwrite);
    assert!(prepared(std::slice::from_ref(&bin), false).is_err_and(|error| occupied(error, "dataset.json")));
    assert!(before == contents(&out), "nothing was touched");
    let bad = folder.file("z.bin", [255, 255]);
    assert!(prepared(&[bin.clone(), bad], true).is_err() && !out.join("dataset.json").exists());
    assert!(Dataset::open(&out).is_err(), "half of one and half of another is no data set");
    prepared(&[bin], false).expect("what was not finished is in nobody's way");
    assert_eq!(Dataset::open(&out).expect("a data set").train.len(), 2);
    assert!(!out.join(".prepare").exists() && !out.join("train_000001.bin").exists());
    // A model's folder: its tokenizer is no output of ours.
    let model = folder.0.join("model");
    std::fs::create_dir(&model).expect("made");
    std::fs::write(model.join("tokenizer.json"), "its own").expect("written");
    let error = run(&files, &folder, "model", &options()).expect_err("occupied");
    assert!(occupied(error, "tokenizer.json"));
    assert_eq!(contents(&model), [("tokenizer.json".to_owned(), b"its own".to_vec())]);
}

#[test]
fn shards_of_another_size_than_recorded_are_refused() {
    let folder = Folder::new("sizes");
    run(&sources(&folder), &folder, "out", &options()).expect("prepared");
    let out = folder.0.join("out");
    write_shard(&out.join("train_000001.bin"), &[1, 2, 3], 400).expect("written");
    let error = Dataset::open(&out).expect_err("whole, but another one").to_string();
    assert!(error.contains("train_*") && error.contains("dataset.json says"), "{error}");
}

#[test]
fn index_shards_and_sources_agree_and_every_document_stands_once() {
    let folder = Folder::new("index");
    let files = sources(&folder);
    let (info, report) = run(&files, &folder, "out", &options()).expect("prepared");
    let out = folder.0.join("out");
    let dataset = Dataset::open(&out).expect("a data set");
    let names: Vec<String> = std::fs::read_to_string(out.join("sources.txt"))
        .expect("sources")
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(names, ["a.txt", "b.jsonl", "c.txt"]);
    let mut seen = BTreeSet::new();
    for part in ["train", "val"] {
        let (mut tokens, mut entries) = (Vec::new(), Vec::new());
        for (shard, crc) in info.shards.iter().filter(|(n, _)| n.starts_with(part)) {
            let bytes = std::fs::read(out.join(shard)).expect("a shard");
            assert_eq!(crc32fast::hash(&bytes), *crc, "{shard}");
            let shard_tokens = read_shard(&out.join(shard), info.vocab_size).expect("a shard");
            let index =
                read_index(&out.join(shard).with_extension("idx"), shard_tokens.len() as u64).expect("an index");
            entries.extend(index.into_iter().map(|e| (e.start as usize + tokens.len(), e)));
            tokens.extend(shard_tokens);
        }
        for (index, crc) in info.indexes.iter().filter(|(n, _)| n.starts_with(part)) {
            assert_eq!(crc32fast::hash(&std::fs::read(out.join(index)).expect("an index")), *crc, "{index}");
        }
        let mut next = 0;
        for (start, entry) in entries {
            assert_eq!(start, next, "documents lie behind each other, across shards");
            next = start + entry.tokens as usize;
            assert_eq!(tokens[start], dataset.tokenizer.end_of_text());
            let document = dataset.tokenizer.decode(&tokens[start + 1..next]);
            let number = match entry.source {
                0 => entry.record as usize,
                1 => 150 + entry.record as usize,
                _ => 299,
            };
            assert_eq!(document, text(number));
            assert!(seen.insert(number), "document {number} stands twice");
        }
        assert_eq!(next, tokens.len());
    }
    assert_eq!((seen.len(), report.kept.documents, report.read.documents), (300, 300, 300));
    assert!((10..60).contains(&info.val.documents), "{} of 300 for validation, 30 expected", info.val.documents);
    assert_eq!(dataset.val.len(), info.val.tokens);
}

fn validation_texts(folder: &Folder, out: &str) -> BTreeSet<String> {
    let dataset = Dataset::open(&folder.0.join(out)).expect("a data set");
    let text = dataset.tokenizer.decode(&dataset.val.to_vec().expect("readable"));
    text.split("<|endoftext|>").filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

#[test]
fn what_is_for_validation_stays_so_when_documents_are_added() {
    let folder = Folder::new("stable");
    let files = sources(&folder);
    run(&files[1..2], &folder, "few", &options()).expect("prepared");
    run(&files, &folder, "more", &options()).expect("prepared");
    let (few, more) = (validation_texts(&folder, "few"), validation_texts(&folder, "more"));
    assert!(few.len() > 3 && more.len() > few.len() && few.is_subset(&more));
    // Where the lot falls on none, one is taken; a single document is split.
    let (info, _) =
        run(&files[1..2], &folder, "rare", &PrepareOptions { val_fraction: 1e-9, ..options() }).expect("prepared");
    assert_eq!((info.val.documents, info.train.documents), (1, 148));
    let lines: String = (0..50).map(|i| format!("{}\n", text(i))).collect();
    let (info, _) = run(&[folder.file("d.txt", lines)], &folder, "single", &options()).expect("prepared");
    assert_eq!((info.val.documents, info.train.documents), (1, 1));
    let share = info.val.bytes as f64 / (info.val.bytes + info.train.bytes) as f64;
    assert!((0.08..0.15).contains(&share), "{share}");
}

/// Documents of these texts, as a reader hands them on.
fn documents(texts: &[String]) -> Vec<Document> {
    let origin = |record| Origin { source: "a.txt".into(), record, offset: 0 };
    texts.iter().zip(0..).map(|(text, record)| Document { origin: origin(record), text: text.clone() }).collect()
}

#[test]
fn a_single_text_is_cut_where_validation_begins_however_its_lines_lie() {
    let words = |n: usize| (0..n).map(|i| format!("word{i} ")).collect::<String>();
    let gpt2 = Tokenizer::gpt2();
    let val_share = |text: &str| {
        let (_, train, _, val) = tokens_of(&documents(&[text.to_owned()]), &gpt2, 0.05);
        assert_eq!((train.bytes + val.bytes) as usize, text.len());
        val.bytes as f64 / text.len() as f64
    };
    let share = 0.045..0.055;
    // A title and a book on one line, a book without any, and one whose last line is longer than the part to validate on.
    let book = words(40_000);
    let last = format!("{}\n{}", book.replace(' ', "\n"), "é".repeat(100_000));
    for text in [&format!("My Book\n\n{book}"), &book, &"漢".repeat(5000), &last] {
        assert!(share.contains(&val_share(text)), "{}", val_share(text));
    }
    // Lines are not divided where one ends near enough, before or behind the place.
    for lines in [100usize, 101, 103, 107, 997] {
        let text = words(8000).split_inclusive(' ').enumerate().fold(String::new(), |text, (i, word)| {
            text + word.trim() + if i % (8000 / lines) == 0 { "\n" } else { " " }
        });
        let (train, _, val, _) = tokens_of(&documents(std::slice::from_ref(&text)), &gpt2, 0.05);
        let [train, val] = [train, val].map(|ids| gpt2.decode(&ids[1..]));
        assert_eq!(format!("{train}{val}"), text);
        let near = lines >= 300;
        assert!(!near || train.ends_with('\n'), "{lines} lines");
        assert!(share.contains(&(val.len() as f64 / text.len() as f64)), "{lines} lines");
    }
    // All of a text that cannot be divided is trained on, and none is kept back where none is asked for.
    assert_eq!((val_share("漢"), tokens_of(&documents(&[book]), &gpt2, 0.0).3.tokens), (0.0, 0));
    // The same in a prepared folder.
    let folder = Folder::new("one-line");
    let one_line = folder.file("a.txt", format!("My Book\n\n{}", words(5000)));
    let (info, _) = run(&[one_line], &folder, "out", &options()).expect("prepared");
    let share = info.val.bytes as f64 / (info.val.bytes + info.train.bytes) as f64;
    assert!((0.09..0.11).contains(&share), "{share}");
}

#[test]
fn of_a_few_texts_in_memory_one_is_for_validation_as_in_a_prepared_folder() {
    let folder = Folder::new("few");
    for count in [2, 3, 5] {
        let texts: Vec<String> = (0..count).map(text).collect();
        let source = folder.file("a.txt", texts.join("<|endoftext|>"));
        let rare = PrepareOptions { val_fraction: 1e-9, ..options() };
        run(&[source], &folder, &count.to_string(), &rare).expect("prepared");
        let dataset = Dataset::open(&folder.0.join(count.to_string())).expect("a data set");
        let (train, of_train, val, of_val) = tokens_of(&documents(&texts), &dataset.tokenizer, 1e-9);
        assert_eq!((of_train.documents, of_val.documents), (count as u64 - 1, 1));
        assert_eq!((train, val), (dataset.train.to_vec().expect("read"), dataset.val.to_vec().expect("read")));
        assert_eq!(tokens_of(&documents(&texts), &dataset.tokenizer, 0.0).3.documents, 0);
    }
}

#[test]
fn of_a_few_large_texts_as_much_is_for_validation_as_was_asked_for() {
    let folder = Folder::new("book");
    let lines = |from: usize, count: usize| (from..from + count).map(|i| format!("{}\n", text(i))).collect::<String>();
    // A book and a note, as the hash has it; four times, so that the lot falls on the book in some; and five equal texts.
    let mut cases: Vec<Vec<String>> = (0..4).map(|i| vec![lines(100 * i, 90), lines(100 * i + 90, 3)]).collect();
    cases.push((0..5).map(|i| lines(40 * i, 40)).collect());
    let mut cut = 0;
    for (texts, case) in cases.iter().zip(0..) {
        let files: Vec<SourceFile> =
            texts.iter().zip(0..).map(|(text, i)| folder.file(&format!("{case}-{i}.txt"), text)).collect();
        let out = format!("out-{case}");
        let (info, _) =
            run(&files, &folder, &out, &PrepareOptions { val_fraction: 0.05, ..options() }).expect("prepared");
        let share = info.val.bytes as f64 / (info.val.bytes + info.train.bytes) as f64;
        assert!((0.025..0.06).contains(&share), "case {case}: {share}");
        cut += usize::from(info.train.documents + info.val.documents > texts.len() as u64);
        let data = Dataset::open(&folder.0.join(out)).expect("a data set");
        let read = TextCorpus::read(&files, &options().read).expect("read").documents;
        let (train, of_train, val, of_val) = tokens_of(&read, &data.tokenizer, 0.05);
        assert_eq!((of_train, of_val), (info.train, info.val), "case {case}, in memory");
        assert!(train == data.train.to_vec().expect("read") && val == data.val.to_vec().expect("read"), "case {case}");
        let val = data.tokenizer.decode(&data.val.to_vec().expect("read")[1..]);
        let ends = |text: &String| text.trim_end().ends_with(val.trim_end());
        assert!(texts.iter().any(ends), "case {case}: the end of a text");
    }
    assert!((2..=cases.len()).contains(&cut), "{cut} of them are cut");
}

#[test]
fn empty_texts_are_counted_as_dropped() {
    let folder = Folder::new("empties");
    let lines = ["", " \n ", "\u{feff}", "\u{feff} \u{feff}\n", "a text", "another"];
    let json: String = lines.iter().map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
    let broken = "no JSON\n\n".to_owned();
    // In front of each text, and behind each: a separator at the edge of a file has nothing beside it.
    let (before, behind) =
        ("\u{feff}\n<|endoftext|>one<|endoftext|>two", "three<|endoftext|> <|endoftext|>four<|endoftext|>\n");
    let files = [folder.file("a.jsonl", json + &broken), folder.file("b.txt", before), folder.file("c.txt", behind)];
    let vocabulary = Vocabulary::Given(Tokenizer::gpt2());
    let options = PrepareOptions { val_fraction: 0.0, ..options() };
    let out = folder.0.join("out");
    let (info, report) = prepare(&files, &vocabulary, &out, &options, &mut Witness::default()).expect("prepared");
    let empty = &report.dropped[&Rule::Empty];
    assert_eq!((report.read.documents, report.kept.documents, empty.tally.documents), (6 + 2 + 3, 2 + 2 + 2, 5));
    assert_eq!(report.problems[&ProblemKind::BadRecord].count, 1);
    assert_eq!((info.train.documents, empty.examples[0].found.as_str()), (6, "no text"));
    // Whatever else is asked of a text, that it is one comes first.
    let filters = FilterOptions { min_bytes: 1, gopher: true, languages: vec!["eng".to_owned()], ..Default::default() };
    assert_eq!(filters.judge(" ").rejection.map(|found| found.rule), Some(Rule::Empty));
}

#[test]
fn what_is_dropped_is_counted_by_rule_with_examples_and_places() {
    let folder = Folder::new("report");
    let lines = [
        serde_json::json!({ "text": text(1) }).to_string(),
        serde_json::json!({ "text": "too short" }).to_string(),
        serde_json::json!({ "text": text(1).to_uppercase() }).to_string(),
        "no JSON".to_owned(),
        serde_json::json!({ "text": text(2) }).to_string(),
    ];
    let file = folder.file("a.jsonl", lines.join("\n"));
    let filters = FilterOptions { min_bytes: 50, ..FilterOptions::default() };
    let options = PrepareOptions { filters, val_fraction: 0.0, ..options() };
    let (info, report) = run(std::slice::from_ref(&file), &folder, "out", &options).expect("prepared");
    assert_eq!((info.train.documents, report.read.documents), (2, 4));
    let short = &report.dropped[&Rule::TooShort];
    assert_eq!((short.tally.documents, short.tally.bytes), (1, 9));
    let example = &short.examples[0];
    assert_eq!((&example.found[..], &example.text[..], example.record), ("9 bytes", "too short", 1));
    assert_eq!(report.dropped[&Rule::ExactDuplicate].examples[0].record, 2);
    let problems = &report.problems[&ProblemKind::BadRecord];
    assert_eq!((problems.count, problems.examples[0].record), (1, 3));
    let written = std::fs::read_to_string(folder.0.join("out/report.json")).expect("a report");
    assert_eq!(serde_json::from_str::<Report>(&written).expect("JSON"), report);
    let strict = run(&[file], &folder, "strict", &PrepareOptions { strict: true, ..options });
    assert!(matches!(strict, Err(DataError::Problem(p)) if p.origin.record == 3));
    assert!(!folder.0.join("strict/dataset.json").exists());
}

#[test]
fn a_ceiling_below_what_one_document_needs_is_refused() {
    let folder = Folder::new("ceiling");
    let files = sources(&folder);
    let low = run(&files, &folder, "out", &PrepareOptions { memory: 1 << 20, ..options() });
    assert!(matches!(low, Err(DataError::Memory { needed, .. }) if needed == 64 << 20));
    let large = Vocabulary::Trained { size: 200_000, sample_bytes: 1000 };
    let low = prepare(&files, &large, &folder.0.join("out"), &options(), &mut Witness::default());
    assert!(low.is_err_and(|e| e.to_string().contains("a vocabulary of 200000")));
    let nothing = run(&[folder.file("empty.txt", "")], &folder, "out", &options());
    assert!(nothing.is_err_and(|e| e.to_string().contains("none is left")));
}

#[test]
fn files_of_tokens_become_a_prepared_folder() {
    let folder = Folder::new("tokens");
    let gpt2 = Tokenizer::gpt2();
    let tokens: Vec<u32> = (0..30).flat_map(|i| [vec![gpt2.end_of_text()], gpt2.encode(&text(i))].concat()).collect();
    let shard = folder.0.join("x_train_000001.bin");
    write_shard(&shard, &tokens, 50_257).expect("written");
    // nanoGPT: the end-of-text token behind each document, no header.
    let nano: Vec<u8> = (30..40)
        .flat_map(|i| [gpt2.encode(&text(i)), vec![gpt2.end_of_text()]].concat())
        .flat_map(|t| (t as u16).to_le_bytes())
        .collect();
    let files = [SourceFile::at(&shard), folder.file("val.bin", &nano)];
    assert!(files.iter().all(|f| is_token_file(&f.path)));
    let out = folder.0.join("out");
    let info = prepare_tokens(&files, &gpt2, &out, 1000, false).expect("prepared");
    assert_eq!((info.train.documents, info.train.tokens), (30, tokens.len() as u64));
    assert_eq!(info.train.bytes, (0..30).map(|i| text(i).len() as u64).sum::<u64>());
    assert_eq!(info.val.tokens, nano.len() as u64 / 2);
    let dataset = Dataset::open(&out).expect("a data set");
    assert_eq!(dataset.train.to_vec().expect("readable"), tokens);
    let (other, small) = (folder.0.join("other"), Tokenizer::train(["a b"], 257, Default::default()).expect("trained"));
    let foreign = prepare_tokens(&files, &small, &other, 1000, false);
    assert!(foreign.is_err_and(|e| e.to_string().contains("vocabulary of 257")));
}

/// The folder itself, one below a folder of texts, and one that is not finished.
#[test]
fn what_prepare_wrote_is_no_text() {
    let folder = Folder::new("own");
    let file = folder.file("a.txt", text(1));
    run(&[file], &folder, "out", &options()).expect("prepared");
    std::fs::create_dir_all(folder.0.join("begun/.prepare")).expect("a folder");
    std::fs::write(folder.0.join("begun/sources.txt"), "\"a.txt\"\n").expect("written");
    // Somebody else's file of that name.
    std::fs::create_dir(folder.0.join("other")).expect("a folder");
    std::fs::write(folder.0.join("other/dataset.json"), "{\"text\": \"a text\"}").expect("written");
    for source in ["", "*", "**/*"] {
        let files = expand(&folder.0.join(source)).expect("files");
        let names: Vec<_> = files.iter().map(|f| f.path.strip_prefix(&folder.0).expect("below").to_owned()).collect();
        assert_eq!(names, [Path::new("a.txt"), Path::new("other/dataset.json")], "{source}");
    }
    for source in ["out", "begun"] {
        let refused = expand(&folder.0.join(source));
        assert!(matches!(refused, Err(DataError::Prepared { .. })), "{refused:?}");
    }
}

#[test]
fn broken_indexes_are_refused() {
    let folder = Folder::new("broken");
    let (info, _) = run(&sources(&folder), &folder, "out", &options()).expect("prepared");
    let path = folder.0.join("out").join(&info.indexes[0].0);
    let whole = std::fs::read(&path).expect("an index");
    assert!(read_index(&path, 5000).is_ok() && read_index(&path, 4999).is_err());
    for broken in [&whole[..whole.len() - 1], &whole[..40], b""] {
        std::fs::write(&path, broken).expect("written");
        assert!(read_index(&path, 5000).is_err());
    }
    for at in [0, 8, 12, 16, 32, 70] {
        let mut broken = whole.clone();
        broken[at] ^= 1;
        std::fs::write(&path, broken).expect("written");
        assert!(read_index(&path, 5000).is_err(), "byte {at}");
    }
}
