//! The kernels: their text, their entry points, and the cards that each is compiled for.

/// A file of `kernels/`, compiled as one unit.
#[derive(Debug)]
pub struct Source {
    /// Name of the file.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Its `extern "C" __global__` functions.
    pub entries: &'static [&'static str],
    /// Cards that it can be compiled for.
    pub targets: Targets,
}

/// Which cards a file can be compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every card since Ampere: `mma.sync` and what is older.
    Base,
    /// Hopper only: `wgmma`, TMA.
    Hopper,
}

impl Targets {
    /// Compute capabilities to which `cargo xtask kernels` compiles, as in `sm_80`.
    pub fn architectures(self) -> &'static [&'static str] {
        match self {
            Targets::Base => &["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"],
            Targets::Hopper => &["sm_90a"],
        }
    }
}

/// What files include: names and texts.
pub const HEADERS: [(&str, &str); 2] =
    [("common.cuh", include_str!("../kernels/common.cuh")), ("tensor.cuh", include_str!("../kernels/tensor.cuh"))];

macro_rules! sources {
    ($($name:literal $targets:ident [$($entry:literal),* $(,)?])*) => {
        /// All files.
        pub const SOURCES: &[Source] = &[$(Source {
            name: $name,
            text: include_str!(concat!("../kernels/", $name)),
            entries: &[$($entry),*],
            targets: Targets::$targets,
        }),*];
    };
}

sources! {
    "elementwise.cu" Base ["cast", "add"]
    "attention.cu" Base [
        "attention_64", "attention_128", "attention_grad_queries_64", "attention_grad_queries_128", "attention_grad_keys_64",
        "attention_grad_keys_128",
    ]
    "attention_plain.cu" Base [
        "attention_plain", "attention_delta", "attention_plain_grad_queries", "attention_plain_grad_keys",
    ]
}
