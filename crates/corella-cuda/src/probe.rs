//! What a card can do at most, measured on it: the ceilings beside which a bench states its figures. Each is the best of several
//! patterns and rounds; a round is long enough that starting and waiting do not count.

use std::time::Instant;

use corella_ops::{Dtype, OpsError};

use crate::backend::{Cuda, done, no_memory};
use crate::driver::{Address, Finish, Launch, Memory, Operand, Product};

/// Bytes of an array that no cache holds.
const LARGE: usize = 1 << 30;
/// Bytes of arrays that are read, from what caches hold to what they do not.
const READ_SIZES: [usize; 4] = [8 << 20, 32 << 20, 128 << 20, LARGE];
/// Bytes that a round of reading goes over at least.
const ROUND: usize = 4 << 30;
/// Rounds of a pattern; the first warms up.
const ROUNDS: usize = 4;
/// Blocks of 256 threads that read.
const BLOCKS: [u32; 3] = [1056, 2112, 4096];
/// Products (M, N, K) of which one or the other is the fastest on every card.
const PRODUCTS: [[usize; 3]; 4] =
    [[8192, 8192, 8192], [16_384, 8192, 4096], [4096, 16_384, 4096], [4096, 4096, 16_384]];
/// In f32 less is enough: an H100 takes 20 ms.
const PRODUCTS_F32: [[usize; 3]; 2] = [[8192, 8192, 8192], [4096, 4096, 4096]];
/// Bytes that go between host and card in a round.
const HOST_BYTES: usize = 256 << 20;
/// Random numbers that operands are made of, again and again: on zeros products are faster than on any data.
const RANDOM_BYTES: usize = 8 << 20;

/// Rates in 10⁹ a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes of a copy within the card's memory, those read and those written.
    pub copy_gbs: f64,
    /// Bytes read, for arrays of each size, smallest first.
    pub reads_gbs: Vec<(usize, f64)>,
    /// Operations of products in bf16 with sums in f32, by cuBLASLt.
    pub bf16_gflops: f64,
    /// The same in f32.
    pub f32_gflops: f64,
    /// Bytes from the host to the card, through page-locked memory.
    pub upload_gbs: f64,
    /// Bytes from the card to the host.
    pub download_gbs: f64,
}

impl Ceilings {
    /// The rate at which so many bytes can be read again and again: from memory, or from a cache that holds them.
    pub fn read_gbs(&self, bytes: usize) -> f64 {
        // What is larger than a measured size is read no faster than that.
        let measured = self.reads_gbs.iter().rev().find(|(size, _)| *size <= bytes).or(self.reads_gbs.first());
        measured.map_or(self.copy_gbs, |(_, rate)| rate.max(self.copy_gbs))
    }

    /// The best of both, rate by rate.
    pub fn best(self, other: &Ceilings) -> Ceilings {
        let reads = self.reads_gbs.into_iter().zip(&other.reads_gbs);
        Ceilings {
            copy_gbs: self.copy_gbs.max(other.copy_gbs),
            reads_gbs: reads.map(|((size, one), (_, another))| (size, one.max(*another))).collect(),
            bf16_gflops: self.bf16_gflops.max(other.bf16_gflops),
            f32_gflops: self.f32_gflops.max(other.f32_gflops),
            upload_gbs: self.upload_gbs.max(other.upload_gbs),
            download_gbs: self.download_gbs.max(other.download_gbs),
        }
    }
}

/// Measures a card, which takes some seconds and 2 GiB of its memory meanwhile.
pub fn ceilings(ops: &Cuda) -> Result<Ceilings, OpsError> {
    let (from, to) = (memory(ops, LARGE)?, memory(ops, LARGE)?);
    fill(ops, from.at, LARGE);
    let copy = || done(ops.driver().copy(to.at, from.at, LARGE));
    let copy_gbs = rate(ops, 4, 2.0 * LARGE as f64, copy);
    let reads_gbs = READ_SIZES.map(|bytes| {
        let passes = (ROUND / bytes) as u32;
        let count = f64::from(passes) * bytes as f64;
        let read = |blocks| rate(ops, 1, count, || read_all(ops, to.at, from.at, bytes, blocks, passes));
        (bytes, BLOCKS.map(read).into_iter().fold(0.0, f64::max))
    });
    drop(to);
    let best = |dtype, shapes: &[[usize; 3]]| -> Result<f64, OpsError> {
        shapes.iter().try_fold(0.0, |best: f64, shape| Ok(best.max(product(ops, dtype, *shape)?)))
    };
    let mut host = vec![1; HOST_BYTES];
    let upload_gbs = rate(ops, 1, HOST_BYTES as f64, || done(ops.driver().upload(from.at, &host)));
    let download_gbs = rate(ops, 1, HOST_BYTES as f64, || done(ops.driver().download(from.at, &mut host)));
    drop(from);
    Ok(Ceilings {
        copy_gbs,
        reads_gbs: reads_gbs.to_vec(),
        bf16_gflops: best(Dtype::Bf16, &PRODUCTS)?,
        f32_gflops: best(Dtype::F32, &PRODUCTS_F32)?,
        upload_gbs,
        download_gbs,
    })
}

