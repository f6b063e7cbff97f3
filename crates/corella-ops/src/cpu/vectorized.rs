//! Loops compiled once for every kernel path.

/// Defines a function whose body is compiled for each path, and which takes the path to run as its first argument. Its type
/// parameters, if any, are formats ([`Number`](super::bf16::Number)).
///
/// The body is inlined into one function per path that has the path's features. (A closure handed to such a function is not
/// always inlined, and then runs without them: the norms and GELU ran three times slower so.)
macro_rules! vectorized {
    ($(#[$doc:meta])* $vis:vis fn $name:ident
        $(<$($format:ident: Number),*>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name$(<$($format: $crate::cpu::bf16::Number),*>)?(path: $crate::cpu::path::Path, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body$(<$($format: $crate::cpu::bf16::Number),*>)?($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2$(<$($format: $crate::cpu::bf16::Number),*>)?($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512$(<$($format: $crate::cpu::bf16::Number),*>)?($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }

            match path.vectors() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the path exists only after its features were detected (`Path::available`).
                $crate::cpu::path::Vectors::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::path::Vectors::Avx512 => unsafe { avx512($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(super) use vectorized;
