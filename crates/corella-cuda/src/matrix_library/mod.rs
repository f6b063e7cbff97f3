//! cuBLASLt through its raw interface: the plan of each product (descriptors and algorithm) is made once and kept.

mod attempts;
mod choice;
mod descriptors;
mod key;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use corella_ops::{Choices, Dtype};
use cudarc::cublaslt::sys::{self, cublasLtMatmulAlgo_t};
use cudarc::driver::sys::{self as driver, CUstream};

use self::attempts::Attempts;
use self::choice::{Algorithm, Chooser};
use self::descriptors::{Described, Handle, Preference, check};
use self::key::Key;
use crate::card;
use crate::driver::{Address, Finish, Product};
use crate::error::CudaError;
use crate::times::{self, Times};

/// Bytes that algorithms may use beside their operands: what NVIDIA recommends for Hopper.
pub(crate) const WORKSPACE: usize = 32 << 20;
/// Rows in memory must begin at multiples of this many numbers, else tensor cores cannot read them.
const ALIGNMENT: usize = 8;
/// Bytes at whose multiples matrices must begin: what the library takes for granted when it chooses an algorithm, unless told
/// otherwise (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES and the three beside it).
pub(crate) const PLACE: Address = 256;
/// The same for a bias: a vector load.
const BIAS_PLACE: Address = 16;

/// A matrix as the library counts: element (i, j) stands at i + j·stride.
#[derive(Clone, Copy, Debug)]
struct Columns {
    rows: usize,
    columns: usize,
    stride: usize,
}

/// A product as the library takes it. It counts columns first, so that our row-major result (m, n) is (n, m) to it, and our b
/// its first operand: outᵀ = b·aᵀ.
#[derive(Clone, Copy, Debug)]
struct Call {
    b: Columns,
    b_turned: bool,
    a: Columns,
    a_turned: bool,
    out: Columns,
}

impl Call {
    fn of(p: &Product) -> Call {
        let [a_stride, b_stride, out_stride] = p.strides();
        let stored = |transposed: bool, outer: usize, stride: usize| {
            let (rows, columns) = if transposed { (outer, p.k) } else { (p.k, outer) };
            Columns { rows, columns, stride }
        };
        Call {
            // (k, n) where k is the fast index in memory; the library wants (n, k).
            b: stored(p.b.transposed, p.n, b_stride),
            b_turned: !p.b.transposed,
            // (k, m) where k is the fast index, which is what it wants.
            a: stored(p.a.transposed, p.m, a_stride),
            a_turned: p.a.transposed,
            out: Columns { rows: p.n, columns: p.m, stride: out_stride },
        }
    }
}

/// How a product is computed.
struct Plan {
    described: Described,
    algorithm: Algorithm,
}

/// Memory that algorithms use, on the card.
struct Workspace(Address);

impl Workspace {
    /// The card's context must be current.
    fn new() -> Result<Workspace, CudaError> {
        let mut at = 0;
        // SAFETY: the place is valid.
        card::check("cuMemAlloc", unsafe { driver::cuMemAlloc_v2(&mut at, WORKSPACE) })?;
        Ok(Workspace(at))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // SAFETY: taken by `new`, given back once, by the card's last user, which has waited for it. Where that fails, the card
        // is lost.
        let _ = unsafe { driver::cuMemFree_v2(self.0) };
    }
}

/// The library on one stream.
pub(crate) struct MatrixLibrary {
    // First, so that they end while the library is there. `None` where it has no algorithm.
    plans: Mutex<HashMap<Key, Option<Plan>>>,
    handle: Handle,
    stream: CUstream,
    workspace: Workspace,
    chooser: Chooser,
}

impl MatrixLibrary {
    /// For a card, by name and architecture, whose context must be current.
    pub fn new(stream: CUstream, card: &str) -> Result<MatrixLibrary, CudaError> {
        let (handle, workspace) = (Handle::new()?, Workspace::new()?);
        Ok(MatrixLibrary {
            plans: Mutex::default(),
            chooser: Chooser::new(card, handle.version()),
            handle,
            stream,
            workspace,
        })
    }

