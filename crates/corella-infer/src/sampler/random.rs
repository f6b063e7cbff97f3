//! Random numbers without a state: each follows from what it is for.

/// 64 random bits that follow from their arguments (SplitMix64's finaliser over their mixture; Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", 2014).
pub fn bits(seed: u64, sample: u64, position: u64) -> u64 {
    let mut z = seed;
    for part in [sample, position, 0] {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(part.wrapping_mul(0xd6e8_feb8_6659_fd93));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    z
}

/// A number in 0 .. `below` (at least 1) from 64 random bits.
pub fn scale(bits: u64, below: u64) -> u64 {
    ((u128::from(bits) * u128::from(below)) >> 64) as u64
}
