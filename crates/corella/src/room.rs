//! Room for a model and its keys and values: counted before anything is loaded, and refused with what would fit.

use corella_cuda::{BESIDE, Cuda};
use corella_model::params::ModelConfig;
use corella_model::step_options::PAGE_TOKENS;
use corella_model::{KvKind, Source, StepLimits, StepOptions};

use crate::error::{Failure, Result};
use crate::loading::stored_bytes;
use crate::model::{Loadable, load_on};
use crate::units::gib;

/// What a model's own files say of the memory that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the weights.
    pub stored: u64,
    /// Bytes of a position's keys and values.
    pub token_bytes: u64,
}

impl Sizes {
    /// Of these weights, with keys and values of this type.
    pub fn of<C: ModelConfig>(source: &dyn Source<C>, kind: KvKind) -> Sizes {
        Sizes { stored: stored_bytes(source), token_bytes: source.config().kv_token_bytes(kind) }
    }

    /// Positions that a server keeps where nothing is said: eight contexts, fewer where these would take more than three
    /// quarters of what is `free` beside the weights, and one at least.
    pub fn usual_positions(&self, context_len: usize, free: Option<u64>) -> usize {
        let most = context_len.saturating_mul(8);
        let Some(free) = free else { return most };
        let fitting = free.saturating_sub(self.stored) / 4 * 3 / self.token_bytes.max(1);
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX) / PAGE_TOKENS * PAGE_TOKENS;
        fitting.clamp(context_len, most)
    }

    /// Texts that are computed at once: at most `most`, fewer where `free` bytes do not hold the keys and values of the
    /// `shared` positions and of each one's `own` beside the weights, and one at least.
    pub fn texts_at_once(&self, shared: usize, own: usize, most: usize, free: u64) -> usize {
        (self.fitting(free).saturating_sub(shared) / own.max(1)).clamp(1, most.max(1))
    }

    /// Positions, in whole pages, that `free` bytes hold beside the weights.
    fn fitting(&self, free: u64) -> usize {
        let fitting = free.saturating_sub(self.stored) / self.token_bytes.max(1);
        usize::try_from(fitting).unwrap_or(usize::MAX) / PAGE_TOKENS * PAGE_TOKENS
    }

    /// Bytes of weights and of this many positions, rounded up to whole pages; and of these the pages.
    fn total(&self, positions: usize) -> (u64, u64) {
        let pages = (positions.next_multiple_of(PAGE_TOKENS) as u64).saturating_mul(self.token_bytes);
        (self.stored.saturating_add(pages), pages)
    }
}

/// What a model takes of a memory.
struct Needed {
    /// All of it, in bytes.
    total: u64,
    /// Of these, keys and values.
    pages: u64,
    /// Positions that they are for.
    positions: usize,
}

impl Needed {
    /// The refusal where `free` bytes are too few; `fitting` positions would fit, or all of them as 8-bit integers where
    /// `q8_fits`.
    fn refusal(
        &self,
        whose: &str,
        free: u64,
        (fitting, q8_fits): (usize, bool),
        options: StepOptions,
        smaller: &str,
    ) -> Failure {
        let q8 = if q8_fits { ", or --kv-type q8 of generate and serve," } else { "" };
        let refused = Failure::new(format!(
            "the model needs {:.2} GiB of {whose}, {:.2} of them for {} positions of keys and values, and {:.2} GiB are free",
            gib(self.total),
            gib(self.pages),
            self.positions,
            gib(free)
        ));
        match fitting {
            0 => refused.hint(smaller),
            fitting if fitting >= options.context_len => {
                refused.hint(format!("--kv-tokens {fitting} of serve, or a smaller -n of generate{q8} fits"))
            }
            fitting => refused.hint(format!(
                "a context of {fitting} (--context-len of serve, --context of eval, --max-tokens of generate){q8} fits"
            )),
        }
    }
}

/// Refuses a model whose weights, with its keys and values, do not fit into `free` bytes of the machine's memory. The
/// system would give the pages and end the program, or another one, when they are written.
pub fn check_memory(free: u64, weights: &Loadable, options: StepOptions) -> Result<()> {
    let sizes = |kind| match weights {
        Loadable::Gpt2(source) => Sizes::of(&**source, kind),
        Loadable::Llama(source) => Sizes::of(&**source, kind),
    };
    let own = sizes(options.kv_kind);
    let (total, pages) = own.total(options.kv_tokens);
    if total <= free {
        return Ok(());
    }
    let needed = Needed { total, pages, positions: options.kv_tokens.next_multiple_of(PAGE_TOKENS) };
    let q8_fits = options.kv_kind != KvKind::Q8 && sizes(KvKind::Q8).total(options.kv_tokens).0 <= free;
    let fits = (own.fitting(free), q8_fits);
    let smaller = "a file with fewer bits a weight (Q8_0, Q4_K), or a machine with more memory";
    Err(needed.refusal("memory", free, fits, options, smaller))
}

