//! What the backend needs of a card: memory, copies, launches. [`crate::card::Card`] is one; the tests run the same backend on
//! an emulated one.

use std::ffi::c_void;
use std::sync::Arc;

use corella_ops::{Choices, Dtype};

use crate::error::CudaError;

/// A place in the card's memory; 0 is none.
pub type Address = u64;

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, a multiple of 32.
    pub block: u32,
    /// Bytes of shared memory beyond what the kernel declares.
    pub shared: u32,
}

/// A card. All calls are in order: each sees what those before it did.
pub trait Driver: Send + Sync + 'static {
    /// Name and architecture, e.g. `NVIDIA H100 sm_90`.
    fn name(&self) -> &str;
    /// Whether the four warps of a block can multiply together (`wgmma`, on Hopper).
    fn multiplies_by_blocks(&self) -> bool {
        false
    }
    /// Bytes of its memory, or 0 where nothing is known of it.
    fn total_memory(&self) -> u64;
    /// Memory for `bytes` (at least one), at a multiple of 16 bytes; its content is not defined.
    fn allocate(&self, bytes: usize) -> Result<Address, CudaError>;
    /// Gives memory back after everything that was asked for before.
    fn release(&self, at: Address, bytes: usize);
    /// Copies to the card; the bytes are taken over when it returns, and may arrive later.
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), CudaError>;
    /// Copies from the card, after everything that was asked for before.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError>;
    /// Copies within the card.
    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError>;
    /// Writes zeros.
    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError>;
    /// Returns when everything that was asked for before has been done.
    fn wait(&self) -> Result<(), CudaError>;
    /// Starts a kernel.
    ///
    /// # Safety
    /// `arguments` point to values of exactly the kernel's parameters, which live until the call returns, and the kernel
    /// touches only memory that was allocated here and not released.
    unsafe fn launch(&self, entry: &str, shape: Launch, arguments: &[*const c_void]) -> Result<(), CudaError>;
    /// Computes a product with a library of the maker of the card; false where there is none that takes it.
    ///
    /// # Safety
    /// The addresses of the product hold arrays of the sizes that it states.
    unsafe fn library_product(&self, product: &Product) -> Result<bool, CudaError>;
    /// See [`corella_ops::OpsTrain::choices`]; none where the driver measures nothing.
    fn choices(&self) -> Choices {
        Choices::new()
    }
    /// See [`corella_ops::OpsTrain::take_choices`].
    fn take_choices(&self, _choices: &Choices) {}
    /// From now on kernels, products and clearing are kept instead of run, until [`Driver::end_recording`]; nothing else can be
    /// asked for meanwhile, from any thread. False where the driver keeps nothing.
    fn begin_recording(&self) -> Result<bool, CudaError>;
    /// Ends the recording and gives it a number, or none where some of it could not be kept; nothing of it has run. The next one may be
    /// kept even so: a card then starts kernels in a plainer way.
    fn end_recording(&self) -> Result<Option<u64>, CudaError>;
    /// Starts what was recorded, with the same arguments.
    ///
    /// # Safety
    /// The memory that the recorded launches touch has not been released.
    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError>;
    /// Gives a recording back after everything that was asked for before.
    fn forget(&self, recording: u64);
}

/// A matrix that a product reads: element (i, k), or its transpose in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Where it begins.
    pub at: Address,
    /// Whether k is the slow index: rows of it are as long as there are i.
    pub transposed: bool,
}

/// A bias (n) in the formats in which it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bias {
    /// In f32.
    pub f32: Address,
    /// In bf16, if it is.
    pub bf16: Option<Address>,
}

impl Bias {
    /// In a format.
    pub fn get(self, dtype: Dtype) -> Option<Address> {
        match dtype {
            Dtype::F32 => Some(self.f32),
            Dtype::Bf16 => self.bf16,
        }
    }
}

/// What else a product does to its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Nothing.
    Plain,
    /// Adds them to what stands in the result, f32.
    Add,
    /// Adds a bias.
    Bias(Bias),
}

/// `out(i,j) = finish(Σ_k a(i,k)·b(j,k))`, row-major, with sums in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Format of both operands.
    pub dtype: Dtype,
    /// Format of the result.
    pub out_dtype: Dtype,
    /// The result.
    pub out: Address,
    /// Numbers from one row of the result to the next: more than `n` where it is part of wider rows.
    pub out_stride: usize,
    /// (m, k).
    pub a: Operand,
    /// (n, k).
    pub b: Operand,
    /// What follows the sums.
    pub finish: Finish,
    /// Whether the library's algorithm is chosen by measuring several the first time, instead of by its own estimate: for
    /// products of few shapes that come often. It is no part of what is computed (the order of the sums may differ); only cards
    /// heed it.
    pub measured: bool,
}

impl Product {
    /// Numbers from one row in memory of a, b and the result to the next.
    pub fn strides(&self) -> [usize; 3] {
        let rows = |operand: Operand, outer| if operand.transposed { outer } else { self.k };
        [rows(self.a, self.m), rows(self.b, self.n), self.out_stride]
    }
}

/// Memory of a card, given back when it is dropped.
pub struct Memory {
    driver: Arc<dyn Driver>,
    /// Where it begins.
    pub at: Address,
    /// How long it is.
    pub bytes: usize,
}

impl Memory {
    /// Memory that holds zeros.
    pub fn zeros(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Memory, CudaError> {
        let at = driver.allocate(bytes.max(1))?;
        let memory = Memory { driver: driver.clone(), at, bytes };
        driver.clear(at, bytes)?;
        Ok(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.driver.release(self.at, self.bytes.max(1));
    }
}

/// A recording, given back when it is dropped.
pub(crate) struct Recording {
    driver: Arc<dyn Driver>,
    number: u64,
}

impl Recording {
    /// Records what `work` starts; none where the driver cannot keep it, and then nothing was started.
    pub fn new(driver: &Arc<dyn Driver>, work: &mut dyn FnMut()) -> Result<Option<Recording>, CudaError> {
        if !driver.begin_recording()? {
            return Ok(None);
        }
        work();
        Ok(driver.end_recording()?.map(|number| Recording { driver: driver.clone(), number }))
    }

    /// Starts it.
    ///
    /// # Safety
    /// As [`Driver::replay`].
    pub unsafe fn replay(&self) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.driver.replay(self.number) }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.driver.forget(self.number);
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "recording {:#x}", self.number)
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {:#x}", self.bytes, self.at)
    }
}
