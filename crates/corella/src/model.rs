//! A MODEL argument: found and looked at first, loaded when it is known how much room is needed.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use corella_cuda::{BESIDE, Cuda};
use corella_infer::TokenBytes;
use corella_model::formats::gguf;
use corella_model::gpt2::{Gpt2Config, Gpt2Infer};
use corella_model::llama::{LlamaConfig, LlamaInfer};
use corella_model::{AnyModel, Source, StepLimits, StepModel, StepOptions};
use corella_ops::OpsInfer;
use corella_text::tokenizer::{Tokenizer, TokenizerError};

use crate::cli::Common;
use crate::device::TrainDevice;
use crate::error::{Failure, Result};
use crate::gguf_vocab::gguf_vocab;
use crate::inputs::{open_any, tokenizer_for};
use crate::loading::{Progress, Watched};

/// What to do about a model without a tokenizer.
const NAME_IT: &str = "name the tokenizer with --tokenizer FILE";

/// A model's files, and the tokenizer that goes with them.
pub struct Opened {
    files: AnyModel,
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
    tokenizer.padding_in(files.vocab_size())?;
    Ok(Opened { files, tokenizer: Some(tokenizer) })
}

/// The same for token ids, which need no tokenizer: where there is none, tokens are shown as their numbers.
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
        eprintln!("note: tokens are shown as numbers: {why}");
    }
    Ok(Opened { files, tokenizer: tokenizer.ok() })
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
        if let Some(vocab) = gguf_vocab(&header) {
            if vocab.model == "gpt2" && vocab.pre.is_none() {
                eprintln!(
                    "warning: {} does not say how its text is split (tokenizer.ggml.pre); GPT-2's pattern is taken, and ids of another model may be wrong",
                    at.display()
                );
            }
            return Ok(Tokenizer::from_gguf(&vocab)?);
        }
    } else if files.vocab_size() >= Tokenizer::gpt2().vocab_size() && matches!(files, AnyModel::Gpt2(_)) {
        return Ok(Tokenizer::gpt2());
    }
    Err(Failure::new(format!("{} carries no tokenizer", at.display())).hint(NAME_IT))
}

impl Opened {
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
    pub fn load(self, common: &Common, options: StepOptions, invariance: Invariance) -> Result<Box<dyn StepModel>> {
        load(self.files.into(), common, options, invariance)
    }

