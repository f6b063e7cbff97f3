//! A card on paper: it holds nothing and runs nothing, and counts what a backend takes of a card's memory. A model that is built and
//! stepped on it takes what it will take on a card of any size, so that a plan needs no formulas of its own.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::driver::{Address, Driver, Launch, Product};
use crate::error::CudaError;
use crate::matrix_library::WORKSPACE;

/// What the driver, its context and cuBLASLt take beside what is asked for: code of kernels, loaded at first use, and the
/// library's workspace.
pub const BESIDE: u64 = (256 << 20) + WORKSPACE as u64;

/// Large pieces of a card's memory are whole pages of this size; small ones share pages.
const PAGE: u64 = 2 << 20;
/// From this size on a piece has pages of its own.
const LARGE: u64 = 1 << 20;
/// What small pieces are a multiple of.
const SMALL: u64 = 512;

/// A card on paper; copies count together.
#[derive(Clone, Debug, Default)]
pub struct Paper {
    counts: Arc<Counts>,
    multiplies_by_blocks: bool,
}

#[derive(Debug, Default)]
struct Counts {
    used: AtomicU64,
    most: AtomicU64,
    next: AtomicU64,
}

/// What the driver takes for a piece of memory.
fn taken(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    bytes.next_multiple_of(if bytes >= LARGE { PAGE } else { SMALL })
}

impl Paper {
    /// One on which the kernels of `driver` would run.
    pub(crate) fn like(driver: &dyn Driver) -> Paper {
        Paper { multiplies_by_blocks: driver.multiplies_by_blocks(), ..Paper::default() }
    }

    /// The most bytes that were taken at once, without [`BESIDE`].
    pub fn most(&self) -> u64 {
        self.counts.most.load(Ordering::Relaxed)
    }
}

impl Driver for Paper {
    fn name(&self) -> &str {
        "paper"
    }

    fn multiplies_by_blocks(&self) -> bool {
        self.multiplies_by_blocks
    }

    fn total_memory(&self) -> u64 {
        0
    }

    fn allocate(&self, bytes: usize) -> Result<Address, CudaError> {
        let bytes = taken(bytes);
        let used = self.counts.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.counts.most.fetch_max(used, Ordering::Relaxed);
        // No address is 0, which is none, and all are at multiples of 512.
        Ok(PAGE + self.counts.next.fetch_add(bytes, Ordering::Relaxed))
    }

    fn release(&self, _at: Address, bytes: usize) {
        self.counts.used.fetch_sub(taken(bytes), Ordering::Relaxed);
    }

    fn upload(&self, _to: Address, _bytes: &[u8]) -> Result<(), CudaError> {
        Ok(())
    }

    fn download(&self, _from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        bytes.fill(0);
        Ok(())
    }

    fn copy(&self, _to: Address, _from: Address, _bytes: usize) -> Result<(), CudaError> {
        Ok(())
    }

    fn clear(&self, _at: Address, _bytes: usize) -> Result<(), CudaError> {
        Ok(())
    }

    fn wait(&self) -> Result<(), CudaError> {
        Ok(())
    }

    unsafe fn launch(&self, _entry: &str, _shape: Launch, _arguments: &[*const c_void]) -> Result<(), CudaError> {
        Ok(())
    }

    unsafe fn library_product(&self, _product: &Product) -> Result<bool, CudaError> {
        Ok(true)
    }

    fn begin_recording(&self) -> Result<bool, CudaError> {
        Ok(false)
    }

    fn end_recording(&self) -> Result<Option<u64>, CudaError> {
        Ok(None)
    }

    unsafe fn replay(&self, _recording: u64) -> Result<(), CudaError> {
        Ok(())
    }

    fn forget(&self, _recording: u64) {}
}

#[cfg(test)]
mod tests {
    use super::{Driver, Paper};

    #[test]
    fn the_most_at_once_counts_in_whole_pages() {
        let paper = Paper::default();
        let small = paper.allocate(1).expect("paper");
        let large = paper.allocate((3 << 20) + 1).expect("paper");
        assert_eq!(paper.most(), 512 + (4 << 20));
        paper.release(large, (3 << 20) + 1);
        paper.release(small, 1);
        paper.allocate(1 << 20).expect("paper");
        assert_eq!(paper.most(), 512 + (4 << 20));
    }
}
