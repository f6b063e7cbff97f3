//! The index of a run's training tokens: made, read, searched, and kept up to date by a server.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use corella_server::{Place, Span, Tracer};
use corella_text::tokenizer::Tokenizer;
use corella_trace::{Index, SpanRules, TokenSpan, spans};
use corella_train::{RunPlan, checkpoint, folder};

use super::source;
use crate::error::{Failure, Result};
use crate::inputs::{TINY_INTERNET, dataset, kept_tokenizer};
use crate::terminal::in_shell;

/// Name of the index in a run folder.
const INDEX: &str = "trace.index";
/// Places of a span that are shown.
const PLACES: usize = 3;
/// Tokens shown around a place.
const AROUND: usize = 30;
/// How long a question waits for an index that is being read.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is said of one that takes longer.
const READING: &str = "The training data are being read; ask again in a moment.";

/// The index of a run's training tokens, with the tokenizer that made them.
pub struct RunTracer {
    pub index: Index,
    pub rules: SpanRules,
    tokenizer: Tokenizer,
}

impl RunTracer {
    /// Reads the index that `corella trace index` wrote, where there is one. The data are read only where anything of them
    /// looks different from what they were then; where they are different the index is refused.
    pub fn open(run: &Path, plan: &RunPlan) -> Result<Option<RunTracer>> {
        let path = run.join(INDEX);
        if !path.is_file() {
            return Ok(None);
        }
        // A vocabulary of the run's own is all that is needed to read the index.
        let kept = kept_tokenizer(run)?.map(|(_, tokenizer)| tokenizer);
        if let (Some(tokenizer), Some(mark)) = (kept, source::mark(run, plan)) {
            let (index, noted) = Index::read(&path, tokenizer.end_of_text())?;
            if noted == mark {
                return Ok(Some(RunTracer { index, tokenizer, rules: SpanRules::default() }));
            }
        }
        let (tokens, tokenizer) = training_tokens(run, plan)?;
        let (index, _) = Index::read(&path, tokenizer.end_of_text())?;
        index.check_tokens(&path, &tokens)?;
        Ok(Some(RunTracer { index, tokenizer, rules: SpanRules::default() }))
    }

    /// Writes the index into the folder of the run; returns where it is.
    pub fn write(&self, run: &Path, mark: Option<u64>) -> Result<PathBuf> {
        let path = run.join(INDEX);
        self.index.write(&path, mark.unwrap_or(source::UNKNOWN))?;
        Ok(path)
    }

    pub fn build(run: &Path, plan: &RunPlan) -> Result<RunTracer> {
        let (tokens, tokenizer) = training_tokens(run, plan)?;
        let index = Index::build(tokens, tokenizer.end_of_text())?;
        Ok(RunTracer { index, tokenizer, rules: SpanRules::default() })
    }

    pub fn find(&self, text: &str) -> Vec<Span> {
        let ids = self.tokenizer.encode(text);
        let units = token_units(text, &ids, &self.tokenizer);
        let found = spans(&self.index, &ids, self.tokenizer.end_of_text(), self.rules);
        found.iter().map(|span| self.show(span, &ids, &units)).collect()
    }

    fn show(&self, span: &TokenSpan, ids: &[u32], units: &[usize]) -> Span {
        let (start, end) = (span.range.start, span.range.end);
        let places = self.index.positions(&span.found, PLACES);
        // The token at a document's end is no part of its text.
        let border = self.tokenizer.end_of_text();
        let text = |range| {
            let ids: Vec<u32> = self.index.tokens(range).iter().copied().filter(|id| *id != border).collect();
            self.tokenizer.decode(&ids)
        };
        let documents: Vec<Place> = places
            .iter()
            .map(|at| {
                let (document, inside) = self.index.document(*at);
                let behind = at + (end - start);
                Place {
                    document: document as u64,
                    before: text(inside.start.max(at.saturating_sub(AROUND))..*at),
                    matched: text(*at..behind),
                    after: text(behind..inside.end.min(behind + AROUND).max(behind)),
                }
            })
            .collect();
        let leaves = documents.first().map(|d| d.after.clone()).filter(|after| !after.is_empty() && end < ids.len());
        Span { start: units[start], end: units[end], tokens: end - start, count: span.found.count(), documents, leaves }
    }
}

/// The training data of a run as a server searches them. The tiny internet is made and sorted in seconds; other data are
/// searched from when an index of them is there, which may be made while the server runs. All of it is read on a thread of its
/// own: what does not need it is served meanwhile.
pub struct Traced(Arc<Shared>);

struct Shared {
    run: PathBuf,
    plan: RunPlan,
    known: Mutex<Known>,
    /// Told when a reading has ended.
    read: Condvar,
}

/// The index that was read last.
struct Known {
    /// When it was written; none of one that was made here.
    written: Option<SystemTime>,
    /// Whether one is being read.
    reading: bool,
    /// It, or why it cannot be used.
    tracer: std::result::Result<Arc<RunTracer>, String>,
}