/// Refuses a model that does not fit into a card's free memory.
pub fn check_card(ops: &Cuda, free: u64, weights: &Loadable, options: StepOptions) -> Result<()> {
    let (total, limits) = room_on_paper(ops, weights, options)?;
    if total <= free {
        return Ok(());
    }
    // Without the pages that are too many, until it fits: arrays are whole pages of the card's, too.
    let (mut fitting, mut over) = (options.kv_tokens, total - free);
    while over > 0 && fitting > 0 {
        let pages = over.div_ceil(limits.page_bytes.max(1)) as usize;
        fitting = fitting.saturating_sub(pages * limits.page_tokens) / limits.page_tokens * limits.page_tokens;
        if fitting > 0 {
            let context_len = options.context_len.min(fitting);
            let fewer = StepOptions { kv_tokens: fitting, context_len, ..options };
            over = room_on_paper(ops, weights, fewer)?.0.saturating_sub(free);
        }
    }
    let in_q8 = StepOptions { kv_kind: KvKind::Q8, ..options };
    let q8_fits =
        options.kv_kind != KvKind::Q8 && room_on_paper(ops, weights, in_q8).is_ok_and(|(total, _)| total <= free);
    let pages = limits.pages as u64 * limits.page_bytes;
    let needed = Needed { total, pages, positions: limits.pages * limits.page_tokens };
    let smaller = "a file with fewer bits a weight (Q8_0, Q4_K), or --device cpu";
    Err(needed.refusal("the card's memory", free, (fitting, q8_fits), options, smaller))
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

#[cfg(test)]
mod tests {
    use corella_cuda::{Cuda, Paper};
    use corella_model::llama::LlamaConfig;
    use corella_model::{KvKind, StepOptions, Zeros};
    use corella_ops::WeightFormat;
    use corella_ops::cpu::{Cpu, CpuOptions};

    use super::{Loadable, Sizes, check_card, check_memory};

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
            let checked = check_card(&cuda, free, &Loadable::Llama(Box::new(Zeros::new(config, format))), options);
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
    /// The same on machines of 8 to 32 GB. Llama 3.1 8B has 8.03 billion parameters, and a position takes 2 · 32 layers · 8
    /// heads · 128 numbers of two bytes: 128 KiB.
    #[test]
    fn an_8b_is_measured_against_the_machines_memory() {
        let check = |format, context_len, kv_tokens, free: u64| {
            let config = LlamaConfig::preset("llama-3.1-8b").expect("a size of Llama");
            let options = StepOptions { kv_tokens, ..StepOptions::one_sequence(context_len) };
            let weights = Loadable::Llama(Box::new(Zeros::new(config, format)));
            check_memory(free, &weights, options).map_err(|refused| refused.to_string())
        };
        assert_eq!(check(WeightFormat::Bf16, 8192, 8 * 8192, 32_000_000_000), Ok(()));
        // 131,072 positions are 16 GiB, beside 4.2 GiB of weights.
        let refused = check(WeightFormat::Q4_K, 131_072, 131_072, 16_000_000_000).expect_err("20 GiB");
        assert!(refused.contains("16.00 of them for 131072 positions"), "{refused}");
        assert!(refused.contains("and 14.90 GiB are free"), "{refused}");
        let fits = refused.split("a context of ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let fits: usize = fits.expect("a number");
        assert!((80_000..90_000).contains(&fits), "{fits}");
        assert_eq!(check(WeightFormat::Q4_K, fits, fits, 16_000_000_000), Ok(()));
        assert!(check(WeightFormat::Q4_K, fits + 32, fits + 32, 16_000_000_000).is_err());
        let refused = check(WeightFormat::Q4_K, 8192, 32 * 8192, 16_000_000_000).expect_err("32 GiB of pages");
        assert!(refused.contains("hint: --kv-tokens"), "{refused}");
        let refused = check(WeightFormat::Bf16, 8192, 8192, 8_000_000_000).expect_err("16 GB of weights");
        assert!(refused.contains("hint: a file with fewer bits a weight"), "{refused}");
    }

    #[test]
    fn smaller_keys_and_values_are_named_where_they_help() {
        let check = |kv_kind, positions: usize, free: u64| {
            let config = LlamaConfig::preset("llama-3.1-8b").expect("a size of Llama");
            let options = StepOptions { kv_kind, ..StepOptions::one_sequence(positions) };
            let weights = Loadable::Llama(Box::new(Zeros::new(config, WeightFormat::Q4_K)));
            check_memory(free, &weights, options).map_err(|refused| refused.to_string())
        };
        // 131,072 positions are 16 GiB in F16, and half of that and their scales in Q8, beside 4.2 GiB of weights.
        let refused = check(KvKind::F16, 131_072, 16_000_000_000).expect_err("20 GiB");
        assert!(refused.contains("--kv-type q8"), "{refused}");
        assert_eq!(check(KvKind::Q8, 131_072, 16_000_000_000), Ok(()));
        for (kind, free) in [(KvKind::F16, 9_000_000_000), (KvKind::Q8, 9_000_000_000)] {
            let refused = check(kind, 131_072, free).expect_err("13 GiB");
            assert!(refused.contains("a context of ") && !refused.contains("kv-type"), "{kind:?}: {refused}");
        }
    }

    #[test]
    fn many_texts_are_computed_in_turns_where_the_memory_is_short() {
        let sizes = Sizes { stored: 1_000_000, token_bytes: 100 };
        // 320 positions, ten pages, are left beside the weights: 64 for all and 64 for each.
        for (free, expected) in [(10_000_000, 32), (1_032_000, 4), (1_031_999, 3), (0, 1)] {
            assert_eq!(sizes.texts_at_once(64, 64, 32, free), expected, "{free}");
        }
        assert_eq!(sizes.total(64 + 4 * 64), (1_032_000, 32_000));
    }

    #[test]
    fn a_server_keeps_what_fits_and_one_context_at_least() {
        let sizes = Sizes { stored: 1_000_000, token_bytes: 100 };
        assert_eq!(sizes.usual_positions(1024, None), 8192);
        assert_eq!(sizes.usual_positions(1024, Some(10_000_000)), 8192);
        // Three quarters of 400,000 bytes are 3,000 positions, 93 pages of 32.
        assert_eq!(sizes.usual_positions(1024, Some(1_400_000)), 2976);
        assert_eq!(sizes.usual_positions(1024, Some(500_000)), 1024);
    }
}