    /// Computes a product, and takes its time if that is asked for; false where the library does not take it.
    ///
    /// # Safety
    /// As [`crate::Driver::library_product`].
    pub unsafe fn product(&self, p: &Product, times: Option<&Times>) -> Result<bool, CudaError> {
        if !suits(p) {
            return Ok(false);
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Key::of(p);
        key.measured = key.measured && (plans.contains_key(&key) || !Attempts::would_be_recorded(self.stream));
        let plan = match plans.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            // SAFETY: the caller's promise.
            Entry::Vacant(entry) => entry.insert(unsafe { self.plan(p, &key) }?),
        };
        let Some(plan) = plan else { return Ok(false) };
        plan.described.operation.point(p)?;
        // SAFETY: the caller's promise; the plan was made for this product.
        let start = || unsafe { self.start(p, &plan.described, &plan.algorithm) };
        match times {
            Some(times) => times.around(|| times::product(p), start)?,
            None => start()?,
        }
        Ok(true)
    }

    /// See [`corella_ops::OpsTrain::choices`].
    pub fn choices(&self) -> Choices {
        self.chooser.choices()
    }

    /// See [`corella_ops::OpsTrain::take_choices`].
    pub fn take_choices(&self, choices: &Choices) {
        self.chooser.take(choices);
    }

    /// Descriptors, and an algorithm: the library's first choice, which depends on the shape and the card only, or the one that
    /// was measured and kept (choice.rs). So a plan gives the same bits from run to run.
    ///
    /// # Safety
    /// As [`crate::Driver::library_product`]: measuring computes the product, unless it adds to its result.
    unsafe fn plan(&self, p: &Product, key: &Key) -> Result<Option<Plan>, CudaError> {
        let described = Described::new(p)?;
        let preference = Preference::new(WORKSPACE)?;
        // SAFETY: the caller's promise; the descriptors are those of the product.
        let attempts = unsafe { Attempts::new(self, p, &described, &preference) };
        let algorithm = self.chooser.algorithm(key, &attempts);
        Ok(algorithm.map(|algorithm| Plan { described, algorithm }))
    }

    /// Queues a product.
    ///
    /// # Safety
    /// As [`crate::Driver::library_product`]; the descriptors are those of the product, with its addresses, and the library
    /// named the algorithm for them, or accepted it.
    unsafe fn start(&self, p: &Product, described: &Described, algorithm: &Algorithm) -> Result<(), CudaError> {
        let (one, zero) = (1.0f32, 0.0f32);
        let beta = if p.finish == Finish::Add { &one } else { &zero };
        let pointer = |at: Address| at as *mut c_void;
        let [b, a, out] = described.layouts();
        let algorithm = cublasLtMatmulAlgo_t { data: *algorithm };
        // SAFETY: descriptors and algorithm belong to this product, the addresses hold arrays of its shape (the caller's promise),
        // and the workspace has the size that the algorithm was chosen for. Its users follow each other on one stream.
        let status = unsafe {
            sys::cublasLtMatmul(
                self.handle.0,
                described.operation.0,
                ptr::from_ref(&one).cast(),
                pointer(p.b.at),
                b,
                pointer(p.a.at),
                a,
                ptr::from_ref(beta).cast(),
                pointer(p.out),
                out,
                pointer(p.out),
                out,
                &algorithm,
                pointer(self.workspace.0),
                WORKSPACE,
                self.stream.cast(),
            )
        };
        check("cublasLtMatmul", status)
    }
}

