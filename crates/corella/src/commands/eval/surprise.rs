//! How well a text, or a stream of tokens, is predicted.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use corella_eval::negative_log_likelihood;
use corella_model::TextModel;
use corella_text::data::readers::{ReadOptions, read_bytes, read_file};
use corella_text::data::{CleanOptions, Dataset, Document, Flow, Problem, ProblemKind, Sink, clean};
use corella_text::tokenizer::Tokenizer;
use corella_text::{bits_per_byte, text_bytes};
use serde::Serialize;

use super::with_way_out;
use crate::error::{Failure, Result, of_path};
use crate::inputs::{OTHER_FIELD, check_finished, no_file, source_files, unified};
use crate::meter::Meter;
use crate::source_problems::SourceProblems;

/// How well a stream of tokens is predicted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Surprise {
    /// How many are predicted.
    pub tokens: usize,
    /// Their negative log-likelihood, in nats.
    pub nll: f64,
    pub perplexity: f64,
    /// None where they stand for no text.
    pub bits_per_byte: Option<f64>,
    /// Tokens of a window.
    pub context: usize,
}

/// The text is cut into windows. Each starts with the token that marks the start of a text (`bos`), which predicts the
/// window's first token, so every token of the text is predicted exactly once; without it the first token of each window is
/// not predicted.
pub fn of_text(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    path: &Path,
    context: usize,
    bos: Option<u32>,
    quiet: bool,
) -> Result<Surprise> {
    let texts = texts(path, quiet)?;
    let ids = joined(&texts, tokenizer);
    if ids.is_empty() {
        return Err(Failure::new(format!("{} is empty", path.display())).hint("give a file with text in it"));
    }
    let start: Vec<u32> = bos.into_iter().collect();
    let windows = ids.chunks(context - start.len()).map(|chunk| [&start[..], chunk].concat());
    let windows: Vec<Vec<u32>> = windows.filter(|window| window.len() > 1).collect();
    if windows.is_empty() {
        return Err(Failure::new(format!("{} is a single token, which nothing predicts", path.display()))
            .hint("give a longer text, or leave --no-bos out: the token in front predicts the first one"));
    }
    // Of what is predicted: without the token in front that is not all of the text.
    let bytes = match bos {
        Some(_) => texts.iter().map(|text| text.len() as u64).sum(),
        None => bytes_of_targets(tokenizer, &windows),
    };
    surprise(model, windows, bytes, context, quiet)
}

/// The texts of a source in any format that `prepare` reads. One alone keeps the white space around it, as a stretch of a longer
/// text; several are documents, and are what `prepare` makes of them. What cannot be read ends it: a measure of a part is none of
/// the whole.
fn texts(path: &Path, quiet: bool) -> Result<Vec<String>> {
    // A document that is cut for its length would be two.
    let options = ReadOptions { max_document: usize::MAX / 8, ..ReadOptions::default() };
    let mut found = Found::default();
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(|e| of_path(path, e))?;
        let _ = read_bytes(&bytes, "standard input", &options, &mut found);
    } else {
        let files = source_files(path, quiet)?;
        if files.is_empty() {
            return Err(no_file(path));
        }
        let _ = files.iter().try_for_each(|file| read_file(&file.path, &file.name, &options, &mut found));
    }
    if let Some(problem) = found.refused {
        let hint = match problem.kind {
            ProblemKind::BadUtf8 => "convert it first, for example with iconv -t UTF-8",
            _ => "what is measured must be whole: name files that can be read",
        };
        return Err(Failure::new(problem).hint(hint));
    }
    let mut problems = SourceProblems::default();
    found.warnings.iter().for_each(|problem| problems.tell(problem));
    problems.end(found.texts.len(), OTHER_FIELD);
    if let [text] = &found.texts[..] {
        return Ok(vec![unified(text, &path.to_string_lossy())]);
    }
    let cleaned = found.texts.iter().map(|text| clean(text, CleanOptions::default()).into_owned());
    Ok(cleaned.filter(|text| !text.is_empty()).collect())
}

/// What the readers found, up to the first thing that they could not read.
#[derive(Default)]
struct Found {
    texts: Vec<String>,
    warnings: Vec<Problem>,
    refused: Option<Problem>,
}

impl Sink for Found {
    fn document(&mut self, document: Document) -> Flow {
        self.texts.push(document.text);
        Flow::Continue(())
    }

    fn problem(&mut self, problem: Problem) -> Flow {
        // A row without a text is none that is measured.
        if problem.kind.harmless() || problem.kind == ProblemKind::NoText {
            self.warnings.push(problem);
            return Flow::Continue(());
        }
        self.refused = Some(problem);
        Flow::Break(())
    }
}

/// The tokens of texts, with the token for the end of a text between them, as in prepared data.
fn joined(texts: &[String], tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ids = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        ids.extend((number > 0).then(|| tokenizer.end_of_text()));
        ids.extend(tokenizer.encode(text));
    }
    ids
}

/// The validation part of a prepared folder in windows of the context length, of which each begins with the last token of the
/// one before: every token is predicted once but the first of all. The last window may be shorter.
pub fn of_data(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    dir: &Path,
    context: usize,
    limit: usize,
    quiet: bool,
) -> Result<Surprise> {
    check_finished(dir)?;
    let data = Dataset::open(dir)?;
    if data.tokenizer.fingerprint() != tokenizer.fingerprint() {
        return Err(Failure::new(format!("{} was prepared with another tokenizer than the model's", dir.display()))
            .hint("measure on the text with --text, or prepare it with the model's tokenizer.json"));
    }
    // Damaged tokens are compared with what was noted of them, before anything is measured on them.
    data.val.read_through(&AtomicBool::new(false))?;
    let most = if limit > 0 { limit as u64 + 1 } else { u64::MAX };
    let mut val = vec![0; data.val.len().min(most) as usize];
    data.val.read(0, &mut val)?;
    if val.len() < 2 {
        return Err(Failure::new(format!("{} holds no validation tokens", dir.display())));
    }
    let t = context.min(val.len() - 1);
    let window = |i: usize| val[i * t..val.len().min((i + 1) * t + 1)].to_vec();
    let windows: Vec<Vec<u32>> = (0..(val.len() - 1).div_ceil(t)).map(window).collect();
    let bytes = bytes_of_targets(tokenizer, &windows);
    surprise(model, windows, bytes, t, quiet)
}

/// Bytes of the tokens that windows predict: all but the first of each.
fn bytes_of_targets(tokenizer: &Tokenizer, windows: &[Vec<u32>]) -> u64 {
    windows.iter().map(|window| text_bytes(tokenizer, &window[1..])).sum()
}

fn surprise(
    model: &mut dyn TextModel,
    windows: Vec<Vec<u32>>,
    bytes: u64,
    context: usize,
    quiet: bool,
) -> Result<Surprise> {
    let (mut tokens, mut nll) = (0, 0.0);
    let mut meter = Meter::new(windows.len(), quiet);
    for (number, window) in windows.iter().enumerate() {
        nll += negative_log_likelihood(model, window).map_err(with_way_out)?;
        tokens += window.len() - 1;
        meter.at(number + 1, || format!("windows so far: loss {:.4}", nll / tokens as f64));
    }
    drop(meter);
    let perplexity = (nll / tokens as f64).exp();
    Ok(Surprise { tokens, nll, perplexity, bits_per_byte: bits_per_byte(nll, bytes as f64), context })
}
