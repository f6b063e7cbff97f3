//! The second pass: what is kept is tokenised and written.

use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::super::DataError;
use super::super::clean::clean;
use super::super::document::{Document, Flow, Origin, Problem};
use super::super::duplicates::Found;
use super::super::filters::Rule;
use super::choice::{Choice, Lots, Part};
use super::parallel::ordered;
use super::report::{EXAMPLES, Example, Report};
use super::state::{Folder, Progress, ShardsDone, Stage};
use super::stream::{Item, cost, read_all};
use super::survey::{Record, Survey};
use super::writer::{PartState, PartWriter};
use super::{Job, Watch};
use crate::tokenizer::{Encoder, Tokenizer};

/// Tokens between two notes of the progress.
const NOTE_EVERY: u64 = 4_000_000;

/// Which documents go where.
pub(super) struct Fate {
    found: Found,
    /// Documents that are kept.
    pub kept: u64,
    /// What is for validation.
    choice: Choice,
}

/// What becomes of a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Keep(Part),
    Dropped(Rule),
}

impl Fate {
    /// Decides over all documents of a survey, and counts them.
    pub(super) fn decide(job: &Job<'_>, survey: &Survey, found: Found, report: &mut Report) -> Result<Fate, DataError> {
        let (mut records, mut lots) = (survey.records()?, Lots::new(job.options.val_fraction));
        let mut number = 0;
        while let Some(record) = records.next()? {
            report.read.add(u64::from(record.bytes_in));
            match rule(&found, number, &record) {
                Some(rule) => report.dropped.entry(rule).or_default().tally.add(u64::from(record.bytes_in)),
                None => {
                    report.kept.add(u64::from(record.bytes_out));
                    report.lines_cut += u64::from(record.lines_cut);
                    lots.add(number, record.lot(), u64::from(record.bytes_out));
                }
            }
            number += 1;
        }
        Ok(Fate { found, kept: lots.documents(), choice: lots.decide() })
    }

    /// What becomes of document `number`.
    pub(super) fn of(&self, number: u64, record: &Record) -> Verdict {
        match rule(&self.found, number, record) {
            Some(rule) => Verdict::Dropped(rule),
            None => Verdict::Keep(self.choice.of(number, record.lot())),
        }
    }
}

/// Why a document is dropped, if it is.
fn rule(found: &Found, number: u64, record: &Record) -> Option<Rule> {
    record
        .dropped
        .or_else(|| found.exact.has(number).then_some(Rule::ExactDuplicate))
        .or_else(|| found.near.has(number).then_some(Rule::NearDuplicate))
}

/// An item on its way to the writer.
enum Task {
    Keep { document: Document, part: Part, source: u32, hash: u64, number: u64 },
    Example { rule: Rule, document: Document },
    Problem(Problem),
    Failed(DataError),
}

enum Done {
    Kept { origin: Origin, source: u32, hash: u64, number: u64, pieces: Vec<(Part, usize, Vec<u32>)> },
    Example { rule: Rule, example: Example },
    Problem(Problem),
    Failed(DataError),
}

