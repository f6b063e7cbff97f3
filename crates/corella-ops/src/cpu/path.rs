//! Which instructions the kernels use, chosen at run time.

#[cfg(target_arch = "x86_64")]
use super::dot::amx;
use super::kernel::Kernel;
use crate::OpsError;

/// Environment variable that forces a path, for tests and for finding faults.
pub const PATH_VARIABLE: &str = "CORELLA_CPU_PATH";

/// A set of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Plain Rust, any processor.
    Portable,
    /// 256-bit vectors with fused multiply-add and half precision (x86-64-v3).
    Avx2,
    /// 512-bit vectors (x86-64-v4).
    Avx512,
    /// The same, with dot products of bfloat16 pairs.
    Avx512Bf16,
    /// The same, with products of bfloat16 tiles (AMX).
    Amx,
    /// 128-bit vectors of AArch64.
    Neon,
}

/// The vectors that loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// What every processor of the target has.
    Base,
    /// 256 bits (AVX2, FMA).
    Avx2,
    /// 512 bits (AVX-512 F, BW, DQ, VL).
    Avx512,
    /// 128 bits of AArch64, which every processor of that kind has.
    Neon,
}

impl Path {
    /// Every path that this processor can run, the fastest last.
    pub fn available() -> Vec<Path> {
        let mut paths = vec![Path::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            paths.push(Path::Avx2);
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                paths.push(Path::Avx512);
                if is_x86_feature_detected!("avx512bf16") {
                    paths.push(Path::Avx512Bf16);
                    if amx::permitted() {
                        paths.push(Path::Amx);
                    }
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        paths.push(Path::Neon);
        paths
    }

    /// The forced path if [`PATH_VARIABLE`] is set, else the fastest.
    pub fn detect() -> Result<Path, OpsError> {
        match std::env::var(PATH_VARIABLE) {
            Ok(asked) => Path::found(&asked),
            Err(_) => Ok(Path::available().last().copied().unwrap_or(Path::Portable)),
        }
    }

    /// The path of this name, if the processor can run it.
    pub fn found(name: &str) -> Result<Path, OpsError> {
        let available = Path::available();
        available.iter().copied().find(|path| path.name() == name).ok_or_else(|| OpsError::UnknownPath {
            asked: name.to_owned(),
            available: available.iter().map(|path| path.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Name as printed and as accepted by [`PATH_VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Path::Portable => "portable",
            Path::Avx2 => "avx2",
            Path::Avx512 => "avx512",
            Path::Avx512Bf16 => "avx512bf16",
            Path::Amx => "amx",
            Path::Neon => "neon",
        }
    }

    /// The vectors of the path's loops and f32 products.
    pub fn vectors(self) -> Vectors {
        match self {
            Path::Portable => Vectors::Base,
            Path::Avx2 => Vectors::Avx2,
            Path::Avx512 | Path::Avx512Bf16 | Path::Amx => Vectors::Avx512,
            Path::Neon => Vectors::Neon,
        }
    }

    /// Whether the path includes AVX2.
    #[cfg(target_arch = "x86_64")]
    pub fn has_avx2(self) -> bool {
        self.vectors() != Vectors::Base
    }

    /// Whether it has instructions for products in bfloat16.
    pub fn has_dot(self) -> bool {
        matches!(self, Path::Avx512Bf16 | Path::Amx)
    }

    /// Columns of a packed panel of f32: NR of the path's micro-kernel.
    pub fn panel(self) -> usize {
        match self.vectors() {
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => super::kernel::Avx2::NR,
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => super::kernel::Avx512::NR,
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon => super::kernel::Neon::NR,
            _ => super::kernel::Portable::NR,
        }
    }
}
