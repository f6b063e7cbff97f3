//! Token ids on the card, with the order in which their gradients are added up.

use std::sync::Arc;

use corella_ops::shapes::Length;

use crate::array::word_bytes;
use crate::driver::{Address, Driver, Memory};
use crate::error::CudaError;

/// Token ids, and the same rows sorted by id, so that one thread adds up all rows of a token, in their order. All of it goes over in
/// one copy: a step of decoding would feel three.
#[derive(Debug)]
pub struct Ids {
    /// The ids that were written last (len); the rows sorted by id, then by number (len); where the rows of each different id begin
    /// among those, and where the last end (groups + 1).
    words: Memory,
    /// Ids that there is room for.
    room: usize,
    /// Different ids.
    pub(crate) groups: usize,
    /// Ids that were written last.
    pub(crate) len: usize,
}

impl Length for Ids {
    fn length(&self) -> usize {
        self.len
    }
}

impl Ids {
    pub(crate) fn new(driver: &Arc<dyn Driver>, len: usize) -> Result<Ids, CudaError> {
        let words = Memory::zeros(driver, 4 * (3 * len + 1))?;
        let mut ids = Ids { words, room: len, groups: 0, len: 0 };
        ids.write(&**driver, &vec![0; len])?;
        Ok(ids)
    }

    #[track_caller]
    pub(crate) fn write(&mut self, driver: &dyn Driver, values: &[u32]) -> Result<(), CudaError> {
        assert!(values.len() <= self.room, "more ids than there is room for");
        let (order, starts) = grouped(values);
        driver.upload(self.words.at, &word_bytes(&[values, &order, &starts].concat()))?;
        self.groups = starts.len() - 1;
        self.len = values.len();
        Ok(())
    }

    /// Where the ids lie: always at the same place.
    pub(crate) fn at(&self) -> Address {
        self.words.at
    }

    /// Where the order of the rows lies, and where each id's rows begin in it.
    pub(crate) fn order(&self) -> [Address; 2] {
        let bytes = 4 * self.len as u64;
        [self.words.at + bytes, self.words.at + 2 * bytes]
    }
}

/// Rows sorted by id, and where each id's begin.
fn grouped(ids: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut keys: Vec<u64> = ids.iter().zip(0u64..).map(|(id, row)| u64::from(*id) << 32 | row).collect();
    keys.sort_unstable();
    let mut starts = vec![0];
    starts.extend((1..keys.len()).filter(|i| keys[*i] >> 32 != keys[i - 1] >> 32).map(|i| i as u32));
    if !keys.is_empty() {
        starts.push(keys.len() as u32);
    }
    (keys.into_iter().map(|key| key as u32).collect(), starts)
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn rows_of_a_token_stand_together_in_their_order() {
        assert_eq!(grouped(&[7, 2, 7, 0, 2, 7]), (vec![3, 1, 4, 0, 2, 5], vec![0, 1, 3, 6]));
        assert_eq!(grouped(&[5]), (vec![0], vec![0, 1]));
        assert_eq!(grouped(&[]), (vec![], vec![0]));
    }
}
