//! A MODEL argument: found and looked at first, loaded when it is known how much room is needed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corella_infer::TokenBytes;
use corella_model::formats::gguf;
use corella_model::gpt2::{Gpt2Config, Gpt2Infer};
use corella_model::llama::{LlamaConfig, LlamaInfer};
use corella_model::{AnyModel, KvKind, Source, StepModel, StepOptions};
use corella_ops::OpsInfer;
use corella_text::tokenizer::{Tokenizer, TokenizerError};

use crate::device::Device;
use crate::error::{Failure, Result};
use crate::gguf_vocab;
use crate::inputs::{open_any, tokenizer_for};
use crate::loading::{Progress, Watched};
use crate::machine::available_memory;
use crate::room::{Sizes, check_card, check_memory};

/// What to do about a model without a tokenizer.
const NAME_IT: &str = "name the tokenizer with --tokenizer FILE";

/// A model's files, and the tokenizer that goes with them.
pub struct Opened {
    files: AnyModel,
    at: PathBuf,
    tokenizer: Option<Tokenizer>,
}

/// Finds the files of a MODEL argument and its tokenizer: the one named, else the one inside or beside the weights,
/// else that of a GPT-2 with the published vocabulary.
pub fn open(path: &Path, tokenizer: Option<&str>) -> Result<Opened> {
    let (files, at) = open_any(path)?;
    let tokenizer = match tokenizer {
        Some(name) => tokenizer_for(name, 0, &[])?,
        None => own_tokenizer(&files, &at)?,
    };
    note_padding(&tokenizer, files.vocab_size())?;
    Ok(Opened { files, at, tokenizer: Some(tokenizer) })
}

/// Share of a model's ids that tables are usually padded by at most, to a size that computes well.
const USUAL_PADDING: usize = 16;

/// Refuses a tokenizer with more tokens than the model has ids, and says where it has so many fewer that it is hardly the
/// model's own.
pub fn note_padding(tokenizer: &Tokenizer, vocab_size: usize) -> Result<()> {
    let padding = tokenizer.padding_in(vocab_size)?;
    // Small vocabularies are padded to a multiple of 128 at most.
    if padding > (vocab_size / USUAL_PADDING).max(128) {
        let size = tokenizer.vocab_size();
        eprintln!(
            "note: the tokenizer has {size} tokens and the model {vocab_size}: if it is not the model's own, the text means nothing to it"
        );
    }
    Ok(())
}

/// [`open`] for token ids, which need no tokenizer: where there is none, tokens are shown as their numbers.
pub fn open_for_ids(path: &Path, tokenizer: Option<&str>) -> Result<Opened> {
    if tokenizer.is_some() {
        return open(path, tokenizer);
    }
    let (files, at) = open_any(path)?;
    let tokenizer = own_tokenizer(&files, &at).and_then(|own| {
        own.padding_in(files.vocab_size())?;
        Ok(own)
    });
    if let Err(why) = &tokenizer {
        eprintln!("note: tokens are shown as numbers: {}", why.message());
    }
    Ok(Opened { files, at, tokenizer: tokenizer.ok() })
}

/// The tokenizer inside or beside the weights found at `at`; where there is no file of one, that of a GPT-2 with the published
/// vocabulary. One that is there and cannot be read is an error: another's ids would be taken for its own.
pub fn own_tokenizer(files: &AnyModel, at: &Path) -> Result<Tokenizer> {
    if at.is_dir() {
        let published = matches!(files, AnyModel::Gpt2(_)) && files.vocab_size() == Tokenizer::gpt2().vocab_size();
        return match Tokenizer::load(at) {
            Err(TokenizerError::Io { source, .. }) if published && source.kind() == ErrorKind::NotFound => {
                Ok(Tokenizer::gpt2())
            }
            loaded => loaded.map_err(|why| Failure::from(why).hint(NAME_IT)),
        };
    }
    let head = std::fs::File::open(at).and_then(|mut file| {
        let mut head = [0; 4];
        std::io::Read::read_exact(&mut file, &mut head).map(|()| head)
    })?;
    if &head == b"GGUF" {
        let (_, header) = gguf::open(at)?;
        if let Some(tokenizer) = gguf_vocab::tokenizer(&header, at) {
            return tokenizer.map_err(|why| Failure::new(format!("{}: {why}", at.display())).hint(NAME_IT));
        }
    } else if files.vocab_size() >= Tokenizer::gpt2().vocab_size() && matches!(files, AnyModel::Gpt2(_)) {
        return Ok(Tokenizer::gpt2());
    }
    Err(Failure::new(format!("{} carries no tokenizer", at.display())).hint(NAME_IT))
}

impl Opened {
    /// What is open, and where it was found.
    pub fn files(&self) -> (&AnyModel, &Path) {
        (&self.files, &self.at)
    }