/// Writes the shards of everything that is kept; what an earlier run has written stays.
pub(super) fn write(
    job: &Job<'_>,
    folder: &Folder,
    survey: &Survey,
    fate: &Fate,
    tokenizer: &Tokenizer,
    out: &Path,
    report: &mut Report,
    watch: &mut dyn Watch,
) -> Result<(PartState, PartState), DataError> {
    let done = match folder.progress()?.stage {
        Stage::Shards { done: Some(done), .. } => *done,
        _ => ShardsDone { documents: 0, train: PartState::default(), val: PartState::default() },
    };
    let skip = done.documents;
    if skip > 0 {
        watch.goes_on(skip);
    }
    let (vocab_size, shard_tokens) = (tokenizer.vocab_size(), job.options.shard_tokens);
    let mut train = PartWriter::new(out, "train", vocab_size, shard_tokens, done.train)?;
    let mut val = PartWriter::new(out, "val", vocab_size, shard_tokens, done.val)?;
    let mut failure: Option<DataError> = None;
    let mut tokens_since_note = 0u64;
    let encoders = Encoders { tokenizer, idle: Mutex::default() };
    ordered(
        job.options.threads,
        job.options.in_flight(),
        |feed| {
            let mut producer = match Producer::new(job, survey, fate, skip, out) {
                Ok(producer) => producer,
                Err(e) => {
                    let _ = feed.put(Task::Failed(e), 0);
                    return;
                }
            };
            let read = read_all(job, &mut |item| {
                let cost = cost(&item);
                match producer.task(item) {
                    Ok(Some(task)) => feed.put(task, cost),
                    Ok(None) => Flow::Continue(()),
                    Err(e) => {
                        let _ = feed.put(Task::Failed(e), 0);
                        Flow::Break(())
                    }
                }
            });
            if read.is_continue()
                && let Err(e) = producer.finish()
            {
                let _ = feed.put(Task::Failed(e), 0);
            }
        },
        |task| match task {
            Task::Keep { document, part, source, hash, number } => {
                let pieces =
                    encoders.with(|encoder| tokenise(job, encoder, tokenizer.end_of_text(), &document.text, part));
                Done::Kept { origin: document.origin, source, hash, number, pieces }
            }
            Task::Example { rule, document } => Done::Example { rule, example: example(job, &document) },
            Task::Problem(problem) => Done::Problem(problem),
            Task::Failed(e) => Done::Failed(e),
        },
        |done| {
            let step = || -> Result<(), DataError> {
                match done {
                    Done::Kept { origin, source, hash, number, pieces } => {
                        for (part, bytes, ids) in &pieces {
                            let writer = if *part == Part::Val { &mut val } else { &mut train };
                            writer.append(&origin, source, hash, *bytes, ids)?;
                            tokens_since_note += ids.len() as u64;
                            watch.tokenised(*bytes as u64, ids.len() as u64);
                        }
                        if tokens_since_note >= NOTE_EVERY {
                            tokens_since_note = 0;
                            let done = ShardsDone { documents: number + 1, train: train.note()?, val: val.note()? };
                            let stage = Stage::Shards { documents: survey.documents, done: Some(Box::new(done)) };
                            folder.note(&Progress { stage })?;
                        }
                    }
                    Done::Example { rule, example } => report.dropped.entry(rule).or_default().examples.push(example),
                    Done::Problem(problem) => report.problem(&problem),
                    Done::Failed(e) => return Err(e),
                }
                Ok(())
            };
            match step() {
                Ok(()) => Flow::Continue(()),
                Err(e) => {
                    failure = Some(e);
                    Flow::Break(())
                }
            }
        },
    );
    match failure {
        Some(failure) => Err(failure),
        None => Ok((train.finish()?, val.finish()?)),
    }
}

/// Encoders that remember the words of earlier documents: as many as threads work at a time.
struct Encoders<'a> {
    tokenizer: &'a Tokenizer,
    idle: Mutex<Vec<Encoder>>,
}

impl Encoders<'_> {
    fn with<T>(&self, work: impl FnOnce(&mut Encoder) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut encoder = taken.unwrap_or_else(|| Encoder::new(self.tokenizer));
        let done = work(&mut encoder);
        idle().push(encoder);
        done
    }
}

/// Goes along the documents and their records, and says what is to be done with each.
struct Producer<'a> {
    job: &'a Job<'a>,
    fate: &'a Fate,
    records: super::survey::Records,
    /// Documents below this number are written already.
    skip: u64,
    number: u64,
    documents: u64,
    examples: rustc_hash::FxHashMap<Rule, usize>,
    sources: Sources,
}

impl<'a> Producer<'a> {
    fn new(job: &'a Job<'a>, survey: &Survey, fate: &'a Fate, skip: u64, out: &Path) -> Result<Self, DataError> {
        Ok(Producer {
            job,
            fate,
            records: survey.records()?,
            skip,
            number: 0,
            documents: survey.documents,
            examples: rustc_hash::FxHashMap::default(),
            sources: Sources::create(&out.join("sources.txt"))?,
        })
    }

