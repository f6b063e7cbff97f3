//! The parameter table: the one list of GPT-2's tensors.
//!
//! It drives allocation, initialisation, weight decay, the names in files, the parameter count and the gradient tests.

use super::config::Gpt2Config;
use crate::text_model::ParamInfo;

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// All 1.
    Ones,
    /// All 0.
    Zeros,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Hugging Face name without `transformer.`, e.g. `h.0.attn.c_attn.weight`.
    pub name: String,
    /// Rows of a matrix (OC), 1 for a vector.
    pub rows: usize,
    /// Columns of a matrix (C), length of a vector.
    pub cols: usize,
    /// Whether it is a vector (bias or norm); vectors have no weight decay.
    pub vector: bool,
    /// How it starts.
    pub init: Init,
    /// Whether Hugging Face stores it as (in, out), as its `Conv1D` does.
    pub transposed: bool,
    /// Which of llm.c's sixteen tensors it is a layer of.
    pub llmc: usize,
}

impl ParamSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether it has no elements; a valid configuration has no such tensor.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape in memory.
    pub fn shape(&self) -> Vec<usize> {
        if self.vector { vec![self.cols] } else { vec![self.rows, self.cols] }
    }

    /// As the trainer sees it.
    pub fn info(&self) -> ParamInfo {
        ParamInfo { name: self.name.clone(), shape: self.shape(), decay: !self.vector }
    }
}

/// Index of wte in the table.
pub const WTE: usize = 0;
/// Index of wpe in the table.
pub const WPE: usize = 1;
/// Tensors before the first block.
const BEFORE: usize = 2;
/// Tensors of a block, in the order of [`Block`].
const PER_BLOCK: usize = 12;

/// Places of a block's tensors in the table.
#[derive(Clone, Copy, Debug)]
pub enum Block {
    /// First norm, weight.
    Ln1W,
    /// First norm, bias.
    Ln1B,
    /// Query, key and value, weight (3C, C).
    QkvW,
    /// Query, key and value, bias (3C).
    QkvB,
    /// Attention's output, weight (C, C).
    AttProjW,
    /// Attention's output, bias (C).
    AttProjB,
    /// Second norm, weight.
    Ln2W,
    /// Second norm, bias.
    Ln2B,
    /// MLP up, weight (4C, C).
    FcW,
    /// MLP up, bias (4C).
    FcB,
    /// MLP down, weight (C, 4C).
    FcProjW,
    /// MLP down, bias (C).
    FcProjB,
}

/// Index of a block's tensor in the table.
pub fn at(layer: usize, which: Block) -> usize {
    BEFORE + layer * PER_BLOCK + which as usize
}

/// Index of the last norm's weight; its bias follows.
pub fn last_norm(config: &Gpt2Config) -> usize {
    BEFORE + config.n_layer() * PER_BLOCK
}

/// The table for a shape.
pub fn param_specs(config: &Gpt2Config) -> Vec<ParamSpec> {
    let (v, c, t) = (config.vocab_size(), config.n_embd(), config.seq_len());
    let normal = Init::Normal(0.02);
    // The projections that add to the residual stream start smaller, by the number of additions.
    let residual = Init::Normal(0.02 / (2.0 * config.n_layer() as f32).sqrt());
    let matrix = |name: &str, rows, cols, init, transposed, llmc| ParamSpec {
        name: name.to_owned(),
        rows,
        cols,
        vector: false,
        init,
        transposed,
        llmc,
    };
    let vector = |name: &str, cols, init, llmc| ParamSpec {
        name: name.to_owned(),
        rows: 1,
        cols,
        vector: true,
        init,
        transposed: false,
        llmc,
    };
    let mut table = vec![matrix("wte.weight", v, c, normal, false, 0), matrix("wpe.weight", t, c, normal, false, 1)];
    for layer in 0..config.n_layer() {
        let n = |rest: &str| format!("h.{layer}.{rest}");
        table.extend([
            vector(&n("ln_1.weight"), c, Init::Ones, 2),
            vector(&n("ln_1.bias"), c, Init::Zeros, 3),
            matrix(&n("attn.c_attn.weight"), 3 * c, c, normal, true, 4),
            vector(&n("attn.c_attn.bias"), 3 * c, Init::Zeros, 5),
            matrix(&n("attn.c_proj.weight"), c, c, residual, true, 6),
            vector(&n("attn.c_proj.bias"), c, Init::Zeros, 7),
            vector(&n("ln_2.weight"), c, Init::Ones, 8),
            vector(&n("ln_2.bias"), c, Init::Zeros, 9),
            matrix(&n("mlp.c_fc.weight"), 4 * c, c, normal, true, 10),
            vector(&n("mlp.c_fc.bias"), 4 * c, Init::Zeros, 11),
            matrix(&n("mlp.c_proj.weight"), c, 4 * c, residual, true, 12),
            vector(&n("mlp.c_proj.bias"), c, Init::Zeros, 13),
        ]);
    }
    table.extend([vector("ln_f.weight", c, Init::Ones, 14), vector("ln_f.bias", c, Init::Zeros, 15)]);
    table
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
            assert_eq!(param_specs(&config).iter().map(ParamSpec::len).sum::<usize>(), count, "{name}");
        }
    }

    #[test]
    fn places_name_the_tensors_they_say() {
        let config = Gpt2Config::new(11, 3, 2, 8, 16).expect("valid");
        let table = param_specs(&config);
        assert_eq!(table[at(2, Block::FcProjB)].name, "h.2.mlp.c_proj.bias");
        assert_eq!(table[at(1, Block::QkvW)].name, "h.1.attn.c_attn.weight");
        assert_eq!(table[last_norm(&config)].name, "ln_f.weight");
    }
}
