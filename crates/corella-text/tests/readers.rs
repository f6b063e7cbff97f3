//! Every wrapping gives the same documents, real files give what other tools read from them, and broken ones are reported
//! with their place and do not stop the rest.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corella_text::data::readers::{ReadOptions, SourceFile, expand, read_bytes, read_file, read_records};
use corella_text::data::{DataError, ProblemKind, TextCorpus};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// A file of the shared test data; `None`, and a note, where it is absent.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
    }
    path.exists().then_some(path)
}

fn read(path: &Path, options: &ReadOptions) -> TextCorpus {
    let mut corpus = TextCorpus::default();
    for SourceFile { path, name } in expand(path).expect("files") {
        let _ = read_file(&path, &name, options, &mut corpus);
    }
    corpus
}

fn bytes(bytes: &[u8], name: &str) -> TextCorpus {
    with(bytes, name, &ReadOptions::default())
}

fn with(bytes: &[u8], name: &str, options: &ReadOptions) -> TextCorpus {
    let mut corpus = TextCorpus::default();
    let _ = read_bytes(bytes, name, options, &mut corpus);
    corpus
}

fn texts(corpus: &TextCorpus) -> Vec<&str> {
    corpus.documents.iter().map(|d| d.text.as_str()).collect()
}

fn kinds(corpus: &TextCorpus) -> Vec<ProblemKind> {
    corpus.problems.iter().map(|p| p.kind).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("written");
    out.finish().expect("written")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("compressed")
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).expect("appended");
    }
    builder.into_inner().expect("finished")
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("corella-readers-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, bytes).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const LINES: &[u8] =
    b"{\"id\": 1, \"text\": \"caf\\u00e9\"}\n{\"text\": \"two\\nlines\", \"more\": {\"text\": [1, null]}}\n";

#[test]
fn every_wrapping_gives_the_same_documents() {
    let expected = ["café", "two\nlines"];
    let two_members = [gzip(&LINES[..20]), gzip(&LINES[20..])].concat();
    let two_frames = [zstd(&LINES[..20]), zstd(&LINES[20..])].concat();
    let warc = |text: &str| {
        format!(
            "WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}\r\n\r\n",
            text.len()
        )
    };
    let wet = [warc("café"), warc("two\nlines")].concat();
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("a.jsonl", LINES.to_vec()),
        ("no-ending", LINES.to_vec()),
        ("a.jsonl.gz", gzip(LINES)),
        ("a.gz", two_members),
        ("a.json.zst", two_frames),
        ("a.txt", "\u{feff}café<|endoftext|>two\r\nlines<|endoftext|>\n".into()),
        ("a.warc.wet.gz", [gzip(&wet.as_bytes()[..100]), gzip(&wet.as_bytes()[100..])].concat()),
        ("a.tar.zst", zstd(&tar(&[("x/a.txt", "café".as_bytes()), ("x/.hidden", b"no"), ("y.txt", b"two\r\nlines")]))),
        ("a.tgz", gzip(&tar(&[("a.jsonl.gz", &gzip(LINES))]))),
    ];
    for (name, content) in &files {
        let corpus = bytes(content, name);
        assert_eq!((texts(&corpus), kinds(&corpus)), (expected.to_vec(), vec![]), "{name}");
    }
    // The same from files, zip among them, and all of them as a folder and as a pattern.
    let folder = Folder::new("wrappings");
    files.iter().for_each(|(name, content)| drop(folder.file(name, content)));
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in [("a.txt", "café".as_bytes()), ("b/c.jsonl.gz", &gzip(b"{\"text\":\"two\\nlines\"}"))] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("started");
        zip.write_all(content).expect("written");
    }
    let zip = folder.file("sub/z.zip", &zip.finish().expect("finished").into_inner());
    assert_eq!(texts(&read(&zip, &ReadOptions::default())), expected);
    assert_eq!(read(&folder.0, &ReadOptions::default()).documents.len(), 2 * (files.len() + 1));
    let pattern = read(&folder.0.join("a.j*"), &ReadOptions::default());
    assert_eq!(pattern.documents.len(), 6);
    assert!(pattern.documents[0].origin.source.ends_with("a.json.zst"), "in the order of the names");
}

#[test]
fn a_document_knows_its_place() {
    let archive = tar(&[("b.txt", b"one<|endoftext|>three")]);
    let corpus = bytes(&gzip(&archive), "a.tar.gz");
    let places: Vec<_> = corpus.documents.iter().map(|d| d.origin.to_string()).collect();
    assert_eq!(places, ["a.tar.gz!b.txt, record 0, offset 0", "a.tar.gz!b.txt, record 1, offset 16"]);
    let corpus = bytes(LINES, "a.jsonl");
    let line = LINES.iter().position(|b| *b == b'\n').expect("a line") as u64 + 1;
    assert_eq!((corpus.documents[1].origin.record, corpus.documents[1].origin.offset), (1, line));
}

