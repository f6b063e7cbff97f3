//! Whose processor this is, where that decides which of two ways is the faster one.

use std::sync::OnceLock;

/// Whether it is one of AMD's; asked once, because a guest's CPUID goes to its host.
pub fn is_amd() -> bool {
    static AMD: OnceLock<bool> = OnceLock::new();
    *AMD.get_or_init(|| name() == *b"AuthenticAMD")
}

/// What CPUID's leaf 0 names.
#[cfg(target_arch = "x86_64")]
fn name() -> [u8; 12] {
    let leaf = std::arch::x86_64::__cpuid(0);
    let mut name = [0; 12];
    name.as_chunks_mut()
        .0
        .iter_mut()
        .zip([leaf.ebx, leaf.edx, leaf.ecx])
        .for_each(|(to, part)| *to = part.to_le_bytes());
    name
}

#[cfg(not(target_arch = "x86_64"))]
fn name() -> [u8; 12] {
    [0; 12]
}
