//! What a choice needs to know of a product, asked of the library and tried on the card.

use cudarc::cublaslt::sys::{self, cublasLtMatmulAlgo_t, cublasLtMatmulHeuristicResult_t, cublasStatus_t};
use cudarc::driver::sys::{self as driver, CUstream, CUstreamCaptureStatus};

use super::choice::{Algorithm, RUNS, Trials};
use super::descriptors::{Described, Preference};
use super::{MatrixLibrary, WORKSPACE};
use crate::card;
use crate::driver::Product;
use crate::event::{self, Event};
use crate::library::DRIVER;

/// What telling whether a stream is recorded needs of the driver: since CUDA 10.
const NEEDED: [&str; 1] = ["cuStreamIsCapturing"];

const NO_RESULT: cublasLtMatmulHeuristicResult_t = cublasLtMatmulHeuristicResult_t {
    algo: cublasLtMatmulAlgo_t { data: [0; 8] },
    workspaceSize: 0,
    state: cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED,
    wavesCount: 0.0,
    reserved: [0; 4],
};

/// Attempts at one product.
pub struct Attempts<'a> {
    library: &'a MatrixLibrary,
    product: &'a Product,
    described: &'a Described,
    preference: &'a Preference,
}

impl<'a> Attempts<'a> {
    /// # Safety
    /// The addresses of the product hold arrays of the sizes that it states, as long as this lives; the descriptors are its own.
    pub unsafe fn new(
        library: &'a MatrixLibrary,
        product: &'a Product,
        described: &'a Described,
        preference: &'a Preference,
    ) -> Attempts<'a> {
        Attempts { library, product, described, preference }
    }

    /// Whether what the stream is given is recorded instead of being run.
    pub fn would_be_recorded(stream: CUstream) -> bool {
        // A driver that cannot tell measures nothing either.
        if !DRIVER.has(&NEEDED) {
            return false;
        }
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: stream and place are valid.
        let asked = card::check("cuStreamIsCapturing", unsafe { driver::cuStreamIsCapturing(stream, &mut status) });
        asked.is_err() || status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE
    }

    /// Queues the product once; whether the library took it.
    fn run(&self, algorithm: &Algorithm) -> bool {
        // SAFETY: the promise of `new`; `Trials::time` is asked only for candidates.
        unsafe { self.library.start(self.product, self.described, algorithm) }.is_ok()
    }
}

impl Trials for Attempts<'_> {
    fn candidates(&self, count: usize) -> Vec<Algorithm> {
        let (mut found, mut there) = (vec![NO_RESULT; count], 0);
        let [b, a, out] = self.described.layouts();
        // SAFETY: all descriptors are valid; there is room for so many results.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.library.handle.0,
                self.described.operation.0,
                b,
                a,
                out,
                out,
                self.preference.0,
                i32::try_from(count).unwrap_or(i32::MAX),
                found.as_mut_ptr(),
                &mut there,
            )
        };
        if status != cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            return Vec::new();
        }
        found.truncate(usize::try_from(there).unwrap_or(0));
        let usable = found.iter().filter(|result| result.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        usable.map(|result| result.algo.data).collect()
    }

    fn accepts(&self, algorithm: &Algorithm) -> bool {
        let (algorithm, mut result) = (cublasLtMatmulAlgo_t { data: *algorithm }, NO_RESULT);
        let [b, a, out] = self.described.layouts();
        // SAFETY: all descriptors are valid, and the places; the library looks at the algorithm and runs nothing.
        let status = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                self.library.handle.0,
                self.described.operation.0,
                b,
                a,
                out,
                out,
                &algorithm,
                &mut result,
            )
        };
        status == cublasStatus_t::CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE
    }

    fn takes_time(&self) -> bool {
        DRIVER.has(&event::NEEDED) && DRIVER.has(&NEEDED)
    }

    fn time(&self, algorithm: &Algorithm) -> Option<[f32; RUNS]> {
        let stream = self.library.stream;
        let events: [Option<Event>; RUNS + 1] = std::array::from_fn(|_| Event::new().ok());
        // The first run loads the kernel, and warms up.
        for event in &events {
            if !self.run(algorithm) {
                return None;
            }
            event.as_ref()?.record(stream).ok()?;
        }
        let mut times = [0.0; RUNS];
        for (time, pair) in times.iter_mut().zip(events.windows(2)) {
            *time = pair[1].as_ref()?.since(pair[0].as_ref()?).ok()?;
        }
        Some(times)
    }
}