#[test]
fn a_long_text_is_cut_at_line_ends_and_between_characters() {
    let options = ReadOptions { max_document: 100, ..ReadOptions::default() };
    let lines: String = (0..100).map(|i| format!("line {i} é\n")).collect();
    let corpus = with(lines.as_bytes(), "a.txt", &options);
    assert!(corpus.documents.iter().all(|d| d.text.len() <= 100 && d.text.ends_with('é')));
    assert_eq!(texts(&corpus).join("\n"), lines.trim());
    assert!(kinds(&corpus).iter().all(|k| *k == ProblemKind::Cut));
    let long = "é".repeat(500);
    let corpus = with(long.as_bytes(), "a.txt", &options);
    assert_eq!(texts(&corpus).concat(), long);
    let json = format!("{{\"text\": \"{long}\"}}");
    assert_eq!(texts(&with(json.as_bytes(), "a.jsonl", &options)).concat(), long);
}

#[test]
fn a_text_of_the_greatest_length_is_whole_and_no_separator_is_divided() {
    // A file is read in pieces of 64 KiB: the first one ends inside the separator.
    let (separator, max) = ("<|endoftext|>", (1 << 16) - 6);
    let options = ReadOptions { max_document: max, ..ReadOptions::default() };
    for length in max - 15..max + 15 {
        let corpus = with(format!("{}{separator}next", "x".repeat(length)).as_bytes(), "a.txt", &options);
        let cut = length > max;
        assert_eq!(kinds(&corpus), if cut { vec![ProblemKind::Cut] } else { vec![] }, "{length} bytes");
        assert_eq!(texts(&corpus).concat(), format!("{}next", "x".repeat(length)), "{length} bytes");
        assert_eq!(corpus.documents.len(), 2 + usize::from(cut));
        let last = corpus.documents.last().expect("the next").origin.clone();
        assert_eq!((last.record, last.offset), (1, (length + separator.len()) as u64));
    }
}

/// A text as Python's `json.dumps` writes it: all but ASCII escaped.
fn dumped(text: &str) -> String {
    let escaped: String = text.encode_utf16().fold(String::new(), |out, unit| match u8::try_from(unit) {
        Ok(b'\n') => out + "\\n",
        Ok(byte) if byte.is_ascii() => out + &char::from(byte).to_string(),
        _ => out + &format!("\\u{unit:04x}"),
    });
    format!("{{\"id\": 1, \"text\": \"{escaped}\", \"tags\": [\"text\", {{\"text\": 1}}]}}\n")
}

#[test]
fn a_json_line_is_as_long_as_escapes_make_it_and_its_text_is_cut_like_others() {
    let max = 300_000;
    let options = ReadOptions { max_document: max, ..ReadOptions::default() };
    let within = "Съешь же ещё этих мягких булок. ".repeat(max / 50);
    let within = within[..within.floor_char_boundary(max)].trim();
    assert!(within.len() > max - 60);
    let line = dumped(within);
    assert!(line.len() > 2 * max + (1 << 16));
    let corpus = with(format!("{line}{{\"text\": \"next\"}}").as_bytes(), "a.jsonl", &options);
    assert_eq!((texts(&corpus), kinds(&corpus)), (vec![within, "next"], vec![]));
    // What a text file of the same text gives.
    let long: String = (0..30_000).map(|i| format!("line {i}, 😀 and é\n")).collect();
    let json = format!("{}\n{{\"text\": 1}}\n", serde_json::json!({"a": {"text": 1}, "text": long}));
    let (json, plain) = (with(json.as_bytes(), "a.jsonl", &options), with(long.as_bytes(), "a.txt", &options));
    assert!(plain.documents.len() > 1);
    assert_eq!(texts(&json), texts(&plain));
    assert_eq!(kinds(&json)[0], ProblemKind::Cut);
    // Broken inside, or without a text: told, and nothing handed on.
    for (broken, kind) in [
        (line.replace("булок", "").replacen("\\u0421", "\\uzzzz", 1), ProblemKind::BadRecord),
        (line.replace("]}\n", "}\n"), ProblemKind::BadRecord),
        (line.replace("\"text\": \"", "\"other\": \""), ProblemKind::NoText),
    ] {
        let corpus = with(broken.as_bytes(), "a.jsonl", &options);
        assert_eq!((texts(&corpus), kinds(&corpus)), (vec![], vec![kind]));
    }
}

