//! The parameter table: the one list of GPT-2's tensors.

use corella_ops::KvKind;

use super::config::Gpt2Config;
use crate::params::{Init, ModelConfig, ParamSpec};
use crate::role::Role;

/// What a tensor is; the first sixteen stand in the order of llm.c's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tensor {
    /// Token embedding (V, C).
    Wte,
    /// Position embedding (T, C).
    Wpe,
    /// First norm, weight (C).
    Ln1W,
    /// First norm, bias (C).
    Ln1B,
    /// Query, key and value, weight (3C, C).
    QkvW,
    /// Query, key and value, bias (3C).
    QkvB,
    /// Attention's output, weight (C, C).
    AttProjW,
    /// Attention's output, bias (C).
    AttProjB,
    /// Second norm, weight (C).
    Ln2W,
    /// Second norm, bias (C).
    Ln2B,
    /// MLP up, weight (4C, C).
    FcW,
    /// MLP up, bias (4C).
    FcB,
    /// MLP down, weight (C, 4C).
    FcProjW,
    /// MLP down, bias (C).
    FcProjB,
    /// Last norm, weight (C).
    LnFW,
    /// Last norm, bias (C).
    LnFB,
    /// Output head (V, C); absent where it is the token embedding.
    Head,
}

/// Index of wte in the table.
pub const WTE: usize = 0;
/// Index of wpe in the table.
pub const WPE: usize = 1;
/// Tensors before the first block.
const BEFORE: usize = 2;
/// Tensors of a block, from [`Tensor::Ln1W`] to [`Tensor::FcProjB`].
const PER_BLOCK: usize = 12;

/// Index of a block's tensor in the table.
pub fn at(layer: usize, which: Tensor) -> usize {
    layer * PER_BLOCK + which as usize
}

/// Index of the last norm's weight; its bias follows.
pub fn last_norm(config: &Gpt2Config) -> usize {
    BEFORE + config.n_layer() * PER_BLOCK
}

/// Name of a tensor, Hugging Face's without `transformer.`, and within its block.
pub fn name(tensor: Tensor, layer: Option<usize>) -> String {
    let rest = match tensor {
        Tensor::Wte => "wte.weight",
        Tensor::Wpe => "wpe.weight",
        Tensor::Ln1W => "ln_1.weight",
        Tensor::Ln1B => "ln_1.bias",
        Tensor::QkvW => "attn.c_attn.weight",
        Tensor::QkvB => "attn.c_attn.bias",
        Tensor::AttProjW => "attn.c_proj.weight",
        Tensor::AttProjB => "attn.c_proj.bias",
        Tensor::Ln2W => "ln_2.weight",
        Tensor::Ln2B => "ln_2.bias",
        Tensor::FcW => "mlp.c_fc.weight",
        Tensor::FcB => "mlp.c_fc.bias",
        Tensor::FcProjW => "mlp.c_proj.weight",
        Tensor::FcProjB => "mlp.c_proj.bias",
        Tensor::LnFW => "ln_f.weight",
        Tensor::LnFB => "ln_f.bias",
        Tensor::Head => "lm_head.weight",
    };
    layer.map_or_else(|| rest.to_owned(), |layer| format!("h.{layer}.{rest}"))
}

impl ModelConfig for Gpt2Config {
    type Tensor = Tensor;
    const LOOKED_UP: &'static [usize] = &[WTE, WPE];