/// Whether the library has fast algorithms for a product: aligned rows, and what follows the sums in one format.
fn suits(p: &Product) -> bool {
    let bf16 = |dtype| dtype == Dtype::Bf16;
    let aligned = p.strides().iter().all(|stride| stride % ALIGNMENT == 0);
    let bias = match p.finish {
        Finish::Plain | Finish::Add => true,
        Finish::Bias(bias) => bias.get(p.out_dtype).is_some_and(|at| at % BIAS_PLACE == 0),
    };
    let aligned = aligned && [p.a.at, p.b.at, p.out].iter().all(|at| at % PLACE == 0);
    // Operands in f32 give results in f32.
    aligned && bias && p.k > 0 && (bf16(p.dtype) || !bf16(p.out_dtype))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Bias, Operand};

    /// Of bf16 throughout, not measured.
    pub fn product(m: usize, n: usize, k: usize, a: bool, b: bool) -> Product {
        let operand = |transposed| Operand { at: 256, transposed };
        let dtype = Dtype::Bf16;
        let (a, b, finish) = (operand(a), operand(b), Finish::Plain);
        Product { m, n, k, dtype, out_dtype: dtype, out: 512, out_stride: n, a, b, finish, measured: false }
    }

    /// What the library's manual says of its operands, computed on the host, is the product that was asked for.
    #[test]
    fn layouts_and_turns_give_the_product_that_is_meant() {
        let (m, n, k) = (3, 4, 5);
        let a: Vec<f32> = (0..m * k).map(|i| (i * i % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..n * k).map(|i| (i * 5 % 11) as f32 - 5.0).collect();
        for (a_transposed, b_transposed) in [(false, false), (false, true), (true, true), (true, false)] {
            let p = product(m, n, k, a_transposed, b_transposed);
            let call = Call::of(&p);
            let at = |x: &[f32], c: Columns, turned: bool, i: usize, j: usize| {
                let (i, j) = if turned { (j, i) } else { (i, j) };
                assert!(i < c.rows && j < c.columns && c.stride >= c.rows, "{call:?}");
                x[i + j * c.stride]
            };
            let mut out = vec![f32::NAN; m * n];
            for i in 0..call.out.rows {
                for j in 0..call.out.columns {
                    out[i + j * call.out.stride] =
                        (0..k).map(|x| at(&b, call.b, call.b_turned, i, x) * at(&a, call.a, call.a_turned, x, j)).sum();
                }
            }
            for i in 0..m {
                for j in 0..n {
                    let a = |x: usize| if a_transposed { a[x * m + i] } else { a[i * k + x] };
                    let b = |x: usize| if b_transposed { b[x * n + j] } else { b[j * k + x] };
                    let expected: f32 = (0..k).map(|x| a(x) * b(x)).sum();
                    assert_eq!(out[i * n + j], expected, "a {a_transposed}, b {b_transposed}: ({i}, {j})");
                }
            }
        }
    }

    #[test]
    fn the_library_gets_what_tensor_cores_can_read() {
        // Forward, gradient of the input, gradient of the weights: rows of 768 and 3,072, any number of rows of x.
        assert!(suits(&product(17, 3072, 768, false, false)));
        assert!(suits(&product(17, 768, 3072, false, true)));
        assert!(suits(&product(3072, 768, 17, true, true)));
        // Logits of an unpadded vocabulary, an odd width.
        assert!(!suits(&product(17, 50_257, 768, false, false)));
        assert!(!suits(&product(17, 768, 35, false, false)));
        // Matrices that begin in the middle of others.
        assert!(!suits(&Product { out: 512 + 128, ..product(17, 3072, 768, false, false) }));
        let middle = Finish::Bias(Bias { f32: 256, bf16: Some(512 + 2) });
        assert!(!suits(&Product { finish: middle, ..product(17, 3072, 768, false, false) }));
        let odd = Product { finish: Finish::Bias(Bias { f32: 16, bf16: None }), ..product(8, 8, 8, false, false) };
        assert!(!suits(&odd), "a bias that is not kept in the result's format");
        let f32_sums = Product { out_dtype: Dtype::F32, ..odd };
        assert!(suits(&f32_sums));
    }
}
