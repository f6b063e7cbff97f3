//! What has to be computed, and how it is counted.

use corella_model::Dtype;
use serde::{Deserialize, Serialize};

/// How operations per token, forward and backward, are counted. The choice moves utilisation by up to four points, so
/// every figure names it. N is the same in every figure of the program: all parameters, positions too, but for a token embedding
/// that is not the output head as well, which nothing is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Formula {
    /// 6N + 6·L·C·T: attention halved because it looks back only (llm.c since June 2024).
    #[serde(rename = "6N+6LCT")]
    Causal,
    /// 6N + 12·L·C·T: no discount (nanoGPT, PaLM).
    #[serde(rename = "6N+12LCT")]
    Full,
    /// 6 × the parameters of matrix products + Σ over layers of 12·C·min(window, T): embeddings not counted.
    #[serde(rename = "nanochat")]
    Nanochat,
}

impl Formula {
    /// As published.
    pub fn name(self) -> &'static str {
        match self {
            Formula::Causal => "6N+6LCT",
            Formula::Full => "6N+12LCT",
            Formula::Nanochat => "nanochat",
        }
    }

    /// Operations per token of a model with N = `matmul_params` and width C = `channels`; `span` is the sum over the layers of
    /// what a token looks back on, L·T without windows.
    pub fn per_token(self, matmul_params: u64, channels: u64, span: u64) -> u64 {
        let attention = if self == Formula::Causal { 6 } else { 12 };
        6 * matmul_params + attention * channels * span
    }
}

/// A training run, as far as its cost depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// All parameters.
    pub params: u64,
    /// Parameters that every token is multiplied with: the N of the formula.
    pub matmul_params: u64,
    /// Blocks (L).
    pub layers: u64,
    /// Width (C).
    pub channels: u64,
    /// Σ over layers of min(attention window, T); L·T without windows.
    pub span: u64,
    /// Logits.
    pub vocab_size: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens of an update.
    pub tokens_per_step: u64,
    /// Sequences of an update.
    pub sequences_per_step: u64,
    /// Number format of products and activations.
    pub dtype: Dtype,
    /// Matrix products partly in fp8.
    pub fp8: bool,
    /// The forward pass of the blocks is computed a second time, in the backward pass.
    pub recompute: bool,
    /// How operations are counted.
    pub formula: Formula,
}

impl Workload {
    /// Operations per token, forward and backward.
    pub fn flops_per_token(&self) -> u64 {
        self.formula.per_token(self.matmul_params, self.channels, self.span)
    }

    /// Operations per token that recomputing adds: the forward pass, a third of forward and backward, without the output head.
    /// They are no work of the model's, so utilisation does not count them.
    pub fn flops_again(&self) -> u64 {
        let head = self.vocab_size * self.channels;
        let blocks = self.formula.per_token(self.matmul_params.saturating_sub(head), self.channels, self.span) / 3;
        if self.recompute { blocks } else { 0 }
    }

    /// By what factor more operations are computed than those of the model.
    pub fn computed(&self) -> f64 {
        1.0 + self.flops_again() as f64 / self.flops_per_token().max(1) as f64
    }

    /// Sequences of an update that fall to the card with the most: they are dealt out whole.
    pub fn sequences_per_card(&self, cards: u32) -> u64 {
        self.sequences_per_step.div_ceil(u64::from(cards.max(1))).max(1)
    }

    /// Cards' worth of work that is done at once: fewer than `cards` where some have fewer sequences than others, or none, and
    /// wait for them.
    pub fn busy_cards(&self, cards: u32) -> f64 {
        (self.sequences_per_step.max(1) as f64 / self.sequences_per_card(cards) as f64).min(f64::from(cards))
    }

    /// Operations of the run. They can exceed 64 bits.
    pub fn flops(&self) -> u128 {
        u128::from(self.flops_per_token()) * u128::from(self.tokens)
    }

    /// Updates.
    pub fn steps(&self) -> u64 {
        self.tokens.div_ceil(self.tokens_per_step.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt2(layers: u64, channels: u64, vocab_size: u64, formula: Formula) -> Workload {
        let params =
            layers * (12 * channels * channels + 13 * channels) + (vocab_size + 1024) * channels + 2 * channels;
        let (tokens, tokens_per_step) = (33_554_432_000, 1 << 20);
        let span = layers * 1024;
        Workload {
            params,
            matmul_params: params,
            layers,
            channels,
            span,
            vocab_size,
            tokens,
            tokens_per_step,
            sequences_per_step: 1024,
            dtype: Dtype::Bf16,
            fp8: false,
            recompute: false,
            formula,
        }
    }

    #[test]
    fn the_published_counts_come_out_to_the_digit() {
        for (layers, channels, params, causal, full) in [
            (12, 768, 124_475_904, 803_478_528u64, 860_101_632u64),
            (24, 1024, 354_871_296, 2_280_222_720, 2_431_217_664),
            (36, 1280, 774_090_240, 4_927_656_960, 5_210_772_480),
            (48, 1600, 1_557_686_400, 9_817_977_600, 10_289_836_800),
        ] {
            assert_eq!(gpt2(layers, channels, 50_304, Formula::Causal).params, params);
            assert_eq!(gpt2(layers, channels, 50_304, Formula::Causal).flops_per_token(), causal);
            assert_eq!(gpt2(layers, channels, 50_304, Formula::Full).flops_per_token(), full);
        }
        assert_eq!(gpt2(48, 1600, 50_257, Formula::Causal).params, 1_557_611_200);
        assert_eq!(gpt2(48, 1600, 50_304, Formula::Causal).steps(), 32_000);
    }

    #[test]
    fn recomputing_adds_the_forward_pass_of_the_blocks() {
        let once = gpt2(48, 1600, 50_257, Formula::Causal);
        let twice = Workload { recompute: true, ..once.clone() };
        assert_eq!((once.computed(), twice.flops_per_token()), (1.0, once.flops_per_token()));
        // 2 · (N - 50257 · 1600) + 2 · 48 · 1600 · 1024
        assert_eq!(twice.flops_again(), 2 * (1_557_611_200 - 50_257 * 1600) + 2 * 48 * 1600 * 1024);
        assert!((1.30..1.334).contains(&twice.computed()), "{}", twice.computed());
    }

    #[test]
    fn cards_without_a_sequence_do_no_work() {
        let work = Workload { sequences_per_step: 512, ..gpt2(12, 768, 50_304, Formula::Causal) };
        for (cards, most, busy) in
            [(1, 512, 1.0), (8, 64, 8.0), (24, 22, 512.0 / 22.0), (300, 2, 256.0), (512, 1, 512.0), (4096, 1, 512.0)]
        {
            assert_eq!((work.sequences_per_card(cards), work.busy_cards(cards)), (most, busy), "{cards} cards");
        }
    }

    #[test]
    fn a_total_beyond_64_bits_comes_out_to_the_digit() {
        let run = Workload {
            matmul_params: 729_813_504,
            channels: 1536,
            span: 18 * 1024 + 6 * 2048,
            tokens: 16_704 * 524_288,
            formula: Formula::Nanochat,
            ..gpt2(24, 1536, 32_768, Formula::Nanochat)
        };
        assert_eq!(run.flops_per_token(), 4_945_112_064);
        assert_eq!(run.flops().to_string(), "43307841312289456128");
    }
}