#[test]
fn of_equal_keys_the_last_one_counts() {
    let corpus =
        bytes(b"{\"text\": \"a\", \"text\": \"b\"}\n{\"content\": \"c\", \"text\": \"d\", \"text\": 5}", "a.jsonl");
    assert_eq!(texts(&corpus), ["b", "c"]);
}

#[test]
fn a_window_beyond_the_memory_is_told_with_what_it_needs() {
    let packed = |log: u32, frames: usize| {
        let mut out = Vec::new();
        for _ in 0..frames {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
            encoder.window_log(log).expect("a window");
            encoder.write_all(b"some text").expect("written");
            out.extend(encoder.finish().expect("finished"));
        }
        out
    };
    let options = ReadOptions { zstd_window_log: 22, ..ReadOptions::default() };
    assert_eq!(texts(&with(&packed(22, 2), "a.txt.zst", &options)), ["some textsome text"]);
    let refused = with(&packed(24, 1), "a.txt.zst", &options);
    assert_eq!((texts(&refused), kinds(&refused)), (vec![], vec![ProblemKind::Unsupported]));
    assert!(refused.problems[0].what.contains("16 MiB, which needs --memory 128MiB"), "{}", refused.problems[0]);
    let later = with(&[packed(20, 1), packed(24, 1)].concat(), "a.txt.zst", &options);
    assert_eq!((texts(&later), kinds(&later)), (vec!["some text"], vec![ProblemKind::Unsupported]));
    assert!(later.problems[0].what.contains("--memory"), "{}", later.problems[0]);
    // One segment: the content's size counts.
    let whole = zstd::bulk::compress(&vec![b'x'; 3 << 20], 19).expect("compressed");
    let refused = with(&whole, "a.txt.zst", &ReadOptions { zstd_window_log: 20, ..options });
    assert!(refused.problems[0].what.contains("3 MiB, which needs --memory 32MiB"), "{}", refused.problems[0]);
}

#[test]
fn lists_of_parquet_are_told_apart_from_columns() {
    let place = Folder::new("lists");
    let schema =
        "message page { required group text (LIST) { repeated group list { required binary element (UTF8); } } }";
    let schema = parse_message_type(schema).expect("a schema");
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Default::default()).expect("a writer");
    let mut group = file.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("a column").expect("the first");
    let value = [ByteArray::from("a text")];
    column.typed::<ByteArrayType>().write_batch(&value, Some(&[1]), Some(&[0])).expect("written");
    column.close().expect("a column");
    group.close().expect("a row group");
    let path = place.file("a.parquet", &file.into_inner().expect("a file"));
    for field in [None, Some("text".to_owned())] {
        let corpus = read(&path, &ReadOptions { field, ..ReadOptions::default() });
        assert_eq!(kinds(&corpus), [ProblemKind::NoText]);
        assert!(corpus.problems[0].what.ends_with("outside lists and maps, which are not read"));
    }
}

#[test]
fn json_is_read_in_every_layout() {
    let spread = b"{\n  \"text\": \"a {\\\" }\",\n  \"more\": [\n    {\"x\": \"]\"}\n  ]\n}\n{\n  \"text\": \"b\"\n}\n";
    let array = b"\xef\xbb\xbf[\n  {\"text\": \"a {\\\" }\"},\n  {\"text\": \"b\"}\n]\n";
    let flat = b"[{\"text\":\"a {\\\" }\"},{\"text\":\"b\"}]";
    let joined = b"{\"text\":\"a {\\\" }\"}{\"text\":\"b\"}";
    for (json, names) in [
        (&spread[..], &["a.json", "a.jsonl", "a"][..]),
        (array, &["a.json", "a.jsonl"]),
        (flat, &["a.json", "a"]),
        (joined, &["a.json", "a.jsonl", "a"]),
    ] {
        for name in names {
            let corpus = bytes(json, name);
            assert_eq!((texts(&corpus), kinds(&corpus)), (vec!["a {\" }", "b"], vec![]), "{name}");
        }
    }
    assert_eq!(bytes(joined, "a.jsonl").documents[1].origin.offset, 18);
    // Elements that are no objects, and what is left of a file that ends in the middle.
    let corpus = bytes(b"[{\"text\": \"a\"},\n\"no object\",\n7,\n{\"text\": \"b\"},\n{\"text\": ", "a.json");
    assert_eq!((texts(&corpus), kinds(&corpus)), (vec!["a", "b"], vec![ProblemKind::BadRecord; 2]));
    // Lines that are cut off cost themselves alone.
    let cut = b"{\"text\": \"a\"}\n{\"text\": \"cut\n{\"text\": \"b\"}\n{\"text\": 1\n{\"text\": \"c\"}\n";
    let corpus = bytes(cut, "a.json");
    assert_eq!((texts(&corpus), kinds(&corpus)), (vec!["a", "b", "c"], vec![ProblemKind::BadRecord; 2]));
    let places: Vec<u64> = corpus.problems.iter().map(|problem| problem.origin.record).collect();
    assert_eq!(places, [1, 3]);
}

