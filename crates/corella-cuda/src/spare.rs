//! Memory of short life, kept for the next who asks: the same sizes come again with every step, and taking memory from the
//! driver waits for the card.

use std::sync::{Arc, Mutex, PoisonError};

use crate::array::word_bytes;
use crate::driver::{Address, Driver, Memory};
use crate::error::CudaError;

/// Sizes are rounded up to a power of two from here on.
const LEAST: usize = 256;
/// Pieces that are kept.
const MOST: usize = 32;

/// Memory that nobody has at the moment.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Vec<Memory>>);

/// Memory that goes back to where it was taken from.
#[derive(Debug)]
pub(crate) struct Lent {
    memory: Option<Memory>,
    from: Arc<Spare>,
}

impl Lent {
    /// Memory for `words`, which are written to it: of its size always the first that is there, so that one step after another
    /// finds the same address.
    pub fn holding(spare: &Arc<Spare>, driver: &Arc<dyn Driver>, words: &[u32]) -> Result<Lent, CudaError> {
        let bytes = word_bytes(words);
        let size = bytes.len().next_power_of_two().max(LEAST);
        let known = {
            let mut spare = spare.0.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = spare.iter().enumerate().filter(|(_, memory)| memory.bytes == size);
            fits.min_by_key(|(_, memory)| memory.at).map(|(index, _)| index).map(|index| spare.remove(index))
        };
        let memory = known.map_or_else(|| Memory::zeros(driver, size), Ok)?;
        driver.upload(memory.at, &bytes)?;
        Ok(Lent { memory: Some(memory), from: spare.clone() })
    }

    /// Where it begins.
    pub fn at(&self) -> Address {
        self.memory.as_ref().map_or(0, |memory| memory.at)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut spare = self.from.0.lock().unwrap_or_else(PoisonError::into_inner);
        spare.extend(self.memory.take());
        if spare.len() > MOST {
            spare.remove(0);
        }
    }
}
