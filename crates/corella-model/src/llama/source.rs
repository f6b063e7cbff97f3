//! Where a Llama's weights come from: files, or memory.

use corella_ops::WeightFormat;
use corella_ops::quant::dequantize_row;

use super::config::LlamaConfig;
use super::init::random_tensor;
use super::params::param_specs;
use crate::ModelError;
use crate::formats::FormatError;

/// Bytes that are handed out at once, about.
const PIECE: usize = 4 << 20;

/// A Llama's weights, read in pieces. A row and a part are those of the parameter table.
pub trait LlamaSource {
    /// The shape.
    fn config(&self) -> &LlamaConfig;
    /// How the numbers of a part are stored.
    fn format(&self, row: usize, part: usize) -> WeightFormat;
    /// Calls `use_rows` with the number of a matrix row and the bytes from there on, until all rows were seen.
    fn read_rows(&self, row: usize, part: usize, use_rows: &mut dyn FnMut(usize, &[u8])) -> Result<(), FormatError>;

    /// All values of a row of the table.
    fn values(&self, row: usize) -> Result<Vec<f32>, FormatError> {
        let spec = &param_specs(self.config())[row];
        let mut values = Vec::with_capacity(spec.len());
        for part in 0..spec.parts.len() {
            let format = self.format(row, part);
            let row_bytes = spec.cols / format.block_len() * format.block_bytes();
            self.read_rows(row, part, &mut |_, bytes| {
                for row in bytes.chunks_exact(row_bytes) {
                    let start = values.len();
                    values.resize(start + spec.cols, 0.0);
                    dequantize_row(format, row, &mut values[start..]);
                }
            })?;
        }
        Ok(values)
    }
}

/// A Llama's weights in memory, in the order of the parameter table.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaWeights {
    /// The shape.
    pub config: LlamaConfig,
    /// One per row of the parameter table.
    pub tensors: Vec<Vec<f32>>,
}

impl LlamaWeights {
    /// Random ones: matrices normal with the deviation that the table says, norms 1.
    pub fn random(config: &LlamaConfig, seed: u64) -> Self {
        let mut draw = random_tensor(seed);
        LlamaWeights { config: config.clone(), tensors: param_specs(config).iter().map(&mut draw).collect() }
    }

    /// A copy of those of another source.
    pub fn read(source: &dyn LlamaSource) -> Result<Self, ModelError> {
        let config = source.config().clone();
        let rows = param_specs(&config).len();
        Ok(LlamaWeights { tensors: (0..rows).map(|row| source.values(row)).collect::<Result<_, _>>()?, config })
    }
}

impl LlamaSource for LlamaWeights {
    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn format(&self, _row: usize, _part: usize) -> WeightFormat {
        WeightFormat::F32
    }

    fn read_rows(&self, row: usize, part: usize, use_rows: &mut dyn FnMut(usize, &[u8])) -> Result<(), FormatError> {
        let spec = &param_specs(&self.config)[row];
        let before: usize = spec.parts[..part].iter().map(|p| p.rows).sum();
        let values = &self.tensors[row][before * spec.cols..][..spec.parts[part].rows * spec.cols];
        let rows = (PIECE / 4 / spec.cols).max(1);
        for (i, piece) in values.chunks(rows * spec.cols).enumerate() {
            let bytes: Vec<u8> = piece.iter().flat_map(|v| v.to_le_bytes()).collect();
            use_rows(i * rows, &bytes);
        }
        Ok(())
    }
}