#[test]
fn of_json_in_any_layout_one_object_is_held() {
    let small = ReadOptions { max_document: 100_000, ..ReadOptions::default() };
    let long = format!("[{{\"text\": \"{}\"}},{{\"text\":\"b\"}}]", "x".repeat(700_000));
    let corpus = with(long.as_bytes(), "a.json", &small);
    assert_eq!((texts(&corpus), kinds(&corpus)), (vec!["b"], vec![ProblemKind::TooLarge]));
    // Longer than a document, and shorter than an object may be; two of them on a line.
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat(250_000));
    for (json, name) in [(format!("[{long},{long}]"), "a.json"), (format!("{long} {long}"), "a.jsonl")] {
        let corpus = with(json.as_bytes(), name, &small);
        let lengths: Vec<usize> = corpus.documents.iter().map(|d| d.text.len()).collect();
        assert_eq!(lengths, [100_000, 100_000, 50_000, 100_000, 100_000, 50_000], "{name}");
        assert_eq!(kinds(&corpus), [ProblemKind::Cut; 2], "{name}");
    }
}

#[test]
fn half_a_character_in_an_escape_does_not_cost_the_record() {
    let line = br#"{"text": "a\\ud800 \ud83d\ude00 \ud83d\u0041 \uDE00 \ud800"}"#;
    let expected = "a\\ud800 😀 \u{fffd}A \u{fffd} \u{fffd}";
    for name in ["a.jsonl", "a.json"] {
        let corpus = bytes(line, name);
        assert_eq!((texts(&corpus), kinds(&corpus)), (vec![expected], vec![ProblemKind::BadUtf8]), "{name}");
    }
    let small = ReadOptions { max_document: 1000, ..ReadOptions::default() };
    let long = format!(r#"{{"id": "\udc00", "text": "{}\ud800"}}"#, "x".repeat(70_000));
    let corpus = with(long.as_bytes(), "a.jsonl", &small);
    assert!(corpus.documents.last().is_some_and(|d| d.text.ends_with('\u{fffd}')), "{:?}", corpus.problems);
    assert_eq!(kinds(&corpus), [ProblemKind::BadUtf8, ProblemKind::Cut]);
    assert!(kinds(&bytes(br#"{"text": "\ud83d\ude00"}"#, "a.jsonl")).is_empty());
}

#[test]
fn a_web_archive_without_pages_is_told() {
    let record = |kind: &str| format!("WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Length: 2\r\n\r\n{{}}\r\n\r\n");
    let wat = bytes([record("warcinfo"), record("metadata"), record("metadata")].concat().as_bytes(), "a.wat");
    assert_eq!(kinds(&wat), [ProblemKind::Unsupported]);
    assert!(wat.problems[0].what.contains("2 records about pages"), "{}", wat.problems[0]);
    let pages = [record("warcinfo"), record("response"), record("metadata")].concat();
    assert!(kinds(&bytes(pages.as_bytes(), "a.warc")).is_empty());
}

#[test]
fn formats_taken_as_text_are_told() {
    for name in ["a.html", "a.HTM", "a.xml", "a.csv", "a.tsv"] {
        let corpus = bytes(b"a,b", name);
        assert_eq!((texts(&corpus), kinds(&corpus)), (vec!["a,b"], vec![ProblemKind::Raw]), "{name}");
    }
    assert!(kinds(&bytes(b"a,b", "a.txt")).is_empty());
}

#[test]
fn the_text_field_is_the_one_named_or_the_first_of_the_usual_ones() {
    let line = b"{\"content\": \"c\", \"text\": 5, \"mine\": \"m\"}\n{\"content\": \"c\", \"text\": \"t\"}\n{\"x\": 1}\n[1]\n{\"text\"";
    let corpus = bytes(line, "a.jsonl");
    assert_eq!(texts(&corpus), ["c", "t"]);
    assert_eq!(kinds(&corpus), [ProblemKind::NoText, ProblemKind::BadRecord, ProblemKind::BadRecord]);
    assert_eq!(corpus.problems[2].origin.record, 4);
    let options = ReadOptions { field: Some("mine".to_owned()), ..ReadOptions::default() };
    assert_eq!(texts(&with(line, "a.jsonl", &options)), ["m"]);
}

#[test]
fn what_comes_before_damage_is_kept_and_the_damage_has_a_place() {
    let whole: String = (0..2000).map(|i| format!("{{\"text\": \"number {i} {}\"}}\n", i * i)).collect();
    let packed = gzip(whole.as_bytes());
    for cut in [20, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
        let corpus = bytes(&packed[..cut], "a.jsonl.gz");
        let kept = corpus.documents.len();
        assert_eq!(kinds(&corpus), [ProblemKind::Damaged], "cut at {cut}");
        assert!(kept <= 2000 && (cut < 100 || kept > 500), "cut at {cut}: {kept}");
        assert!(corpus.documents.iter().enumerate().all(|(i, d)| d.text == format!("number {i} {}", i * i)));
    }
    let packed = zstd(whole.as_bytes());
    let corpus = bytes(&packed[..packed.len() / 2], "a.jsonl.zst");
    assert_eq!(kinds(&corpus), [ProblemKind::Damaged]);
    let archive = tar(&[("a.txt", b"first"), ("b.txt", &[b'x'; 3000])]);
    let corpus = bytes(&archive[..2000], "a.tar");
    assert_eq!(corpus.documents[0].text, "first");
    assert_eq!(kinds(&corpus), [ProblemKind::Damaged]);
    let corpus = bytes(b"good<|endoftext|>b\xff\xfed <\xc3>", "a.txt");
    assert_eq!(texts(&corpus), ["good", "b\u{fffd}\u{fffd}d <\u{fffd}>"]);
    assert_eq!(kinds(&corpus), [ProblemKind::BadUtf8]);
    assert!(corpus.problems[0].what.contains("byte 1 "), "{}", corpus.problems[0]);
}

#[test]
fn bombs_and_huge_records_cost_neither_memory_nor_time() {
    let small = ReadOptions { max_document: 1 << 20, ..ReadOptions::default() };
    let lines = vec![b'\n'; 1 << 20];
    let mut bomb = zstd::Encoder::new(Vec::new(), 3).expect("an encoder");
    (0..4096).for_each(|_| bomb.write_all(&lines).expect("written"));
    let bomb = bomb.finish().expect("finished");
    let corpus = with(&bomb, "a.txt.zst", &small);
    let bombs = kinds(&corpus).into_iter().filter(|k| *k != ProblemKind::Cut).collect::<Vec<_>>();
    assert_eq!((bombs, corpus.documents.len()), (vec![ProblemKind::Bomb], 0));
    // A line above the limit is passed over, the next one is read.
    let line = format!("{{\"text\": \"{}\"}}\n{{\"text\": \"next\"}}\n", "x".repeat(7 << 20));
    let corpus = with(line.as_bytes(), "a.jsonl", &small);
    assert_eq!((texts(&corpus), kinds(&corpus)), (vec!["next"], vec![ProblemKind::TooLarge]));
    // A WARC record that claims the world.
    let record = "WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: 18446744073709551615\r\n\r\nx";
    assert_eq!(kinds(&bytes(record.as_bytes(), "a.wet")), [ProblemKind::Damaged]);
    // Layers upon layers.
    let mut onion = b"core".to_vec();
    (0..20).for_each(|_| onion = gzip(&onion));
    assert_eq!(kinds(&bytes(&onion, "a.gz")), [ProblemKind::Unsupported]);
}

#[test]
fn what_is_no_text_is_named() {
    for (content, kind, says) in [
        (&b"\x7fELF\x02\x01\x01\x00\x00"[..], ProblemKind::NotText, "zero bytes"),
        (b"\x04\x22\x4d\x18abc", ProblemKind::Unsupported, "lz4"),
        (b"%PDF-1.7", ProblemKind::Unsupported, "PDF"),
        (b"\xff\xfea\x00", ProblemKind::Unsupported, "UTF-16"),
        (b"PK\x03\x04", ProblemKind::Unsupported, "zip"),
    ] {
        let corpus = bytes(content, "a");
        assert!(kinds(&corpus) == [kind] && corpus.problems[0].what.contains(says), "{:?}", corpus.problems);
    }
    assert!(kinds(&bytes(b"", "a")).is_empty());
}

/// Numbers of documents and bytes as Python's gzip, json, zipfile and pyarrow read them, cleaned in the same way.
#[test]
fn real_files_give_what_other_tools_read() {
    let default = ReadOptions::default();
    let size =
        |corpus: &TextCorpus| (corpus.documents.len(), corpus.documents.iter().map(|d| d.text.len()).sum::<usize>());
    for (name, documents, length) in [
        ("text/c4_samples/c4-sample.01.json.gz", 10, 14_624),
        ("text/c4_samples/c4-sample.02.json.gz", 10, 20_635),
        ("text/c4_samples/c4-sample.03.json.gz", 10, 18_095),
    ] {
        let Some(path) = shared(name) else { continue };
        let corpus = read(&path, &default);
        assert_eq!((size(&corpus), kinds(&corpus)), ((documents, length), vec![]), "{name}");
    }
    if let Some(path) = shared("parquet/hf_text/test-00000-of-00001.parquet") {
        let options = ReadOptions { field: Some("prompt".to_owned()), ..default.clone() };
        let corpus = read(&path, &options);
        assert_eq!((size(&corpus), kinds(&corpus)), ((1387, 3_161_940), vec![]));
        assert_eq!(corpus.documents[1386].origin.offset, 1, "the last row lies in the second row group");
    }
    if let Some(path) = shared("text/us_gov_speeches") {
        let corpus = read(&path, &default);
        assert_eq!(corpus.documents.len(), 60 + 66);
        assert_eq!(kinds(&corpus), [ProblemKind::BadUtf8; 7]);
    }
    if let Some(path) = shared("text/english_novels") {
        assert_eq!(read(&path, &default).documents.len(), 86);
    }
}

/// As Python 3.11 reads the same bytes; GNU gzip 1.12 reads nothing behind zeros, and only warns of what is there.
#[test]
fn zeros_behind_gzip_are_padding() {
    let whole = [gzip(&LINES[..20]), gzip(&LINES[20..])].concat();
    let padded = |at: usize, zeros: usize| {
        let mut bytes = whole.clone();
        bytes.splice(at..at, vec![0; zeros]);
        bytes
    };
    let between = gzip(&LINES[..20]).len();
    for zeros in [1, 2, 512, 100_000] {
        for at in [between, whole.len()] {
            let corpus = bytes(&padded(at, zeros), "a.jsonl.gz");
            assert_eq!((texts(&corpus), kinds(&corpus)), (vec!["café", "two\nlines"], vec![]), "{zeros} at {at}");
        }
    }
    let corpus = bytes(&[&padded(whole.len(), 100)[..], b"not a member"].concat(), "a.jsonl.gz");
    assert_eq!((texts(&corpus).len(), kinds(&corpus)), (2, vec![ProblemKind::Damaged]));
    assert_eq!(kinds(&bytes(&padded(0, 1), "a.gz")), [ProblemKind::NotText]);
}

/// A field of a line of comma-separated values; quoted ones may hold commas.
fn csv_field(line: &str, column: usize) -> Option<String> {
    let mut quoted = false;
    let mut parts = line.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    parts.nth(column).map(|v| v.trim_matches('"').to_owned())
}

#[test]
fn parquet_values_equal_those_that_its_own_project_lists() {
    let Some(folder) = shared("parquet/parquet-testing") else { return };
    for (name, field, column) in
        [("delta_byte_array", "c_email_address", 7), ("delta_encoding_required_column", "c_email_address:", 15)]
    {
        let list = std::fs::read_to_string(folder.join(format!("{name}_expect.csv"))).expect("a list");
        let expected: Vec<String> =
            list.lines().skip(1).filter_map(|l| csv_field(l, column)).filter(|v| !v.is_empty()).collect();
        let options = ReadOptions { field: Some(field.to_owned()), ..ReadOptions::default() };
        let corpus = read(&folder.join(format!("{name}.parquet")), &options);
        assert!(texts(&corpus) == expected, "{name}: {:?}", corpus.problems);
    }
}

#[test]
fn no_parquet_file_of_the_collection_breaks_the_reader() {
    let Some(folder) = shared("parquet/parquet-testing") else { return };
    let mut damaged = Vec::new();
    for SourceFile { path, name } in expand(&folder).expect("files") {
        if path.extension().is_none_or(|e| e != "parquet") {
            continue;
        }
        let mut corpus = TextCorpus::default();
        let _ = read_file(&path, &name, &ReadOptions::default(), &mut corpus);
        // A column of that name or not: something is said or something is read.
        assert!(!corpus.documents.is_empty() || !corpus.problems.is_empty(), "{name}");
        // Every string column of the schema, so that damaged pages are met.
        let columns = corpus.problems.iter().find_map(|p| p.what.split_once("there are: ").map(|(_, c)| c.to_owned()));
        for field in columns.unwrap_or_default().split(", ").filter(|c| !c.is_empty()) {
            let options = ReadOptions { field: Some(field.to_owned()), ..ReadOptions::default() };
            let _ = read_file(&path, &name, &options, &mut corpus);
        }
        if kinds(&corpus).contains(&ProblemKind::Damaged) {
            damaged.push(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    println!("damaged: {damaged:?}");
    assert!(!damaged.is_empty());
}

#[test]
fn flipped_bits_in_a_parquet_file_are_damage_and_nothing_worse() {
    let Some(folder) = shared("parquet/parquet-testing") else { return };
    let whole = std::fs::read(folder.join("delta_byte_array.parquet")).expect("a file");
    let (options, place) =
        (ReadOptions { field: Some("c_email_address".to_owned()), ..ReadOptions::default() }, Folder::new("flipped"));
    let mut damaged = 0;
    for at in (4..whole.len()).step_by(97) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x41;
        let path = place.file("a.parquet", &flipped);
        damaged += usize::from(kinds(&read(&path, &options)).contains(&ProblemKind::Damaged));
    }
    assert!(damaged > 5, "{damaged} files with damage");
}

#[test]
fn every_way_of_writing_byte_arrays_gives_the_same_texts() {
    use parquet::basic::Encoding;
    use parquet::file::properties::{WriterProperties, WriterVersion};
    let place = Folder::new("encodings");
    let schema = parse_message_type("message page { optional binary text (UTF8); }").expect("a schema");
    let expected: Vec<String> = (0..1000).map(|i| format!("the town of {}", "x".repeat(1 + i % 37))).collect();
    let values: Vec<ByteArray> = expected.iter().map(|t| ByteArray::from(t.as_str())).collect();
    // Every fourth row is null.
    let levels: Vec<i16> = (0..1000).flat_map(|i| if i % 3 == 0 { vec![0, 1] } else { vec![1] }).collect();
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for encoding in
            [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY), Some(Encoding::DELTA_BYTE_ARRAY)]
        {
            let mut properties =
                WriterProperties::builder().set_writer_version(version).set_data_page_row_count_limit(300);
            if let Some(encoding) = encoding {
                properties = properties.set_dictionary_enabled(false).set_encoding(encoding);
            }
            let (schema, properties) = (Arc::new(schema.clone()), Arc::new(properties.build()));
            let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).expect("a writer");
            let mut group = file.next_row_group().expect("a row group");
            let mut column = group.next_column().expect("a column").expect("the first");
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).expect("written");
            column.close().expect("a column");
            group.close().expect("a row group");
            let path = place.file("a.parquet", &file.into_inner().expect("a file"));
            let corpus = read(&path, &ReadOptions::default());
            assert_eq!(kinds(&corpus), [ProblemKind::NoText], "{version:?} {encoding:?}");
            assert!(corpus.problems[0].what.starts_with("334 rows"), "{}", corpus.problems[0]);
            assert_eq!(texts(&corpus), expected, "{version:?} {encoding:?}");
        }
    }
}

/// A file of one string column and one page.
fn small_parquet() -> Vec<u8> {
    let schema = parse_message_type("message page { required binary text (UTF8); }").expect("a schema");
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Default::default()).expect("a writer");
    let mut group = file.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("a column").expect("the first");
    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from("a text")], None, None).expect("written");
    column.close().expect("a column");
    group.close().expect("a row group");
    file.into_inner().expect("a file")
}

