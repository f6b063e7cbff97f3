//! Random numbers for new weights, as PyTorch and llm.c draw them.

/// Words of the generator's state, and the distance of its recurrence.
const N: usize = 624;
const M: usize = 397;

/// The 32-bit Mersenne Twister (Matsumoto and Nishimura 1998), as in PyTorch's CPU generator.
pub struct Mersenne {
    state: [u32; N],
    next: usize,
}

impl Mersenne {
    /// Seeds the state.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Mersenne { state, next: N }
    }

    /// The next word.
    pub fn word(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (mixed >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A float in 0 .. 1 from the low 24 bits of a word.
    fn float(&mut self) -> f32 {
        (self.word() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// A double in 0 .. 1 from the low 53 bits of two words, the high half first.
    fn double(&mut self) -> f64 {
        let both = (u64::from(self.word()) << 32) | u64::from(self.word());
        (both & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    /// Normal numbers, by Box and Muller in PyTorch's order (blocks of 16 slots; pairs of doubles below 16).
    pub fn normal(&mut self, out: &mut [f32], std: f32) {
        if out.len() < 16 {
            for pair in out.chunks_mut(2) {
                let (u1, u2) = (self.double(), self.double());
                let radius = (-2.0 * (1.0 - u2).ln()).sqrt();
                let angle = 2.0 * std::f64::consts::PI * u1;
                pair[0] = (radius * angle.cos()) as f32 * std;
                if let Some(second) = pair.get_mut(1) {
                    *second = (radius * angle.sin()) as f32 * std;
                }
            }
            return;
        }
        for x in out.iter_mut() {
            *x = self.float();
        }
        for block in out.chunks_exact_mut(16) {
            box_muller(block, std);
        }
        if !out.len().is_multiple_of(16) {
            let start = out.len() - 16;
            for x in &mut out[start..] {
                *x = self.float();
            }
            box_muller(&mut out[start..], std);
        }
    }
}

fn box_muller(block: &mut [f32], std: f32) {
    for i in 0..8 {
        let (u1, u2) = (1.0 - block[i], block[i + 8]);
        let radius = (-2.0 * u1.ln()).sqrt();
        let angle = 2.0 * std::f32::consts::PI * u2;
        block[i] = radius * angle.cos() * std;
        block[i + 8] = radius * angle.sin() * std;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that PyTorch gives after `torch.manual_seed(137)`.
    #[test]
    fn draws_equal_pytorchs() {
        let mut random = Mersenne::new(137);
        let words: Vec<u32> = (0..5).map(|_| random.word()).collect();
        assert_eq!(words, [4053805790, 2173880614, 380293709, 1237255315, 2986595568]);
        let close = |got: &[f32], expected: &[f32]| {
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?}");
        };
        let mut eight = [0.0; 8];
        random.normal(&mut eight, 1.0);
        close(&eight, &[0.7947664, 1.4369317, -0.2292192, 0.4755633, -0.6334411, -0.5791954, -0.0925705, -0.8659197]);
        assert_eq!(random.word(), 2186503452);
        let mut sixteen = [0.0; 16];
        random.normal(&mut sixteen, 1.0);
        close(&sixteen[..4], &[-1.2813879, -2.6463957, -0.065695, 0.218083]);
        close(&sixteen[12..], &[-1.1186705, -0.1830533, -2.315316, 0.3961988]);
        assert_eq!(random.word(), 2756748748);
    }
}
