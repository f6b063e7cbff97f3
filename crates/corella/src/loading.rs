//! How far the loading of a model is: a source that counts the bytes that are read through it.

use std::cell::Cell;

use corella_model::Source;
use corella_model::formats::FormatError;
use corella_model::params::ModelConfig;
use corella_ops::WeightFormat;

/// A model's weights, and how much of them has been read.
pub struct Watched<'a, C> {
    source: &'a dyn Source<C>,
    total: u64,
    read: Cell<u64>,
    progress: &'a dyn Fn(f32),
}

impl<'a, C: ModelConfig> Watched<'a, C> {
    /// Reads `source`, and tells `progress` the share done (0 … 1) after each piece.
    pub fn new(source: &'a dyn Source<C>, progress: &'a dyn Fn(f32)) -> Watched<'a, C> {
        let specs = source.config().table();
        let bytes = specs.iter().enumerate().flat_map(|(row, spec)| {
            spec.parts.iter().enumerate().map(move |(part, p)| {
                let format = source.format(row, part);
                (p.rows * (spec.cols / format.block_len() * format.block_bytes())) as u64
            })
        });
        let total = bytes.sum::<u64>().max(1);
        Watched { source, total, read: Cell::new(0), progress }
    }
}

impl<C: ModelConfig> Source<C> for Watched<'_, C> {
    fn config(&self) -> &C {
        self.source.config()
    }

    fn format(&self, row: usize, part: usize) -> WeightFormat {
        self.source.format(row, part)
    }

    fn read_rows(&self, row: usize, part: usize, use_rows: &mut dyn FnMut(usize, &[u8])) -> Result<(), FormatError> {
        self.source.read_rows(row, part, &mut |first, bytes| {
            use_rows(first, bytes);
            self.read.set(self.read.get() + bytes.len() as u64);
            (self.progress)((self.read.get() as f32 / self.total as f32).min(1.0));
        })
    }
}
