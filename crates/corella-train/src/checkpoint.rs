//! Checkpoints: written whole or not at all, and checked before they are used.
//!
//! `step-00000120/` is a Hugging Face folder (config.json, model.safetensors, tokenizer.json) with, beside it, AdamW's
//! moments and state.json: step, position in the data, plan, and the checksum of every file. It is written under a
//! temporary name, synced, and renamed; killing the process at any moment leaves the one before intact. The newest few
//! are kept, and the one with the lowest validation loss.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use corella_model::formats::safetensors::{self, NewTensor, SafeTensors};
use corella_model::formats::{Encoding, FormatError};
use corella_model::{Choices, ModelError, ModelFiles, ParamPart, TrainModel};
use corella_text::data::{Checksum, DataError, LoaderState};
use corella_text::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::console::warn;
use crate::plan::RunPlan;
use crate::spikes::SpikeDetector;
use crate::validate::Validation;

const PREFIX: &str = "step-";
const PARTIAL: &str = "partial-";
const MOMENTS: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// What a run needs to go on as if it had not stopped, beside weights and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Updates made.
    pub step: u64,
    /// Position in the data.
    pub loader: LoaderState,
    /// The resolved plan.
    pub plan: RunPlan,
    /// Device and kernel path: another one may round differently.
    pub backend: String,
    /// What the backend chose by measuring; absent in states of earlier versions.
    #[serde(default)]
    pub choices: Choices,
    /// The model's configuration.
    pub model: String,
    /// Windows of the spike detector.
    #[serde(default)]
    pub spikes: Option<SpikeDetector>,
    /// Seconds of training until here, over all sessions.
    #[serde(default)]
    pub seconds: f64,
    /// Validation loss of these weights, where measured: what the best checkpoint is chosen by.
    #[serde(default)]
    pub val_loss: Option<f64>,
    /// What that was measured on; absent in states of earlier versions.
    #[serde(default)]
    pub validation: Option<Validation>,
    /// [`corella_text::data::TokenStream::mark`] of the tokens to train on; absent in states of earlier versions.
    #[serde(default)]
    pub data: Option<u32>,
    /// That of all tokens to train on, where it was known when the checkpoint was written.
    #[serde(default)]
    pub checksum: Option<Checksum>,
    /// CRC-32 of every other file.
    #[serde(default)]
    pub files: BTreeMap<String, u32>,
}

impl State {
    /// Whether validation losses beside this state and beside another can be compared.
    pub(crate) fn is_validated_as(&self, validation: Option<Validation>, val_tokens: usize) -> bool {
        match (self.validation, validation) {
            (Some(here), Some(there)) => here == there,
            _ => self.plan.output.val_tokens == val_tokens,
        }
    }
}

/// A checkpoint whose files are as they were written.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// Its folder.
    pub path: PathBuf,
    /// Its state.json.
    pub state: State,
}