#[test]
fn a_page_header_with_two_thousand_million_elements_ends_with_the_file() {
    let (options, place) = (ReadOptions::default(), Folder::new("long-header"));
    let whole = small_parquet();
    assert_eq!(texts(&read(&place.file("whole.parquet", &whole), &options)), ["a text"]);
    // Thrift: a field that no header has, a list of 2^31 - 1 doubles. The library skips each by itself, also behind the end
    // of the file, for a quarter of an hour.
    let mut long = whole;
    long[4..11].copy_from_slice(&[0xf9, 0xf7, 0xff, 0xff, 0xff, 0xff, 0x07]);
    assert_eq!(kinds(&read(&place.file("long.parquet", &long), &options)), [ProblemKind::Damaged]);
}

#[test]
fn web_archives_give_the_text_of_their_pages() {
    let Some(folder) = shared("warc/whirlwind") else { return };
    let default = ReadOptions::default();
    let wet = read(&folder.join("whirlwind.warc.wet"), &default);
    assert_eq!(texts(&wet), texts(&read(&folder.join("whirlwind.warc.wet.gz"), &default)));
    assert_eq!((wet.documents.len(), kinds(&wet)), (1, vec![]));
    let page = read(&folder.join("whirlwind.warc.gz"), &default);
    assert_eq!(page.documents.len(), 1);
    assert!(read(&folder.join("whirlwind.warc.wat"), &default).documents.is_empty(), "metadata is no text");
    // Common Crawl's own extraction of this page is the oracle: nearly the same words in nearly the same order.
    let words = |c: &TextCorpus| -> Vec<String> { c.documents[0].text.split_whitespace().map(str::to_owned).collect() };
    let (ours, theirs) = (words(&page), words(&wet));
    let common = theirs.iter().filter(|w| ours.contains(w)).count();
    assert!(common * 100 >= theirs.len() * 97, "{common} of {} words", theirs.len());
    assert!(ours.len() * 100 <= theirs.len() * 110, "{} words against {}", ours.len(), theirs.len());
}

