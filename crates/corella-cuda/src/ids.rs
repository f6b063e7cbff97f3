//! Token ids on the card, with the order in which their gradients are added up.

use std::sync::Arc;

use corella_ops::shapes::Length;

use crate::array::word_bytes;
use crate::driver::{Driver, Memory};
use crate::error::CudaError;

/// Token ids, and the same rows sorted by id, so that one thread adds up all rows of a token, in their order.
#[derive(Debug)]
pub struct Ids {
    pub(crate) ids: Memory,
    /// Rows sorted by id, then by number.
    pub(crate) order: Memory,
    /// Where the rows of each different id begin in `order`, and where the last end.
    pub(crate) starts: Memory,
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
        let mut ids = Ids {
            ids: Memory::zeros(driver, 4 * len)?,
            order: Memory::zeros(driver, 4 * len)?,
            starts: Memory::zeros(driver, 4 * (len + 1))?,
            groups: 0,
            len: 0,
        };
        ids.write(&**driver, &vec![0; len])?;
        Ok(ids)
    }

    #[track_caller]
    pub(crate) fn write(&mut self, driver: &dyn Driver, values: &[u32]) -> Result<(), CudaError> {
        assert!(4 * values.len() <= self.ids.bytes, "more ids than there is room for");
        let (order, starts) = grouped(values);
        for (memory, numbers) in [(&self.ids, values), (&self.order, &order), (&self.starts, &starts)] {
            driver.upload(memory.at, &word_bytes(numbers))?;
        }
        self.groups = starts.len() - 1;
        self.len = values.len();
        Ok(())
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