    /// Turns text into the model's ids and back.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        self.tokenizer.clone().ok_or_else(|| Failure::new("the model carries no tokenizer").hint(NAME_IT))
    }

    /// The bytes of each token; the number of a token, and a space, where there is no tokenizer.
    pub fn token_bytes(&self) -> TokenBytes {
        match self.tokenizer.clone() {
            Some(tokenizer) => Arc::new(move |before, id| tokenizer.token_bytes_after(before, id).to_vec()),
            None => Arc::new(|_, id| format!("{id} ").into_bytes()),
        }
    }

    /// Tokens that may be given and drawn: those behind the tokenizer's own are padding.
    pub fn known_tokens(&self) -> usize {
        self.tokenizer.as_ref().map_or(self.files.vocab_size(), Tokenizer::vocab_size)
    }

    /// Most tokens of a sequence.
    pub fn context_len(&self) -> usize {
        self.files.context_len()
    }

    /// The memory that it takes.
    pub fn sizes(&self, kind: KvKind) -> Sizes {
        match &self.files {
            AnyModel::Gpt2(checkpoint) => Sizes::of(&**checkpoint, kind),
            AnyModel::Llama(checkpoint) => Sizes::of(&**checkpoint, kind),
        }
    }

    /// The tokens that end a text: the tokenizer's, and those that the model's files name.
    pub fn eos(&self) -> Vec<u32> {
        let mut eos = self.tokenizer.as_ref().map_or(Vec::new(), |tokenizer| tokenizer.stop_ids().to_vec());
        eos.extend(self.files.special().eos);
        eos.retain(|id| (*id as usize) < self.files.vocab_size());
        eos
    }

    /// Whether the files say that the model was tuned to follow instructions.
    pub fn is_instruct(&self) -> bool {
        self.files.is_instruct()
    }

    /// Loads the weights; see [`load`].
    pub fn load(self, device: Device, options: StepOptions, invariance: Invariance) -> Result<Box<dyn StepModel>> {
        load(self.files.into(), device, options, invariance)
    }

    /// The same, and tells `progress` the share that has been read.
    pub fn load_watched(
        self,
        device: Device,
        options: StepOptions,
        invariance: Invariance,
        progress: &Progress<'_>,
    ) -> Result<Box<dyn StepModel>> {
        load_watched(self.files.into(), device, options, invariance, progress)
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

/// The weights of a model of either family, wherever they are.
pub enum Loadable {
    /// GPT-2.
    Gpt2(Box<dyn Source<Gpt2Config>>),
    /// Llama.
    Llama(Box<dyn Source<LlamaConfig>>),
}

impl From<AnyModel> for Loadable {
    fn from(files: AnyModel) -> Loadable {
        match files {
            AnyModel::Gpt2(checkpoint) => Loadable::Gpt2(checkpoint),
            AnyModel::Llama(checkpoint) => Loadable::Llama(checkpoint),
        }
    }
}

/// Loads a model's weights on a device, with the room that `options` say.
pub fn load(
    weights: Loadable,
    device: Device,
    options: StepOptions,
    invariance: Invariance,
) -> Result<Box<dyn StepModel>> {
    load_watched(weights, device, options, invariance, &|_| {})
}

fn load_watched(
    weights: Loadable,
    device: Device,
    options: StepOptions,
    invariance: Invariance,
    progress: &Progress<'_>,
) -> Result<Box<dyn StepModel>> {
    match device {
        Device::Cpu(ops) => {
            if let Some(free) = available_memory() {
                check_memory(free, &weights, options)?;
            }
            load_on(ops, &weights, options, progress)
        }
        Device::Cuda(ops, free) => {
            let ops = if invariance == Invariance::OfBatch { ops.with_batch_invariance() } else { *ops };
            check_card(&ops, free, &weights, options)?;
            load_on(ops, &weights, options, progress)
        }
    }
}

/// Loads a model on a backend.
pub fn load_on<B: OpsInfer>(
    ops: B,
    weights: &Loadable,
    options: StepOptions,
    progress: &Progress<'_>,
) -> Result<Box<dyn StepModel>> {
    Ok(match weights {
        Loadable::Gpt2(source) => Box::new(Gpt2Infer::new(ops, &Watched::new(&**source, progress), options)?),
        Loadable::Llama(source) => Box::new(LlamaInfer::new(ops, &Watched::new(&**source, progress), options)?),
    })
}

/// Options for a model whose log-probabilities are compared: two may lie closer together than the rounding of keys and values
/// to half precision.
pub fn to_score(context: usize, device: &Device) -> StepOptions {
    let kv_kind = match device {
        Device::Cpu(_) => KvKind::F32,
        Device::Cuda(..) => KvKind::F16,
    };
    StepOptions { kv_kind, ..StepOptions::one_sequence(context) }
}