#[test]
fn clipped_and_quirky_web_archives_are_read_as_far_as_they_go() {
    let Some(folder) = shared("warc/fastwarc") else { return };
    let default = ReadOptions::default();
    let whole = read(&folder.join("warcfile.warc.gz"), &default);
    assert_eq!(texts(&whole), texts(&read(&folder.join("warcfile.warc"), &default)));
    assert!(whole.documents.len() > 5 && kinds(&whole).is_empty(), "{} {:?}", whole.documents.len(), whole.problems);
    let clipped = read(&folder.join("clipped.warc.gz"), &default);
    assert_eq!(kinds(&clipped), [ProblemKind::Damaged], "{:?}", clipped.problems);
    assert_eq!(kinds(&read(&folder.join("warcfile.warc.lz4"), &default)), [ProblemKind::Unsupported]);
    let quirk = read(&folder.join("clueweb-quirk.warc.gz"), &default);
    println!("clueweb: {} documents, {:?}", quirk.documents.len(), quirk.problems);
    assert!(quirk.documents.len() > 10);
}

#[test]
fn records_are_whole_whatever_they_are_packed_in() {
    let place = Folder::new("records");
    let found = |path: &std::path::Path, most: usize| -> Result<Vec<serde_json::Value>, DataError> {
        let mut found = Vec::new();
        read_records::<DataError>(path, &mut |number, record| {
            found.push(record);
            assert_eq!(number, found.len());
            Ok(if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    };
    let schema = parse_message_type(
        "message item { required binary ask (UTF8); required int64 gold; \
         required group choices (LIST) { repeated group list { required binary element (UTF8); } } }",
    );
    let schema = schema.expect("a schema");
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Default::default()).expect("a writer");
    let mut group = file.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("a column").expect("the first");
    let asked = ["why", "how"].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&asked, None, None).expect("written");
    column.close().expect("a column");
    let mut column = group.next_column().expect("a column").expect("the second");
    column.typed::<Int64Type>().write_batch(&[1, 0], None, None).expect("written");
    column.close().expect("a column");
    let mut column = group.next_column().expect("a column").expect("the third");
    let choices = ["a", "b", "c"].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&choices, Some(&[1; 3]), Some(&[0, 1, 0])).expect("written");
    column.close().expect("a column");
    group.close().expect("a row group");
    let parquet = file.into_inner().expect("a file");

    let lines = "{\"ask\": \"why\", \"gold\": 1, \"choices\": [\"a\", \"b\"]}\n{\"ask\": \"how\", \"gold\": 0, \"choices\": [\"c\"]}\n";
    let expected: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let zstd = zstd(lines.as_bytes());
    let array = serde_json::to_string_pretty(&expected).expect("JSON");
    for (name, bytes) in [
        ("a", lines.as_bytes()),
        ("b", &parquet),
        ("c", &gzip(lines.as_bytes())),
        ("d", &zstd),
        ("e", &gzip(&zstd)),
        ("f", array.as_bytes()),
    ] {
        let path = place.file(name, bytes);
        assert_eq!(found(&path, 9).expect(name), expected, "{name}");
        assert_eq!(found(&path, 1).expect(name), expected[..1], "{name}");
    }
    for (bytes, says) in [
        (&b"{\"a\": 1}\n{\"a\""[..], "line 2"),
        (&array.as_bytes()[..array.len() - 9], "object 2: ends in the middle"),
        (&parquet[..parquet.len() - 9], "Parquet"),
        (&zstd[..zstd.len() - 3], ""),
        (b"PK\x03\x04", "holds no records"),
    ] {
        let error = found(&place.file("broken", bytes), 9).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}
