//! What can fail between the program and the card.

/// Why CUDA cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CudaError {
    /// A library is not installed, or not where the loader or Python's packages keep libraries.
    #[error("{library} was not found; it comes with {package}")]
    Missing {
        /// Beginning of the file's name.
        library: &'static str,
        /// What brings it.
        package: &'static str,
    },
    /// A library is too old or damaged.
    #[error("{library} has no function {symbol}: it is too old or not whole")]
    Symbol {
        /// Beginning of the file's name.
        library: &'static str,
        /// The function.
        symbol: &'static str,
    },
    /// A call of a library failed.
    #[error("{call} failed: {why}")]
    Call {
        /// The function.
        call: &'static str,
        /// The library's name of the error.
        why: String,
    },
    /// A kernel does not compile.
    #[error("{file} does not compile for {architecture}:\n{log}")]
    Compile {
        /// Name of the file.
        file: &'static str,
        /// As in `sm_80`.
        architecture: String,
        /// What the compiler says.
        log: String,
    },
    /// There is no card of this number.
    #[error("there is no card {index}: the driver knows {count}")]
    NoCard {
        /// Asked for.
        index: u32,
        /// Cards that there are.
        count: usize,
    },
    /// The card lacks instructions that the kernels use.
    #[error("{name} has compute capability {}.{}; the kernels need 8.0 (Ampere) or newer", capability.0, capability.1)]
    TooOld {
        /// Its name.
        name: String,
        /// What it has.
        capability: (i32, i32),
    },
    /// The table of kernels does not name what was asked for, or not for this card.
    #[error("no kernel {entry} for this card")]
    NoKernel {
        /// The entry point.
        entry: String,
    },
}

impl CudaError {
    /// Whether the card has no room for what was asked for, and is well otherwise.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, CudaError::Call { why, .. } if why == "CUDA_ERROR_OUT_OF_MEMORY")
    }
}
