//! Formats in which model files store weights.
//!
//! Every quantised format of GGUF says the same thing in another packing: a weight is `scale·(value of a code) − minimum`,
//! with codes of a few bits, and scales shared by a block. [`blocks`] takes a block apart into these; whoever needs a
//! weight's value, or another packing of the same weight, starts there. Source: the format definitions of ggml
//! (`ggml-common.h`) and the Python package `gguf`, which the fixtures come from.

pub mod blocks;
mod grids;
pub mod half;
pub mod quantize;

use crate::contract::OpsError;
pub use blocks::dequantize_row;
pub use quantize::{fits, quantize_row};

/// How the weights of a matrix are stored, row after row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum WeightFormat {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// 8 bits, one scale for 32 weights.
    Q8_0,
    /// 4 bits, one scale for 32 weights.
    Q4_0,
    /// 4 bits, scale and minimum for 32 weights.
    Q4_1,
    /// 5 bits, one scale for 32 weights.
    Q5_0,
    /// 5 bits, scale and minimum for 32 weights.
    Q5_1,
    /// 2 bits, 4-bit scales and minima for 16 of 256 weights.
    Q2_K,
    /// 3 bits, 6-bit scales for 16 of 256 weights.
    Q3_K,
    /// 4 bits, 6-bit scales and minima for 32 of 256 weights.
    Q4_K,
    /// 5 bits, 6-bit scales and minima for 32 of 256 weights.
    Q5_K,
    /// 6 bits, 8-bit scales for 16 of 256 weights.
    Q6_K,
    /// 4 bits that choose from 16 values, one scale for 32 weights.
    IQ4_NL,
    /// 4 bits that choose from 16 values, 6-bit scales for 32 of 256 weights.
    IQ4_XS,
    /// 8 weights chosen from a table of 256, their signs, 4-bit scales for 32 of 256 weights.
    IQ2_XXS,
    /// 8 weights chosen from a table of 512, their signs, 4-bit scales for 16 of 256 weights.
    IQ2_XS,
    /// 8 weights chosen from a table of 1,024, their signs, 4-bit scales for 16 of 256 weights.
    IQ2_S,
    /// 4 weights chosen from a table of 256, their signs, 4-bit scales for 32 of 256 weights.
    IQ3_XXS,
    /// 4 weights chosen from a table of 512, their signs, 4-bit scales for 32 of 256 weights.
    IQ3_S,
    /// 8 weights chosen from a table of 2,048, all an eighth more or less, 3-bit scales for 32 of 256 weights.
    IQ1_S,
    /// The same, with 3-bit scales for 16 of 256 weights.
    IQ1_M,
    /// −1, 0 or 1, five of them in a byte, one scale for 256 weights.
    TQ1_0,
    /// −1, 0, 1 or 2 in two bits, one scale for 256 weights.
    TQ2_0,
}

impl WeightFormat {
    /// Every format.
    #[rustfmt::skip]
    pub const ALL: [WeightFormat; 24] = {
        use WeightFormat::*;
        [
            F32, F16, Bf16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, IQ2_XXS, IQ2_XS,
            IQ2_S, IQ3_XXS, IQ3_S, IQ1_S, IQ1_M, TQ1_0, TQ2_0,
        ]
    };

    /// Name, as GGUF writes it.
    pub fn name(self) -> &'static str {
        use WeightFormat::*;
        match self {
            F32 => "F32",
            F16 => "F16",
            Bf16 => "BF16",
            Q8_0 => "Q8_0",
            Q4_0 => "Q4_0",
            Q4_1 => "Q4_1",
            Q5_0 => "Q5_0",
            Q5_1 => "Q5_1",
            Q2_K => "Q2_K",
            Q3_K => "Q3_K",
            Q4_K => "Q4_K",
            Q5_K => "Q5_K",
            Q6_K => "Q6_K",
            IQ4_NL => "IQ4_NL",
            IQ4_XS => "IQ4_XS",
            IQ2_XXS => "IQ2_XXS",
            IQ2_XS => "IQ2_XS",
            IQ2_S => "IQ2_S",
            IQ3_XXS => "IQ3_XXS",
            IQ3_S => "IQ3_S",
            IQ1_S => "IQ1_S",
            IQ1_M => "IQ1_M",
            TQ1_0 => "TQ1_0",
            TQ2_0 => "TQ2_0",
        }
    }

    /// Weights of a block. A row is a whole number of blocks.
    pub fn block_len(self) -> usize {
        use WeightFormat::*;
        match self {
            F32 | F16 | Bf16 => 1,
            Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | IQ4_NL => 32,
            _ => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        use WeightFormat::*;
        match self {
            F32 => 4,
            F16 | Bf16 => 2,
            Q8_0 => 34,
            Q4_0 | IQ4_NL => 18,
            Q4_1 => 20,
            Q5_0 => 22,
            Q5_1 => 24,
            Q2_K => 84,
            Q3_K => 110,
            Q4_K => 144,
            Q5_K => 176,
            Q6_K => 210,
            IQ4_XS => 136,
            IQ2_XXS | TQ2_0 => 66,
            IQ2_XS => 74,
            IQ2_S => 82,
            IQ3_XXS => 98,
            IQ3_S => 110,
            IQ1_S => 50,
            IQ1_M => 56,
            TQ1_0 => 54,
        }
    }

    /// Where the half-precision scales and minima of a block lie. Any other bits of a block are valid codes, but that IQ1_M keeps
    /// its scale in four parts: [`blocks::numbers`] puts it together.
    pub fn halves_at(self) -> &'static [usize] {
        use WeightFormat::*;
        match self {
            F32 | F16 | Bf16 | IQ1_M => &[],
            Q8_0 | Q4_0 | Q5_0 | IQ4_NL | IQ4_XS => &[0],
            IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ1_S => &[0],
            Q4_1 | Q5_1 | Q4_K | Q5_K => &[0, 2],
            Q2_K => &[80, 82],
            Q3_K => &[108],
            Q6_K => &[208],
            TQ1_0 => &[52],
            TQ2_0 => &[64],
        }
    }

    /// Bytes of a row of `cols` weights; `None` if that is not a whole number of blocks, or too large to count.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        cols.is_multiple_of(self.block_len())
            .then(|| (cols / self.block_len()).checked_mul(self.block_bytes()))
            .flatten()
    }

    /// Refuses rows that are not a whole number of blocks. `what` names the tensor.
    pub fn check_row(self, cols: usize, what: &str) -> Result<(), OpsError> {
        match self.row_bytes(cols) {
            Some(_) => Ok(()),
            None => {
                Err(OpsError::RaggedRow { what: what.to_owned(), cols, format: self.name(), block: self.block_len() })
            }
        }
    }
}
