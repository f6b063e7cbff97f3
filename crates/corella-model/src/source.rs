//! Where a model's weights come from: files, or memory.

use corella_ops::quant::{dequantize_row, quantize_row};
use corella_ops::{Dtype, OpsInfer, ParamPart, WeightFormat};

use crate::ModelError;
use crate::formats::FormatError;
use crate::params::{Init, ModelConfig, ParamSpec};
use crate::random::Mersenne;

/// Bytes that are handed out at once, about.
pub(crate) const PIECE: usize = 4 << 20;

/// A model's weights, read in pieces, so that no tensor need lie in memory twice. A row and a part are those of the
/// parameter table.
pub trait Source<C: ModelConfig> {
    /// The shape.
    fn config(&self) -> &C;
    /// How the numbers of a part are stored.
    fn format(&self, row: usize, part: usize) -> WeightFormat;
    /// Calls `use_rows` with the number of a matrix row of the part and the bytes from there on, until all rows were seen.
    fn read_rows(&self, row: usize, part: usize, use_rows: &mut dyn FnMut(usize, &[u8])) -> Result<(), FormatError>;

    /// All values of a row of the table.
    fn values(&self, row: usize) -> Result<Vec<f32>, FormatError> {
        let spec = &self.config().table()[row];
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

/// A part of a matrix, packed for products piece by piece.
pub(crate) fn load_part<B: OpsInfer, C: ModelConfig>(
    ops: &B,
    source: &dyn Source<C>,
    row: usize,
    spec: &ParamSpec<C::Tensor>,
    part: usize,
) -> Result<B::Weight, ModelError> {
    let (stored, rows, cols) = (source.format(row, part), spec.parts[part].rows, spec.cols);
    // A backend whose steps are in bf16 has nothing from wider weights.
    if stored == WeightFormat::F32 && ops.step_dtype() == Dtype::Bf16 {
        let mut weight = ops.weight(WeightFormat::Bf16, rows, cols, &spec.name)?;
        let (mut values, mut rounded) = (vec![0.0; cols], Vec::new());
        source.read_rows(row, part, &mut |first, bytes| {
            rounded.clear();
            for row in bytes.chunks_exact(4 * cols) {
                dequantize_row(stored, row, &mut values);
                quantize_row(WeightFormat::Bf16, &values, &mut rounded);
            }
            ops.weight_rows(&mut weight, first, &rounded);
        })?;
        return Ok(weight);
    }
    let mut weight = ops.weight(stored, rows, cols, &spec.name)?;
    source.read_rows(row, part, &mut |first, bytes| ops.weight_rows(&mut weight, first, bytes))?;
    Ok(weight)
}

/// A bias or a norm, in f32.
pub(crate) fn load_vector<B: OpsInfer, C: ModelConfig>(
    ops: &B,
    source: &dyn Source<C>,
    row: usize,
    spec: &ParamSpec<C::Tensor>,
) -> Result<B::Param, ModelError> {
    let mut param = ops.param(1, spec.cols, false, Dtype::F32, &spec.name)?;
    ops.param_write(&mut param, ParamPart::Value, &source.values(row)?);
    Ok(param)
}

/// A model's weights in memory, in the order of the parameter table.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights<C> {
    /// The shape.
    pub config: C,
    /// One per row of the parameter table.
    pub tensors: Vec<Vec<f32>>,
}

impl<C: ModelConfig> Weights<C> {
    /// Random ones, as the table says, drawn as PyTorch and llm.c draw them: one generator, row after row. The same seed
    /// gives the same weights everywhere.
    pub fn random(config: &C, seed: u64) -> Self {
        // The generator takes 32 bits; the rest of a long seed is folded in.
        let mut generator = Mersenne::new((seed ^ (seed >> 32)) as u32);
        let table = config.table();
        let tensors = table.iter().map(|spec| match spec.init {
            Init::Normal(std) => {
                let mut values = vec![0.0; spec.len()];
                generator.normal(&mut values, std);
                values
            }
            Init::Ones => vec![1.0; spec.len()],
            Init::Zeros => vec![0.0; spec.len()],
        });
        Weights { tensors: tensors.collect(), config: config.clone() }
    }

    /// A copy of those of another source.
    pub fn read(source: &dyn Source<C>) -> Result<Self, ModelError> {
        let config = source.config().clone();
        let rows = config.table().len();
        Ok(Weights { tensors: (0..rows).map(|row| source.values(row)).collect::<Result<_, _>>()?, config })
    }
}

impl<C: ModelConfig> Source<C> for Weights<C> {
    fn config(&self) -> &C {
        &self.config
    }

    fn format(&self, _row: usize, _part: usize) -> WeightFormat {
        WeightFormat::F32
    }

    fn read_rows(&self, row: usize, part: usize, use_rows: &mut dyn FnMut(usize, &[u8])) -> Result<(), FormatError> {
        let spec = &self.config.table()[row];
        let before: usize = spec.parts[..part].iter().map(|p| p.rows).sum();
        let values = &self.tensors[row][before * spec.cols..][..spec.parts[part].rows * spec.cols];
        let rows = (PIECE / 4 / spec.cols).max(1);
        for (i, piece) in values.chunks(rows * spec.cols).enumerate() {
            let bytes: Vec<u8> = piece.iter().flat_map(|v| v.to_le_bytes()).collect();
            use_rows(i * rows, &bytes);
        }
        Ok(())
    }

    fn values(&self, row: usize) -> Result<Vec<f32>, FormatError> {
        Ok(self.tensors[row].clone())
    }
}
