//! Where a model's weights come from: files, or memory.

use std::sync::{Mutex, PoisonError};

use corella_ops::quant::{dequantize_row, quantize_row};
use corella_ops::{Dtype, OpsInfer, ParamPart, ReadRows, WeightFormat};

use crate::ModelError;
use crate::formats::FormatError;
use crate::params::{Init, ModelConfig, ParamSpec};
use crate::random::Mersenne;
use crate::text_model::TrainModel;

/// Bytes that are read at once, about.
pub(crate) const PIECE: usize = 1 << 20;

/// A model's weights, read in pieces, so that no tensor need lie in memory twice. A row and a part are those of the
/// parameter table.
pub trait Source<C: ModelConfig>: Sync {
    /// The shape.
    fn config(&self) -> &C;
    /// How the numbers of a part are stored.
    fn format(&self, row: usize, part: usize) -> WeightFormat;
    /// Fills `bytes` with whole rows of a part's matrix, from row `first` on.
    fn read_rows(&self, row: usize, part: usize, first: usize, bytes: &mut [u8]) -> Result<(), FormatError>;

    /// All values of a row of the table.
    fn values(&self, row: usize) -> Result<Vec<f32>, FormatError> {
        let spec = &self.config().table()[row];
        let mut values = Vec::with_capacity(spec.len());
        for part in 0..spec.parts.len() {
            let format = self.format(row, part);
            let read = |first: usize, bytes: &mut [u8]| self.read_rows(row, part, first, bytes);
            each_piece(spec.parts[part].rows, row_bytes(format, spec.cols), &read, |bytes| {
                for row in bytes.chunks_exact(row_bytes(format, spec.cols)) {
                    let start = values.len();
                    values.resize(start + spec.cols, 0.0);
                    dequantize_row(format, row, &mut values[start..]);
                }
            })?;
        }
        Ok(values)
    }
}

/// Bytes of a row of `cols` numbers, whole blocks of the format.
pub(crate) fn row_bytes(format: WeightFormat, cols: usize) -> usize {
    cols / format.block_len() * format.block_bytes()
}

/// Calls `use_rows` for all `rows` rows of `row_bytes` bytes each, some at a time and in order.
pub(crate) fn each_piece<E>(
    rows: usize,
    row_bytes: usize,
    read: &ReadRows<'_, E>,
    mut use_rows: impl FnMut(&[u8]),
) -> Result<(), E> {
    let step = (PIECE / row_bytes.max(1)).max(1);
    let mut bytes = Vec::new();
    for first in (0..rows).step_by(step) {
        bytes.resize(step.min(rows - first) * row_bytes, 0);
        read(first, &mut bytes)?;
        use_rows(&bytes);
    }
    Ok(())
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
    let narrow = stored == WeightFormat::F32 && ops.step_dtype() == Dtype::Bf16;
    let format = if narrow { WeightFormat::Bf16 } else { stored };
    let mut weight = ops.weight(format, rows, cols, &spec.name)?;
    let as_stored = |first: usize, bytes: &mut [u8]| source.read_rows(row, part, first, bytes);
    let rounded = |first: usize, bytes: &mut [u8]| {
        let (mut wide, mut values, mut narrow) = (vec![0; 2 * bytes.len()], vec![0.0; bytes.len() / 2], Vec::new());
        source.read_rows(row, part, first, &mut wide)?;
        dequantize_row(stored, &wide, &mut values);
        quantize_row(format, &values, &mut narrow);
        bytes.copy_from_slice(&narrow);
        Ok(())
    };
    let read: &ReadRows<'_, FormatError> = if narrow { &rounded } else { &as_stored };
    ops.weight_fill(&mut weight, rows, row_bytes(format, cols), read)?;
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

/// Zeros instead of weights, in one format: what a plan is made with, where files are not there yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Zeros<C> {
    config: C,
    format: WeightFormat,
    /// Of each row of the table its length, and whether it is a vector.
    rows: Vec<(usize, bool)>,
}

impl<C: ModelConfig> Zeros<C> {
    /// Matrices in `format`, vectors in f32.
    pub fn new(config: C, format: WeightFormat) -> Self {
        let rows = config.table().iter().map(|spec| (spec.len(), spec.vector)).collect();
        Zeros { config, format, rows }
    }
}

impl<C: ModelConfig> Source<C> for Zeros<C> {
    fn config(&self) -> &C {
        &self.config
    }

    fn format(&self, row: usize, _part: usize) -> WeightFormat {
        if self.rows[row].1 { WeightFormat::F32 } else { self.format }
    }

    fn read_rows(&self, _row: usize, _part: usize, _first: usize, bytes: &mut [u8]) -> Result<(), FormatError> {
        bytes.fill(0);
        Ok(())
    }

    fn values(&self, row: usize) -> Result<Vec<f32>, FormatError> {
        Ok(vec![0.0; self.rows[row].0])
    }
}

impl<C: ModelConfig> Source<C> for Weights<C> {
    fn config(&self) -> &C {
        &self.config
    }

    fn format(&self, _row: usize, _part: usize) -> WeightFormat {
        WeightFormat::F32
    }

    fn read_rows(&self, row: usize, part: usize, first: usize, bytes: &mut [u8]) -> Result<(), FormatError> {
        copy_rows(&self.config.table()[row], part, first, &self.tensors[row], bytes);
        Ok(())
    }

    fn values(&self, row: usize) -> Result<Vec<f32>, FormatError> {
        Ok(self.tensors[row].clone())
    }
}

/// The weights of a model under training as they stand now. One tensor is copied at a time, the one read last is kept.
pub(crate) struct UnderTraining<'a, C> {
    config: &'a C,
    model: &'a dyn TrainModel,
    last: Mutex<Option<(usize, Vec<f32>)>>,
}

impl<'a, C> UnderTraining<'a, C> {
    pub fn new(config: &'a C, model: &'a dyn TrainModel) -> Self {
        UnderTraining { config, model, last: Mutex::default() }
    }
}

impl<C: ModelConfig> Source<C> for UnderTraining<'_, C> {
    fn config(&self) -> &C {
        self.config
    }

    fn format(&self, _row: usize, _part: usize) -> WeightFormat {
        WeightFormat::F32
    }

    fn read_rows(&self, row: usize, part: usize, first: usize, bytes: &mut [u8]) -> Result<(), FormatError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = last.take().filter(|(at, _)| *at == row);
        let (_, values) = last.insert(kept.unwrap_or_else(|| (row, self.model.read(row, ParamPart::Value))));
        copy_rows(&self.config.table()[row], part, first, values, bytes);
        Ok(())
    }

    fn values(&self, row: usize) -> Result<Vec<f32>, FormatError> {
        Ok(self.model.read(row, ParamPart::Value))
    }
}

/// Fills `bytes` with rows of a part from `first` on; `values` are those of its whole row of the table.
fn copy_rows<T>(spec: &ParamSpec<T>, part: usize, first: usize, values: &[f32], bytes: &mut [u8]) {
    let before: usize = spec.parts[..part].iter().map(|p| p.rows).sum();
    let values = &values[(before + first) * spec.cols..];
    bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_le_bytes());
}