/// Writes a checkpoint into `dir`. What a failed write leaves behind is removed again, so that it does not take the room
/// that the next one needs. The ones before stay until [`prune`].
pub fn save(
    dir: &Path,
    model: &dyn TrainModel,
    files: &dyn ModelFiles,
    tokenizer: &Tokenizer,
    state: State,
) -> Result<PathBuf, TrainError> {
    let (partial, path) =
        (dir.join(format!("{PARTIAL}{:08}", state.step)), dir.join(format!("{PREFIX}{:08}", state.step)));
    fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
    remove(&partial)?;
    if let Err(error) = write(&partial, model, files, tokenizer, state) {
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    make_way(&path, &partial)?;
    fs::rename(&partial, &path).map_err(TrainError::io(&path))?;
    sync_folder(dir)?;
    Ok(path)
}

fn write(
    partial: &Path,
    model: &dyn TrainModel,
    files: &dyn ModelFiles,
    tokenizer: &Tokenizer,
    mut state: State,
) -> Result<(), TrainError> {
    fs::create_dir(partial).map_err(TrainError::io(partial))?;
    files.save(model, partial)?;
    tokenizer.files().iter().try_for_each(|(name, text)| write_new(&partial.join(name), text))?;
    save_moments(&partial.join(MOMENTS), model).map_err(ModelError::from)?;
    state.files = checksums(partial)?;
    let text = serde_json::to_string_pretty(&state)
        .map_err(|e| TrainError::Checkpoint { path: partial.to_path_buf(), what: e.to_string() })?;
    write_new(&partial.join(STATE), &text)?;
    sync_folder(partial)
}

/// Takes what stands where the checkpoint `new` will: a damaged one, as a run goes on from a whole one and does not write that
/// step again. With files that are not in the new one, which are somebody's, it is kept under another name.
fn make_way(path: &Path, new: &Path) -> Result<(), TrainError> {
    if !path.exists() || !has_others(path, new)? {
        return remove(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = (1u32..).map(|n| if n == 1 { format!("kept-{name}") } else { format!("kept-{n}-{name}") });
    let free = names.map(|name| path.with_file_name(name)).find(|kept| !kept.exists());
    let kept = free.unwrap_or_else(|| path.with_extension("kept"));
    fs::rename(path, &kept).map_err(TrainError::io(path))?;
    warn(&format!("{} has files that no run wrote; it is kept as {}", path.display(), kept.display()));
    Ok(())
}

/// Whether a folder has an entry that another has not.
fn has_others(dir: &Path, other: &Path) -> Result<bool, TrainError> {
    for entry in fs::read_dir(dir).map_err(TrainError::io(dir))? {
        let entry = entry.map_err(TrainError::io(dir))?;
        if !other.join(entry.file_name()).is_file() || !entry.path().is_file() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove(dir: &Path) -> Result<(), TrainError> {
    if dir.exists() { fs::remove_dir_all(dir).map_err(TrainError::io(dir)) } else { Ok(()) }
}

/// Removes all but the newest `keep` and the best.
pub fn prune(dir: &Path, keep: usize) -> Result<(), TrainError> {
    let best = best(dir)?;
    let all = list(dir)?;
    let mut old = all.iter().rev().skip(keep.max(1)).filter(|path| best.as_ref().is_none_or(|(b, _)| b != *path));
    old.try_for_each(|path| remove(path))
}

/// The checkpoint with the lowest validation loss, and that loss. Ones without a validation loss, or with one of other tokens
/// than the newest checkpoint's, are not compared.
pub fn best(dir: &Path) -> Result<Option<(PathBuf, f64)>, TrainError> {
    let states = list(dir)?.into_iter().filter_map(|path| Some((read_state(&path).ok()?, path)));
    let states: Vec<(State, PathBuf)> = states.collect();
    let Some((newest, _)) = states.last() else { return Ok(None) };
    let compared = |state: &State| state.is_validated_as(newest.validation, newest.plan.output.val_tokens);
    let rated = states.iter().filter(|(state, _)| compared(state)).filter_map(|(state, path)| {
        let loss = state.val_loss?;
        Some((path.clone(), loss))
    });
    Ok(rated.min_by(|a, b| a.1.total_cmp(&b.1)))
}

/// AdamW's moments, in one file: names of the table behind `m.` and `v.`.
const MOMENT_PARTS: [(&str, ParamPart); 2] = [("m", ParamPart::M), ("v", ParamPart::V)];

fn save_moments(path: &Path, model: &dyn TrainModel) -> Result<(), FormatError> {
    let each = || model.params().iter().enumerate().flat_map(|(i, p)| MOMENT_PARTS.map(|part| (i, p, part)));
    let tensors = each().map(|(_, p, (part, _))| NewTensor {
        name: format!("{part}.{}", p.name),
        shape: p.shape.clone(),
        encoding: Encoding::F32,
    });
    let mut out = safetensors::create(path, &tensors.collect::<Vec<_>>())?;
    for (i, _, (_, which)) in each() {
        out.f32_tensor(&model.read(i, which))?;
    }
    out.finish()
}

/// Finished checkpoints, the one with the fewest updates first. What else lies there, a copy by another name say, is its
/// owner's: it is neither gone on from nor removed.
fn list(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(TrainError::io(dir))? {
        let path = entry.map_err(TrainError::io(dir))?.path();
        if let Some(step) = number(&path, PREFIX).filter(|_| path.is_dir()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The updates that a checkpoint's name says behind a prefix.
fn number(path: &Path, prefix: &str) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(prefix)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Whether a folder holds finished checkpoints, whole or damaged.
pub fn any(dir: &Path) -> bool {
    list(dir).is_ok_and(|found| !found.is_empty())
}

/// Removes what killed writes left behind.
pub fn clean(dir: &Path) -> Result<(), TrainError> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(TrainError::io(dir))? {
        let path = entry.map_err(TrainError::io(dir))?.path();
        if number(&path, PARTIAL).is_some() {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The newest checkpoint whose files are all as they were written, by its number of updates: files may carry any date.
///
/// Damaged ones are named on stderr and passed over. `None` where there is none at all; an error where all are damaged,
/// so that nobody starts over what looks like a run that was never begun.
pub fn latest(dir: &Path) -> Result<Option<Whole>, TrainError> {
    let mut damaged = None;
    for path in list(dir)?.into_iter().rev() {
        match verify(&path) {
            Ok(state) => return Ok(Some(Whole { path, state })),
            Err(error) => {
                warn(&format!("passing over a damaged checkpoint: {error}"));
                damaged = Some(error.to_string());
            }
        }
    }
    match damaged {
        None => Ok(None),
        Some(last) => Err(TrainError::AllDamaged { path: dir.to_path_buf(), last }),
    }
}

fn read_state(path: &Path) -> Result<State, TrainError> {
    let file = path.join(STATE);
    let text = fs::read_to_string(&file).map_err(TrainError::io(&file))?;
    let wrong =
        |e: serde_json::Error| TrainError::Checkpoint { path: path.to_path_buf(), what: format!("{STATE}: {e}") };
    serde_json::from_str(&text).map_err(wrong)
}

/// Reads state.json and compares every file that it names with its checksum. What else lies there is its owner's.
fn verify(path: &Path) -> Result<State, TrainError> {
    let wrong = |what: String| TrainError::Checkpoint { path: path.to_path_buf(), what };
    let state = read_state(path)?;
    if let Some(what) = contradiction(&state, path) {
        return Err(wrong(format!("{STATE} is damaged ({what})")));
    }
    for (name, sum) in &state.files {
        if !is_plain(name) {
            return Err(wrong(format!("{STATE} is damaged (a file called {name:?})")));
        }
        let file = path.join(name);
        if !file.is_file() {
            return Err(wrong(format!("{name} is missing")));
        }
        if checksum(&file)? != *sum {
            return Err(wrong(format!("{name} is damaged (checksum differs)")));
        }
    }
    Ok(state)
}

/// Whether a name is that of an entry of a folder, and leads nowhere else.
fn is_plain(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// What in a state cannot be: nothing else tells whether its numbers are those that were written.
fn contradiction(state: &State, path: &Path) -> Option<String> {
    let (step, steps, next) = (state.step, state.plan.train.steps, state.loader.next);
    if number(path, PREFIX).is_some_and(|of_name| of_name != step) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return Some(format!("step is {step} in {name}"));
    }
    if step > steps {
        return Some(format!("step is {step} of {steps}"));
    }
    // An update takes one sequence at least.
    if next < step || next.checked_mul(state.loader.seq_len as u64).is_none() {
        return Some(format!("{next} sequences for {step} updates"));
    }
    None
}

/// Refuses to go on with data whose ids mean something else than those that the weights were trained on.
pub fn check_tokenizer(from: &Whole, tokenizer: &Tokenizer) -> Result<(), TrainError> {
    let kept = from.path.join("tokenizer.json");
    if kept.is_file() && Tokenizer::load(&kept).map_err(DataError::from)?.fingerprint() != tokenizer.fingerprint() {
        let what = "their tokenizer is not the one that the run began with".to_owned();
        return Err(DataError::OtherData(what).into());
    }
    Ok(())
}

/// Puts weights and moments back. The files are read again, and what is in them compared with the model's shapes.
pub fn restore(from: &Whole, model: &mut dyn TrainModel, files: &dyn ModelFiles) -> Result<(), TrainError> {
    let Whole { path, state } = from;
    if state.model != files.describe() {
        let what = format!("is of another model:\n{}this run has:\n{}", state.model, files.describe());
        return Err(TrainError::Checkpoint { path: path.to_path_buf(), what });
    }
    files.load(model, path)?;
    let moments = SafeTensors::open(&path.join(MOMENTS)).map_err(ModelError::from)?;
    for i in 0..model.params().len() {
        let info = model.params()[i].clone();
        for (part, which) in MOMENT_PARTS {
            let values = moments.read_f32(&format!("{part}.{}", info.name), &info.shape).map_err(ModelError::from)?;
            model.write(i, which, &values);
        }
    }
    Ok(())
}

/// CRC-32 of every file of a folder.
fn checksums(dir: &Path) -> Result<BTreeMap<String, u32>, TrainError> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(TrainError::io(dir))? {
        let path = entry.map_err(TrainError::io(dir))?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            sums.insert(name, checksum(&path)?);
        }
    }
    Ok(sums)
}

fn checksum(path: &Path) -> Result<u32, TrainError> {
    let mut hasher = crc32fast::Hasher::new();
    let mut block = vec![0; 1 << 16];
    let mut read = || -> std::io::Result<()> {
        let mut file = File::open(path)?;
        loop {
            match file.read(&mut block)? {
                0 => return Ok(()),
                n => hasher.update(&block[..n]),
            }
        }
    };
    read().map_err(TrainError::io(path))?;
    Ok(hasher.finalize())
}

/// Writes and syncs a file of a folder that nobody reads before it has its name.
fn write_new(path: &Path, text: &str) -> Result<(), TrainError> {
    fs::write(path, text).and_then(|()| File::open(path)?.sync_all()).map_err(TrainError::io(path))
}

/// Makes renames and new files in a folder survive a power cut.
fn sync_folder(dir: &Path) -> Result<(), TrainError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(TrainError::io(dir))
}
