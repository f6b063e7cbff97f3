//! Weights for benches that are made as they are read: a few random rows of each width, again and again, in any format. So a
//! model of any size needs no file, and little more memory than what it is loaded into.

use std::collections::HashMap;

use corella_model::Source;
use corella_model::formats::FormatError;
use corella_model::params::{Init, ModelConfig, ParamSpec};
use corella_ops::WeightFormat;
use corella_ops::cases::{Random, random_rows};
use corella_ops::quant::quantize_row;

/// Different rows of a width: a prime, so that no panel of rows is like the next.
const ROWS: usize = 61;
/// Standard deviation of every matrix.
const STD: f32 = 0.02;

/// A model of random numbers; its matrices are in `format` where their rows are whole blocks of it, else in bf16.
#[derive(Debug)]
pub struct RandomRows<C: ModelConfig> {
    config: C,
    format: WeightFormat,
    table: Vec<ParamSpec<C::Tensor>>,
    /// For each width the bytes of its rows.
    rows: HashMap<usize, Vec<u8>>,
}

fn format_of(format: WeightFormat, cols: usize) -> WeightFormat {
    if cols.is_multiple_of(format.block_len()) { format } else { WeightFormat::Bf16 }
}

impl<C: ModelConfig> RandomRows<C> {
    pub fn new(config: C, format: WeightFormat) -> Self {
        let table = config.table();
        let mut rows = HashMap::new();
        for spec in table.iter().filter(|spec| !spec.vector) {
            rows.entry(spec.cols).or_insert_with(|| {
                let mut random = Random::new(spec.cols as u64);
                let mut bytes = Vec::new();
                let format = format_of(format, spec.cols);
                for _ in 0..ROWS {
                    let values: Vec<f32> = random.normals(spec.cols).iter().map(|x| STD * x).collect();
                    // Formats that are only read have random blocks.
                    if !quantize_row(format, &values, &mut bytes) {
                        bytes.extend(random_rows(&mut random, format, 1, spec.cols));
                    }
                }
                bytes
            });
        }
        RandomRows { config, format, table, rows }
    }
}

impl<C: ModelConfig> Source<C> for RandomRows<C> {
    fn config(&self) -> &C {
        &self.config
    }

    fn format(&self, row: usize, _part: usize) -> WeightFormat {
        let spec = &self.table[row];
        if spec.vector { WeightFormat::F32 } else { format_of(self.format, spec.cols) }
    }

    fn read_rows(&self, row: usize, part: usize, first: usize, bytes: &mut [u8]) -> Result<(), FormatError> {
        let spec = &self.table[row];
        if let Some(rows) = self.rows.get(&spec.cols).filter(|_| !spec.vector) {
            let each = rows.len() / ROWS;
            for (to, i) in bytes.chunks_exact_mut(each).zip(first + 7 * row + 3 * part..) {
                let at = i % ROWS * each;
                to.copy_from_slice(&rows[at..at + each]);
            }
            return Ok(());
        }
        let value: f32 = if spec.init == Init::Ones { 1.0 } else { 0.0 };
        bytes.chunks_exact_mut(4).for_each(|to| to.copy_from_slice(&value.to_le_bytes()));
        Ok(())
    }
}
