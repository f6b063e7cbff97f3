//! A MODEL argument: found and looked at first, loaded when it is known how much room is needed.

use std::path::Path;

use corella_model::formats::gguf;
use corella_model::gpt2::Gpt2Step;
use corella_model::llama::LlamaInfer;
use corella_model::{AnyModel, StepModel, StepOptions};
use corella_ops::OpsInfer;
use corella_text::tokenizer::Tokenizer;

use crate::cli::Common;
use crate::device::TrainDevice;
use crate::error::{Failure, Result};
use crate::gguf_vocab::gguf_vocab;
use crate::inputs::{open_any, tokenizer_for};
use crate::loading::Watched;

/// A model's files, and the tokenizer that goes with them.
pub struct Opened {
    /// Turns text into the model's ids and back.
    pub tokenizer: Tokenizer,
    files: AnyModel,
}

/// Finds the files of a MODEL argument and its tokenizer: the one named, else the one inside or beside the weights,
/// else GPT-2's where the vocabulary has its size.
pub fn open(path: &Path, tokenizer: Option<&str>) -> Result<Opened> {
    let (files, at) = open_any(path)?;
    let tokenizer = match tokenizer {
        Some(name) => tokenizer_for(name, 0, &[])?,
        None => own_tokenizer(&files, &at)?,
    };
    tokenizer.padding_in(files.vocab_size())?;
    Ok(Opened { tokenizer, files })
}

/// The tokenizer inside or beside the weights found at `at`, else GPT-2's where the vocabulary has its size.
pub fn own_tokenizer(files: &AnyModel, at: &Path) -> Result<Tokenizer> {
    if at.is_dir() {
        return match Tokenizer::load(at) {
            Err(_) if files.vocab_size() == Tokenizer::gpt2().vocab_size() => Ok(Tokenizer::gpt2()),
            loaded => Ok(loaded?),
        };
    }
    let head = std::fs::File::open(at).and_then(|mut file| {
        let mut head = [0; 4];
        std::io::Read::read_exact(&mut file, &mut head).map(|()| head)
    })?;
    if &head == b"GGUF" {
        let (_, header) = gguf::open(at)?;
        if let Some(vocab) = gguf_vocab(&header) {
            return Ok(Tokenizer::from_gguf(&vocab)?);
        }
    } else if files.vocab_size() >= Tokenizer::gpt2().vocab_size() && matches!(files, AnyModel::Gpt2(_)) {
        return Ok(Tokenizer::gpt2());
    }
    Err(Failure::new(format!("{} carries no tokenizer", at.display())).hint("name the tokenizer with --tokenizer FILE"))
}

impl Opened {
    /// Most tokens of a sequence.
    pub fn context_len(&self) -> usize {
        self.files.context_len()
    }

    /// The tokens that end a text: the tokenizer's, and those that the model's files name.
    pub fn eos(&self) -> Vec<u32> {
        let mut eos = self.tokenizer.stop_ids().to_vec();
        eos.extend(self.files.special().eos);
        eos.retain(|id| (*id as usize) < self.files.vocab_size());
        eos
    }

    /// Whether the files say that the model was tuned to follow instructions.
    pub fn is_instruct(&self) -> bool {
        self.files.is_instruct()
    }

    /// Loads the weights; see [`load`].
    pub fn load(self, common: &Common, options: StepOptions, invariance: Invariance) -> Result<Box<dyn StepModel>> {
        load(self.files, common, options, invariance)
    }

    /// The same, and tells `progress` the share that has been read.
    pub fn load_watched(
        self,
        common: &Common,
        options: StepOptions,
        invariance: Invariance,
        progress: &dyn Fn(f32),
    ) -> Result<Box<dyn StepModel>> {
        load_watched(self.files, common, options, invariance, progress)
    }
}

/// Whether what else is computed in a step may change a text's bytes. On the processor it never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariance {
    /// The fastest kernel for each number of rows.
    AsFast,
    /// One order of additions for any number of rows (`--batch-invariant`).
    OfBatch,
}

impl Invariance {
    /// What the flag says.
    pub fn of_flag(batch_invariant: bool) -> Invariance {
        if batch_invariant { Invariance::OfBatch } else { Invariance::AsFast }
    }
}

/// Loads a model's weights on the device that is asked for, with the room that `options` say.
pub fn load(
    files: AnyModel,
    common: &Common,
    options: StepOptions,
    invariance: Invariance,
) -> Result<Box<dyn StepModel>> {
    load_watched(files, common, options, invariance, &|_| {})
}

fn load_watched(
    files: AnyModel,
    common: &Common,
    options: StepOptions,
    invariance: Invariance,
    progress: &dyn Fn(f32),
) -> Result<Box<dyn StepModel>> {
    match TrainDevice::choose(common)? {
        TrainDevice::Cpu(ops) => load_on(ops, files, options, progress),
        TrainDevice::Cuda(ops, _) if invariance == Invariance::OfBatch => {
            load_on(ops.with_batch_invariance(), files, options, progress)
        }
        TrainDevice::Cuda(ops, _) => load_on(*ops, files, options, progress),
    }
}

fn load_on<B: OpsInfer>(
    ops: B,
    files: AnyModel,
    options: StepOptions,
    progress: &dyn Fn(f32),
) -> Result<Box<dyn StepModel>> {
    Ok(match files {
        AnyModel::Gpt2(weights) => Box::new(Gpt2Step::new(ops, weights, options)?),
        AnyModel::Llama(checkpoint) => Box::new(LlamaInfer::new(ops, &Watched::new(&*checkpoint, progress), options)?),
    })
}