    fn task(&mut self, item: Item) -> Result<Option<Task>, DataError> {
        let document = match item {
            Item::Document(document) => document,
            Item::Problem(problem) => return Ok(Some(Task::Problem(problem))),
            Item::FileDone { .. } => return Ok(None),
        };
        let number = self.number;
        self.number += 1;
        let Some(record) = self.records.next()? else { return Err(self.changed()) };
        let source = self.sources.number(&document.origin.source)?;
        Ok(match self.fate.of(number, &record) {
            Verdict::Dropped(rule) => {
                let seen = self.examples.entry(rule).or_insert(0);
                *seen += 1;
                (*seen <= EXAMPLES).then_some(Task::Example { rule, document })
            }
            Verdict::Keep(_) if number < self.skip => None,
            Verdict::Keep(part) => Some(Task::Keep { document, part, source, hash: record.lot(), number }),
        })
    }

    fn finish(self) -> Result<(), DataError> {
        if self.number != self.documents {
            return Err(self.changed());
        }
        self.sources.finish()
    }

    fn changed(&self) -> DataError {
        let path = self.job.files.first().map(|f| f.path.clone()).unwrap_or_default();
        DataError::bad(&path, "the sources changed while they were prepared; run the same command again")
    }
}

/// Numbers the sources in the order of their first documents, and writes their names down.
struct Sources {
    path: std::path::PathBuf,
    out: std::io::BufWriter<std::fs::File>,
    last: Option<std::sync::Arc<str>>,
    count: u32,
}

impl Sources {
    fn create(path: &Path) -> Result<Sources, DataError> {
        let file = std::fs::File::create(path).map_err(DataError::io(path))?;
        Ok(Sources { path: path.to_path_buf(), out: std::io::BufWriter::new(file), last: None, count: 0 })
    }

    /// The number of a source. Documents of one source come one after the other, so only the last name is kept.
    fn number(&mut self, source: &std::sync::Arc<str>) -> Result<u32, DataError> {
        if self.last.as_ref() != Some(source) {
            let line = serde_json::Value::from(&**source).to_string();
            writeln!(self.out, "{line}").map_err(DataError::io(&self.path))?;
            self.last = Some(std::sync::Arc::clone(source));
            self.count += 1;
        }
        Ok(self.count - 1)
    }

    fn finish(mut self) -> Result<(), DataError> {
        self.out.flush().and_then(|()| self.out.get_ref().sync_all()).map_err(DataError::io(&self.path))
    }
}

/// The tokens of what is left of a text: one piece, or two where it is split.
fn tokenise(
    job: &Job<'_>,
    encoder: &mut Encoder,
    end_of_text: u32,
    text: &str,
    part: Part,
) -> Vec<(Part, usize, Vec<u32>)> {
    let cleaned = clean(text, job.options.clean);
    let (text, _) = job.options.filters.cut(&cleaned);
    let mut encode = |text: &str| {
        let mut ids = Vec::with_capacity(1 + text.len() / 3);
        ids.push(end_of_text);
        encoder.encode(text, &mut ids);
        ids
    };
    let pieces = match part {
        Part::Split(share) => {
            let (train, val) = super::in_memory::split(&text, share);
            vec![(Part::Train, train), (Part::Val, val)]
        }
        part => vec![(part, &text[..])],
    };
    pieces.into_iter().filter(|(_, t)| !t.is_empty()).map(|(part, t)| (part, t.len(), encode(t))).collect()
}

fn example(job: &Job<'_>, document: &Document) -> Example {
    let cleaned = clean(&document.text, job.options.clean);
    let found = job.options.filters.judge(&cleaned).rejection.map(|r| r.found).unwrap_or_default();
    Example::new(&document.origin, found, &cleaned)
}
