//! A card that the tests emulate: the backend's launches go to the emulator instead of a driver.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use corella_cuda::kernels::SOURCES;
use corella_cuda::{Address, CudaError, Driver, Launch, Product};

use crate::emulator::{Kernels, Memory, kernels};

/// Compiled kernels by entry point, and the arrays that were allocated.
pub struct EmulatedCard {
    files: HashMap<&'static str, &'static Kernels>,
    arrays: Mutex<HashMap<Address, Array>>,
    /// Whether blocks and threads run from the last to the first.
    backwards: bool,
}

/// An array that any thread may give back.
struct Array {
    _memory: Memory,
}

// SAFETY: the memory is one mapping of this process, which belongs to no thread; the card's lock keeps its users apart.
unsafe impl Send for Array {}

impl EmulatedCard {
    /// `None`, with a message, where there is no C++ compiler.
    pub fn new(backwards: bool) -> Option<EmulatedCard> {
        let mut files = HashMap::new();
        for source in SOURCES {
            let file = kernels(source.name)?;
            files.extend(source.entries.iter().map(|entry| (*entry, file)));
        }
        Some(EmulatedCard { files, arrays: Mutex::default(), backwards })
    }

    fn any_file(&self) -> &'static Kernels {
        self.files.values().next().expect("kernels")
    }
}

impl Driver for EmulatedCard {
    fn name(&self) -> &str {
        "emulated"
    }

    fn allocate(&self, bytes: usize) -> Result<Address, CudaError> {
        // What was never written is no number.
        let memory = self.any_file().memory(&vec![0xff; bytes]);
        let at = memory.at as Address;
        self.arrays.lock().unwrap_or_else(PoisonError::into_inner).insert(at, Array { _memory: memory });
        Ok(at)
    }

    fn release(&self, at: Address, _bytes: usize) {
        self.arrays.lock().unwrap_or_else(PoisonError::into_inner).remove(&at);
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), CudaError> {
        // SAFETY: the address came from `allocate`; writing behind the array would meet the page that may not be touched.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, entry: &str, shape: Launch, arguments: &[*const c_void]) -> Result<(), CudaError> {
        let file = self.files.get(entry).ok_or_else(|| CudaError::NoKernel { entry: entry.to_owned() })?;
        file.run(entry, (shape.grid, shape.block, shape.shared as usize), arguments, self.backwards)
            .map_err(|why| CudaError::Call { call: "launch", why })
    }

    unsafe fn library_product(&self, _product: &Product) -> Result<bool, CudaError> {
        Ok(false)
    }
}
