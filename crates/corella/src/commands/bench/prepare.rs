//! How fast text is read, cleaned, judged, hashed and tokenised: each stage by itself on one thread.

use std::path::Path;
use std::time::Instant;

use corella_text::data::filters::FilterOptions;
use corella_text::data::readers::{ReadOptions, read_file};
use corella_text::data::{CleanOptions, Document, TextCorpus, clean, signature, text_hash};
use corella_text::tiny_internet::{Corpus, CorpusOptions, World};
use corella_text::tokenizer::Tokenizer;
use serde::Serialize;

use crate::cli::{BenchArgs, Common};
use crate::error::Result;
use crate::inputs::{TINY_INTERNET, TINY_PAGES, WORLD_SEED, pages_as_documents, source_files};
use crate::output::deliver;

/// A stage and its rate.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// Documents.
    shape: String,
    /// Median of the repetitions.
    value: f64,
    unit: &'static str,
    formula: &'static str,
}

/// The last line of the output.
#[derive(Serialize)]
struct Output {
    source: String,
    documents: usize,
    text_bytes: usize,
    results: Vec<Row>,
}

struct Stages<'a> {
    repeat: usize,
    quiet: bool,
    documents: &'a [Document],
    bytes: usize,
    rows: Vec<Row>,
}

/// Runs the stages over the text that was named, or over the tiny internet.
pub fn run(args: &BenchArgs, common: &Common) -> Result<()> {
    let source = args.text.as_deref().unwrap_or(Path::new(TINY_INTERNET));
    let (documents, read) = if source == Path::new(TINY_INTERNET) {
        let world = World::new(WORLD_SEED);
        let corpus = Corpus::generate(&world, CorpusOptions { seed: common.seed(), documents: TINY_PAGES });
        (pages_as_documents(&corpus).collect(), None)
    } else {
        let files = source_files(source, common.json)?;
        let corpus = TextCorpus::read(&files, &ReadOptions::default())?;
        (corpus.documents, Some(files))
    };
    let bytes = documents.iter().map(|d| d.text.len()).sum();
    let mut stages = Stages { repeat: args.repeat, quiet: common.json, documents: &documents, bytes, rows: Vec::new() };
    if !common.json {
        println!(
            "{}: {} documents, {:.1} MB of text; one thread",
            source.display(),
            documents.len(),
            bytes as f64 / 1e6
        );
    }
    if let Some(files) = read {
        stages.measure("read", || {
            for file in &files {
                let _ = read_file(&file.path, &file.name, &ReadOptions::default(), &mut Counter(0));
            }
        });
    }
    stages.each("clean", |text| clean(text, CleanOptions::default()).len());
    stages.each("clean-nfc", |text| clean(text, CleanOptions { nfc: true }).len());
    let none = FilterOptions::default();
    let rules: [(&'static str, FilterOptions); 6] = [
        ("language", FilterOptions { languages: vec!["eng".to_owned()], ..none.clone() }),
        ("gopher", FilterOptions { gopher: true, ..none.clone() }),
        ("repetition", FilterOptions { repetition: true, ..none.clone() }),
        ("c4", FilterOptions { c4: true, ..none.clone() }),
        ("fineweb", FilterOptions { fineweb: true, ..none.clone() }),
        ("boilerplate", FilterOptions { boilerplate: true, ..none }),
    ];
    for (name, filters) in rules {
        stages.each(name, |text| filters.judge(text).text.len());
    }
    stages.each("exact-duplicates", |text| text_hash(text) as usize);
    stages.each("near-duplicates", |text| usize::from(signature(text).0[0]));
    let gpt2 = Tokenizer::gpt2();
    stages.each("tokenise-gpt2", |text| gpt2.encode(text).len());
    let output = Output {
        source: source.display().to_string(),
        documents: documents.len(),
        text_bytes: bytes,
        results: stages.rows,
    };
    deliver(serde_json::to_string(&output)?)
}

impl Stages<'_> {
    /// Times a function of each text.
    fn each(&mut self, name: &'static str, stage: impl Fn(&str) -> usize) {
        let documents = self.documents;
        self.measure(name, || {
            for document in documents {
                std::hint::black_box(stage(std::hint::black_box(&document.text)));
            }
        });
    }

    fn measure(&mut self, name: &'static str, body: impl Fn()) {
        let mut seconds: Vec<f64> = (0..self.repeat)
            .map(|_| {
                let start = Instant::now();
                body();
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let value = self.bytes as f64 / 1e6 / seconds[seconds.len() / 2];
        if !self.quiet {
            println!("{name:18} {value:8.1} MB/s per core");
        }
        let shape = format!("{} documents", self.documents.len());
        self.rows.push(Row { name, shape, value, unit: "MB/s", formula: "bytes of text / time" });
    }
}

/// Counts and drops what is read.
struct Counter(usize);

impl corella_text::data::Sink for Counter {
    fn document(&mut self, document: Document) -> corella_text::data::Flow {
        self.0 += document.text.len();
        std::ops::ControlFlow::Continue(())
    }

    fn problem(&mut self, _: corella_text::data::Problem) -> corella_text::data::Flow {
        std::ops::ControlFlow::Continue(())
    }
}
