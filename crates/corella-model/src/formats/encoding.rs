//! How the numbers of a tensor are stored: plain, or in blocks that share a scale.

use corella_ops::WeightFormat;

/// A number format of a file. The numbers are GGUF's type ids (ggml's `enum ggml_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the format")]
#[allow(non_camel_case_types, reason = "the names are those of the format")]
#[repr(u32)]
pub enum Encoding {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q8_1 = 9,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    Q8_K = 15,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    I8 = 24,
    I16 = 25,
    I32 = 26,
    I64 = 27,
    F64 = 28,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
}

use Encoding::*;

/// Every format with its name, the numbers of a block, and the bytes of a block.
const TABLE: [(Encoding, &str, u64, u64); 32] = [
    (F32, "F32", 1, 4),
    (F16, "F16", 1, 2),
    (Q4_0, "Q4_0", 32, 18),
    (Q4_1, "Q4_1", 32, 20),
    (Q5_0, "Q5_0", 32, 22),
    (Q5_1, "Q5_1", 32, 24),
    (Q8_0, "Q8_0", 32, 34),
    (Q8_1, "Q8_1", 32, 36),
    (Q2_K, "Q2_K", 256, 84),
    (Q3_K, "Q3_K", 256, 110),
    (Q4_K, "Q4_K", 256, 144),
    (Q5_K, "Q5_K", 256, 176),
    (Q6_K, "Q6_K", 256, 210),
    (Q8_K, "Q8_K", 256, 292),
    (IQ2_XXS, "IQ2_XXS", 256, 66),
    (IQ2_XS, "IQ2_XS", 256, 74),
    (IQ3_XXS, "IQ3_XXS", 256, 98),
    (IQ1_S, "IQ1_S", 256, 50),
    (IQ4_NL, "IQ4_NL", 32, 18),
    (IQ3_S, "IQ3_S", 256, 110),
    (IQ2_S, "IQ2_S", 256, 82),
    (IQ4_XS, "IQ4_XS", 256, 136),
    (I8, "I8", 1, 1),
    (I16, "I16", 1, 2),
    (I32, "I32", 1, 4),
    (I64, "I64", 1, 8),
    (F64, "F64", 1, 8),
    (IQ1_M, "IQ1_M", 256, 56),
    (BF16, "BF16", 1, 2),
    (TQ1_0, "TQ1_0", 256, 54),
    (TQ2_0, "TQ2_0", 256, 66),
    (MXFP4, "MXFP4", 32, 17),
];

impl Encoding {
    /// By GGUF's type id.
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().map(|row| row.0).find(|e| *e as u32 == id)
    }

    /// By name, in any case, e.g. `q8_0`.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1.eq_ignore_ascii_case(name)).map(|row| row.0)
    }

    fn row(self) -> &'static (Encoding, &'static str, u64, u64) {
        // Every variant is in the table, as the test below checks.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    /// The format as models are computed from it; none where no kernel reads it.
    pub fn weights(self) -> Option<WeightFormat> {
        WeightFormat::ALL.into_iter().find(|w| w.name() == self.name())
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Numbers that are packed together; rows are whole multiples of it.
    pub fn block_len(self) -> u64 {
        self.row().2
    }

    /// Bytes that a block takes.
    pub fn block_bytes(self) -> u64 {
        self.row().3
    }

    /// Bytes of `elements` numbers, a whole number of blocks; none if no file is that large.
    pub fn bytes(self, elements: u64) -> Option<u64> {
        (elements / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl From<WeightFormat> for Encoding {
    fn from(format: WeightFormat) -> Self {
        // Every format of weights is one of files, as the test below checks.
        Encoding::from_name(format.name()).unwrap_or(F32)
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ids_and_rows_belong_together() {
        for (encoding, name, block, bytes) in TABLE {
            assert_eq!(format!("{encoding:?}"), name);
            assert_eq!(Encoding::from_id(encoding as u32), Some(encoding));
            assert_eq!((encoding.block_len(), encoding.block_bytes()), (block, bytes));
        }
        for format in WeightFormat::ALL {
            let encoding = Encoding::from(format);
            assert_eq!(encoding.weights(), Some(format));
            assert_eq!(encoding.block_len(), format.block_len() as u64);
            assert_eq!(encoding.block_bytes(), format.block_bytes() as u64);
        }
        // Ids between the lowest and highest that ggml has removed.
        for gone in [4, 5, 31, 32, 33, 36, 37, 38, u32::MAX] {
            assert_eq!(Encoding::from_id(gone), None);
        }
        assert_eq!(Encoding::from_name("q4_k"), Some(Q4_K));
        assert_eq!(Q4_0.bytes(64), Some(36));
        assert_eq!(F64.bytes(u64::MAX), None);
    }
}