    fn table(&self) -> Vec<ParamSpec<Tensor>> {
        use Tensor::*;
        let (v, c, t) = (self.vocab_size(), self.n_embd(), self.seq_len());
        let normal = 0.02;
        // The projections that add to the residual stream start smaller, by the number of additions.
        let residual = 0.02 / (2.0 * self.n_layer() as f32).sqrt();
        let matrix = |layer, tensor, rows, cols, std| {
            ParamSpec::matrix(layer, name(tensor, layer), &[(tensor, rows)], cols, std)
        };
        let ones = |layer, tensor| ParamSpec::vector(layer, name(tensor, layer), tensor, c, Init::Ones);
        let zeros = |layer, tensor, len| ParamSpec::vector(layer, name(tensor, layer), tensor, len, Init::Zeros);
        let mut table = vec![matrix(None, Wte, v, c, normal), matrix(None, Wpe, t, c, normal)];
        for layer in (0..self.n_layer()).map(Some) {
            table.extend([
                ones(layer, Ln1W),
                zeros(layer, Ln1B, c),
                matrix(layer, QkvW, 3 * c, c, normal),
                zeros(layer, QkvB, 3 * c),
                matrix(layer, AttProjW, c, c, residual),
                zeros(layer, AttProjB, c),
                ones(layer, Ln2W),
                zeros(layer, Ln2B, c),
                matrix(layer, FcW, 4 * c, c, normal),
                zeros(layer, FcB, 4 * c),
                matrix(layer, FcProjW, c, 4 * c, residual),
                zeros(layer, FcProjB, c),
            ]);
        }
        table.extend([ones(None, LnFW), zeros(None, LnFB, c)]);
        if !self.tied() {
            table.push(matrix(None, Head, v, c, normal));
        }
        table
    }

    fn role(tensor: Tensor) -> Role {
        match tensor {
            Tensor::Wte => Role::TokenEmbedding,
            Tensor::Wpe => Role::PositionEmbedding,
            Tensor::Ln1W => Role::AttentionNorm,
            Tensor::Ln1B => Role::AttentionNormBias,
            Tensor::QkvW => Role::Qkv,
            Tensor::QkvB => Role::QkvBias,
            Tensor::AttProjW => Role::AttentionOutput,
            Tensor::AttProjB => Role::AttentionOutputBias,
            Tensor::Ln2W => Role::FeedForwardNorm,
            Tensor::Ln2B => Role::FeedForwardNormBias,
            Tensor::FcW => Role::Up,
            Tensor::FcB => Role::UpBias,
            Tensor::FcProjW => Role::Down,
            Tensor::FcProjB => Role::DownBias,
            Tensor::LnFW => Role::FinalNorm,
            Tensor::LnFB => Role::FinalNormBias,
            Tensor::Head => Role::Head,
        }
    }

    fn head(&self) -> usize {
        if self.tied() { WTE } else { last_norm(self) + 2 }
    }

    fn vocab_size(&self) -> usize {
        Gpt2Config::vocab_size(self)
    }

    fn context_len(&self) -> usize {
        self.seq_len()
    }

    fn width(&self) -> usize {
        self.n_embd()
    }

    fn head_size(&self) -> usize {
        self.n_embd() / self.n_head()
    }

    fn parameter_count(&self) -> usize {
        Gpt2Config::parameter_count(self)
    }

    fn kv_token_bytes(&self, kind: KvKind) -> u64 {
        2 * (self.n_layer() * self.n_head() * kind.bytes(self.head_size())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_published_sizes_have_their_published_counts() {
        let published = [
            ("gpt2-124m", 124_439_808),
            ("gpt2-355m", 354_823_168),
            ("gpt2-774m", 774_030_080),
            ("gpt2-1558m", 1_557_611_200),
        ];
        for (name, count) in published {
            let config = Gpt2Config::preset(name).expect(name);
            assert_eq!(config.parameter_count(), count, "{name}");
            assert_eq!(config.table().iter().map(ParamSpec::len).sum::<usize>(), count, "{name}");
        }
    }

    #[test]
    fn places_name_the_tensors_they_say() {
        let config = Gpt2Config::new(11, 3, 2, 8, 16).expect("valid");
        let table = config.table();
        assert_eq!(table[at(2, Tensor::FcProjB)].name, "h.2.mlp.c_proj.bias");
        assert_eq!(table[at(1, Tensor::QkvW)].name, "h.1.attn.c_attn.weight");
        assert_eq!(table[last_norm(&config)].name, "ln_f.weight");
        assert_eq!(config.head(), WTE);
        let own = config.with_own_head().expect("valid");
        assert_eq!(own.table()[own.head()].name, "lm_head.weight");
        assert_eq!(own.table().iter().map(ParamSpec::len).sum::<usize>(), own.parameter_count());
    }
}
