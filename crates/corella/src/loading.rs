//! How far the loading of a model is: a source that counts the bytes that are read through it.

use std::sync::atomic::{AtomicU64, Ordering};

use corella_model::Source;
use corella_model::formats::FormatError;
use corella_model::params::ModelConfig;
use corella_ops::WeightFormat;

/// Is told the share that has been read, from any thread.
pub type Progress<'a> = dyn Fn(f32) + Sync + 'a;

/// A model's weights, and how much of them has been read.
pub struct Watched<'a, C> {
    source: &'a dyn Source<C>,
    total: u64,
    read: AtomicU64,
    progress: &'a Progress<'a>,
}

impl<'a, C: ModelConfig> Watched<'a, C> {
    /// Reads `source`, and tells `progress` the share done (0 … 1) after each piece.
    pub fn new(source: &'a dyn Source<C>, progress: &'a Progress<'a>) -> Watched<'a, C> {
        Watched { source, total: stored_bytes(source).max(1), read: AtomicU64::new(0), progress }
    }
}

/// Bytes of a model's weights as they are stored.
pub fn stored_bytes<C: ModelConfig>(source: &dyn Source<C>) -> u64 {
    let specs = source.config().table();
    let bytes = specs.iter().enumerate().flat_map(|(row, spec)| {
        spec.parts.iter().enumerate().map(move |(part, p)| {
            let format = source.format(row, part);
            (p.rows * (spec.cols / format.block_len() * format.block_bytes())) as u64
        })
    });
    bytes.sum()
}

impl<C: ModelConfig> Source<C> for Watched<'_, C> {
    fn config(&self) -> &C {
        self.source.config()
    }

    fn format(&self, row: usize, part: usize) -> WeightFormat {
        self.source.format(row, part)
    }

    fn read_rows(&self, row: usize, part: usize, first: usize, bytes: &mut [u8]) -> Result<(), FormatError> {
        self.source.read_rows(row, part, first, bytes)?;
        let read = self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        (self.progress)((read as f32 / self.total as f32).min(1.0));
        Ok(())
    }
}