impl Traced {
    /// Of the run in this folder; what can be searched already is being read from now on.
    pub fn new(run: &Path, plan: RunPlan) -> Traced {
        let known = Known { written: None, reading: false, tracer: Err(missing(run)) };
        let (run, known) = (run.to_path_buf(), Mutex::new(known));
        let traced = Traced(Arc::new(Shared { run, plan, known, read: Condvar::new() }));
        let is_made_here = traced.0.plan.data.path == TINY_INTERNET && !traced.0.run.join(INDEX).is_file();
        let mut known = traced.0.lock();
        if is_made_here {
            traced.read(&mut known, |shared| Ok(Some(RunTracer::build(&shared.run, &shared.plan)?)));
        } else {
            traced.look_again(&mut known);
        }
        drop(known);
        traced
    }

    /// Reads the index where there is another one than the last time.
    fn look_again(&self, known: &mut Known) {
        let written = std::fs::metadata(self.0.run.join(INDEX)).and_then(|meta| meta.modified()).ok();
        if known.reading || written.is_none() || written == known.written {
            return;
        }
        known.written = written;
        self.read(known, |shared| RunTracer::open(&shared.run, &shared.plan));
    }

    /// Lets a thread do `work`, and says until then that the data are being read.
    fn read(&self, known: &mut Known, work: impl FnOnce(&Shared) -> Result<Option<RunTracer>> + Send + 'static) {
        (known.reading, known.tracer) = (true, Err(READING.to_owned()));
        let shared = self.0.clone();
        // It ends with the program, which waits for no index.
        std::thread::spawn(move || {
            let done = catch_unwind(AssertUnwindSafe(|| work(&shared)));
            let tracer = match done.unwrap_or_else(|_| Err(Failure::new("reading it failed"))) {
                Ok(Some(tracer)) => Ok(Arc::new(tracer)),
                Ok(None) => Err(missing(&shared.run)),
                Err(failure) => Err(format!("The index of the training data cannot be used: {}.", failure.message())),
            };
            let mut known = shared.lock();
            (known.reading, known.tracer) = (false, tracer);
            shared.read.notify_all();
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // A search that failed left the index as it was.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to do where no index is.
fn missing(run: &Path) -> String {
    let run = in_shell(&run.to_string_lossy());
    format!("The training data are not indexed: run `corella trace index {run}`, and ask again.")
}

impl Tracer for Traced {
    fn spans(&self, text: &str) -> std::result::Result<Vec<Span>, String> {
        let mut known = self.0.lock();
        self.look_again(&mut known);
        // A small index is there before anybody would ask again.
        let waited = self.0.read.wait_timeout_while(known, PATIENCE, |known| known.reading);
        let (known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let tracer = known.tracer.clone();
        // The search itself holds up nobody.
        drop(known);
        tracer.map(|tracer| tracer.find(text))
    }
}

/// The tokens that a run was trained on, as it saw them: by its own tokenizer, and refused where they are others by now.
fn training_tokens(run: &Path, plan: &RunPlan) -> Result<(Vec<u32>, Tokenizer)> {
    let source = Path::new(&plan.data.path);
    let tokenizer = kept_tokenizer(run)?.map_or(plan.data.tokenizer.clone(), |(path, _)| path.display().to_string());
    let data = dataset(source, &tokenizer, plan.model.vocab_size, plan.train.seed, run)?;
    if let Some(newest) = checkpoint::latest(&folder::checkpoints(run))? {
        let (mark, checksum) = (data.train.mark()?, data.train.checksum());
        let other = checkpoint::check_tokenizer(&newest, &data.tokenizer).is_err()
            || newest.state.data.is_some_and(|was| was != mark)
            || newest.state.checksum.zip(checksum).is_some_and(|(was, is)| is.contradicts(was));
        if other {
            return Err(Failure::new(format!(
                "{} is not what {} was trained on: it has changed since",
                source.display(),
                run.display()
            ))
            .hint("bring the data back as they were; the run's run.toml names them"));
        }
    }
    Ok((data.train.to_vec()?, data.tokenizer))
}

/// Where each token begins, and where the last ends, in UTF-16 units of `text`, whose tokens they are. A border inside a character counts as the
/// character's beginning.
fn token_units(text: &str, ids: &[u32], tokenizer: &Tokenizer) -> Vec<usize> {
    let mut units = vec![0; text.len() + 1];
    let mut count = 0;
    for (at, c) in text.char_indices() {
        units[at..at + c.len_utf8()].fill(count);
        count += c.len_utf16();
    }
    units[text.len()] = count;
    let mut at = 0;
    let mut starts = vec![0];
    for (i, id) in ids.iter().enumerate() {
        at += tokenizer.token_bytes_after(&ids[..i], *id).len();
        starts.push(units[at.min(text.len())]);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SentencePiece puts a space in front of a text, which is a part of the first token and not of the text.
    #[test]
    fn tokens_stand_where_their_words_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/eval/llama");
        let tokenizer = Tokenizer::load(&path).expect("a vocabulary");
        let text = "The red fox saw nine geese";
        let ids = tokenizer.encode(text);
        let units = token_units(text, &ids, &tokenizer);
        for (i, unit) in units.iter().enumerate() {
            assert_eq!(text[..*unit], tokenizer.decode(&ids[..i]), "in front of token {i}");
        }
        assert_eq!(*units.last().expect("an end"), text.len());
    }
}