fn memory(ops: &Cuda, bytes: usize) -> Result<Memory, OpsError> {
    Memory::zeros(ops.shared_driver(), bytes).map_err(no_memory(bytes as u64, "measuring the card"))
}

/// Writes numbers between −2 and 2 in either format, none of them tiny.
fn fill(ops: &Cuda, to: Address, bytes: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let pair = || {
        state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        // Random signs and fractions; exponents of 1/2 to 2 in the upper half of each word, which in bf16 is a number too.
        let word = (state >> 32) as u32;
        (word & 0x80ff_80ff | 0x3f00_3f00).to_le_bytes()
    };
    let block: Vec<u8> = std::iter::repeat_with(pair).take(RANDOM_BYTES.min(bytes) / 4).flatten().collect();
    done(ops.driver().upload(to, &block));
    // Twice as much each time.
    let mut filled = block.len();
    while filled < bytes {
        let next = filled.min(bytes - filled);
        done(ops.driver().copy(to + filled as u64, to, next));
        filled += next;
    }
}

/// Reads an array `passes` times over.
fn read_all(ops: &Cuda, out: Address, from: Address, bytes: usize, blocks: u32, passes: u32) {
    let shape = Launch { grid: [blocks, 1, 1], block: 256, shared: 0 };
    ops.run("read_all", shape, &[&out, &from, &(bytes as u64 / 16), &passes]);
}

/// Best rate of a round of `times` calls of `work`, each of which counts `count`.
fn rate(ops: &Cuda, times: usize, count: f64, mut work: impl FnMut()) -> f64 {
    let round = |_| {
        done(ops.driver().wait());
        let start = Instant::now();
        (0..times).for_each(|_| work());
        done(ops.driver().wait());
        times as f64 * count / start.elapsed().as_secs_f64() / 1e9
    };
    (0..ROUNDS).map(round).skip(1).fold(0.0, f64::max)
}

/// Operations a second of a product of random matrices.
fn product(ops: &Cuda, dtype: Dtype, [m, n, k]: [usize; 3]) -> Result<f64, OpsError> {
    let [a, b, out] = [m * k, n * k, m * n].map(|len| memory(ops, len * dtype.bytes()));
    let (a, b, out) = (a?, b?, out?);
    for operand in [&a, &b] {
        fill(ops, operand.at, operand.bytes);
    }
    let rows = |memory: &Memory| Operand { at: memory.at, transposed: false };
    let (a, b, finish) = (rows(&a), rows(&b), Finish::Plain);
    let measured = false;
    let product = Product { m, n, k, dtype, out_dtype: dtype, out: out.at, out_stride: n, a, b, finish, measured };
    Ok(rate(ops, 4, 2.0 * (m * n * k) as f64, || ops.product(&product)))
}

#[cfg(test)]
mod tests {
    use super::Ceilings;

    #[test]
    fn what_a_cache_holds_has_a_ceiling_of_its_own() {
        let one = Ceilings {
            copy_gbs: 3000.0,
            reads_gbs: vec![(1000, 9000.0), (4000, 5000.0), (9000, 2900.0)],
            bf16_gflops: 1.0,
            f32_gflops: 1.0,
            upload_gbs: 1.0,
            download_gbs: 1.0,
        };
        assert_eq!([1, 1000, 3999, 4000].map(|bytes| one.read_gbs(bytes)), [9000.0, 9000.0, 9000.0, 5000.0]);
        assert_eq!(one.read_gbs(1 << 30), 3000.0, "the faster of reading and copying");
        let other = Ceilings { bf16_gflops: 2.0, copy_gbs: 10.0, ..one.clone() };
        assert_eq!(one.clone().best(&other), Ceilings { bf16_gflops: 2.0, ..one });
    }
}