    /// The same, and tells `progress` the share that has been read.
    pub fn load_watched(
        self,
        common: &Common,
        options: StepOptions,
        invariance: Invariance,
        progress: &Progress<'_>,
    ) -> Result<Box<dyn StepModel>> {
        load_watched(self.files.into(), common, options, invariance, progress)
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

/// Loads a model's weights on the device that is asked for, with the room that `options` say.
pub fn load(
    weights: Loadable,
    common: &Common,
    options: StepOptions,
    invariance: Invariance,
) -> Result<Box<dyn StepModel>> {
    load_watched(weights, common, options, invariance, &|_| {})
}

fn load_watched(
    weights: Loadable,
    common: &Common,
    options: StepOptions,
    invariance: Invariance,
    progress: &Progress<'_>,
) -> Result<Box<dyn StepModel>> {
    match TrainDevice::choose(common)? {
        TrainDevice::Cpu(ops) => load_on(ops, &weights, options, progress),
        TrainDevice::Cuda(ops, free) => {
            let ops = if invariance == Invariance::OfBatch { ops.with_batch_invariance() } else { *ops };
            check_room(&ops, free, &weights, options)?;
            load_on(ops, &weights, options, progress)
        }
    }
}

/// Refuses a model that does not fit into a card's free memory, before anything of it is loaded, and says what would fit.
fn check_room(ops: &Cuda, free: u64, weights: &Loadable, options: StepOptions) -> Result<()> {
    let (needed, limits) = room_on_paper(ops, weights, options)?;
    if needed <= free {
        return Ok(());
    }
    // Without the pages that are too many, until it fits: arrays are whole pages of the card's, too.
    let (mut fitting, mut over) = (options.kv_tokens, needed - free);
    while over > 0 && fitting > 0 {
        let pages = over.div_ceil(limits.page_bytes.max(1)) as usize;
        fitting = fitting.saturating_sub(pages * limits.page_tokens) / limits.page_tokens * limits.page_tokens;
        if fitting > 0 {
            let context_len = options.context_len.min(fitting);
            let fewer = StepOptions { kv_tokens: fitting, context_len, ..options };
            over = room_on_paper(ops, weights, fewer)?.0.saturating_sub(free);
        }
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let refused = Failure::new(format!(
        "the model needs {:.2} GiB of the card's memory, {:.2} of them for {} positions of keys and values, and {:.2} GiB are free",
        gib(needed),
        gib(limits.pages as u64 * limits.page_bytes),
        limits.pages * limits.page_tokens,
        gib(free)
    ));
    Err(match fitting {
        0 => refused.hint("a file with fewer bits a weight (Q8_0, Q4_K), or --device cpu"),
        fitting if fitting >= options.context_len => {
            refused.hint(format!("--kv-tokens {fitting} of serve, a smaller -n of generate, or --kv-type q8 fits"))
        }
        fitting => {
            refused.hint(format!("a context of {fitting} fits (--context; --max-tokens of generate), or --kv-type q8"))
        }
    })
}

/// Bytes that a model and its largest steps take of a card, counted on paper, and the model's limits.
fn room_on_paper(ops: &Cuda, weights: &Loadable, options: StepOptions) -> Result<(u64, StepLimits)> {
    let (ops, paper) = ops.on_paper();
    let mut model = load_on(ops, weights, options, &|_| {})?;
    let limits = model.limits();
    for plan in limits.largest_plans(model.draws()) {
        model.step(&plan)?;
    }
    Ok((paper.most() + BESIDE, limits))
}

fn load_on<B: OpsInfer>(
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

#[cfg(test)]
mod tests {
    use corella_cuda::{Cuda, Paper};
    use corella_model::llama::LlamaConfig;
    use corella_model::{KvKind, StepOptions, Zeros};
    use corella_ops::WeightFormat;
    use corella_ops::cpu::{Cpu, CpuOptions};

    use super::{Loadable, check_room};

    /// What `serve` and `generate` do with Llama 3.1 8B on cards of 12 and 24 GB.
    #[test]
    fn an_8b_is_taken_or_refused_with_what_would_fit() {
        let cpu = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("starts");
        let cuda = Cuda::of_paper(&Paper::default(), cpu);
        let check = |format, kv_tokens, free: u64| {
            let config = LlamaConfig::preset("llama-3.1-8b").expect("a size of Llama");
            let (context_len, kv_kind) = (8192, KvKind::F16);
            let options = StepOptions {
                context_len,
                kv_tokens,
                kv_kind,
                max_seqs: 32,
                max_batch_tokens: 512,
                max_logit_rows: 160,
            };
            let checked = check_room(&cuda, free, &Loadable::Llama(Box::new(Zeros::new(config, format))), options);
            checked.map_err(|refused| refused.to_string())
        };
        assert_eq!(check(WeightFormat::Q4_K, 8 * 8192, 24_000_000_000), Ok(()));
        assert_eq!(check(WeightFormat::Q8_0, 8192, 12_000_000_000), Ok(()));
        let refused = check(WeightFormat::Q4_K, 8 * 8192, 12_000_000_000).expect_err("8.6 GB of pages");
        assert!(
            refused.contains("8.00 of them for 65536 positions") && refused.contains("hint: --kv-tokens"),
            "{refused}"
        );
        let fits: usize = refused
            .split("--kv-tokens ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .map_or(0, |n| n.parse().unwrap_or(0));
        assert_eq!(check(WeightFormat::Q4_K, fits, 12_000_000_000), Ok(()), "{fits} positions");
        let refused = check(WeightFormat::Bf16, 8192, 12_000_000_000).expect_err("16 GB of weights");
        assert!(refused.contains("hint: a file with fewer bits a weight"), "{refused}");
    }
}
