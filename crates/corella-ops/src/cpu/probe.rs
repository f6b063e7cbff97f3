//! What this machine can do at most: floating-point rate and memory bandwidth, measured.
//!
//! A ceiling is the best of several access patterns over several repetitions, so that no kernel can pass it.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub use super::infer::probe::int8_now;

use super::Cpu;
use super::array::Array;
use super::infer::ahead::{self, Level};
use super::path::{Path, Vectors};
use super::shared::SharedMut;
use super::vectorized::vectorized;

/// Measured limits of the threads of a backend, all together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// f32 multiply-adds, two operations each, in 10⁹ per second.
    pub f32_gflops: f64,
    /// Products of bfloat16 pairs, two operations each, where the path has instructions for them.
    pub bf16_gflops: Option<f64>,
    /// Products of 8-bit integers, two operations each, where the path has instructions for them.
    pub int8_gops: Option<f64>,
    /// Reading memory, in 10⁹ bytes per second.
    pub read_gbs: f64,
}

/// Independent chains of multiply-adds: enough to hide their latency on two units.
const CHAINS: usize = 12;
/// Floats of a chain: one register of the widest path.
const WIDTH: usize = 16;
/// Multiply-adds of a chain per task.
const LENGTH: usize = 200_000;
/// Tasks per thread in a repetition: short ones, so that a thread that was put aside does not hold up the rest.
const TASKS: usize = 16;
/// Bytes of [`Memory`]: far more than the caches of a core hold, and more than a guest gets of a host's.
const MEMORY_BYTES: usize = 512 << 20;
/// Bytes of a task that reads.
const BLOCK_BYTES: usize = 1 << 18;
const REPEAT: usize = 7;

/// Measures the limits on the threads and the path of `cpu`.
pub fn ceilings(cpu: &Cpu, memory: &Memory) -> Ceilings {
    let (mut f32_gflops, mut bf16_gflops) = (0f64, None);
    for _ in 0..REPEAT {
        f32_gflops = f32_gflops.max(f32_rate(cpu, TASKS));
        if let Some(rate) = bf16_rate(cpu, TASKS) {
            bf16_gflops = Some(rate.max(bf16_gflops.unwrap_or(0.0)));
        }
    }
    let int8_gops = (0..REPEAT).filter_map(|_| int8_now(cpu)).reduce(f64::max);
    let read_gbs = (0..REPEAT).flat_map(|_| memory.read_now(cpu, MEMORY_BYTES)).fold(0.0, f64::max);
    Ceilings { f32_gflops, bf16_gflops, int8_gops, read_gbs }
}

/// Memory that is read and written to learn how fast that goes.
pub struct Memory(Array);

impl Memory {
    /// Memory as kernels have it, huge pages included, touched once.
    pub fn new() -> Memory {
        let mut data = Array::EMPTY;
        data.resize(MEMORY_BYTES / 4);
        data.fill(1.0);
        Memory(data)
    }

    /// The rates of this moment, in 10⁹ bytes per second, at which this many bytes are read again in several ways, at most
    /// 512 MiB: what fits into a cache comes from there.
    pub fn read_now(&self, cpu: &Cpu, bytes: usize) -> Vec<f64> {
        let blocks = blocks(bytes);
        let timed = |pattern: &Pattern| {
            let start = Instant::now();
            let mut sums = vec![0.0; blocks];
            let cells = SharedMut::new(&mut sums);
            cpu.pool.run(blocks, &|block| {
                let part = &self.0[block * BLOCK_BYTES / 4..][..BLOCK_BYTES / 4];
                // SAFETY: one cell per task.
                let cell = unsafe { cells.part(block, 1) };
                cell[0] = read(cpu.path, part, pattern);
            });
            black_box(&sums);
            rate(blocks * BLOCK_BYTES, start)
        };
        PATTERNS.iter().map(timed).collect()
    }

    /// As [`Memory::read_now`] for what reads and writes: reading, writing past the caches, and changing numbers in place, which
    /// counts twice.
    pub fn traffic_now(&mut self, cpu: &Cpu, bytes: usize) -> Vec<f64> {
        let (blocks, mut rates) = (blocks(bytes), self.read_now(cpu, bytes));
        let start = Instant::now();
        let parts = SharedMut::new(&mut self.0);
        cpu.pool.run(blocks, &|block| {
            // SAFETY: one block per task.
            write(cpu.path, unsafe { parts.part(block * BLOCK_BYTES / 4, BLOCK_BYTES / 4) });
        });
        black_box(&self.0);
        rates.push(rate(blocks * BLOCK_BYTES, start));
        let start = Instant::now();
        let parts = SharedMut::new(&mut self.0);
        cpu.pool.run(blocks, &|block| {
            // SAFETY: one block per task.
            change(cpu.path, unsafe { parts.part(block * BLOCK_BYTES / 4, BLOCK_BYTES / 4) });
        });
        black_box(&self.0);
        rates.push(rate(2 * blocks * BLOCK_BYTES, start));
        rates
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

/// How a block is walked through.
struct Pattern {
    /// Parts of the block that are read side by side.
    streams: usize,
    /// Bytes that each is asked for ahead, and where to; 0: not at all.
    ahead: usize,
    level: Level,
}

impl Pattern {
    const fn new(streams: usize, ahead: usize, level: Level) -> Pattern {
        Pattern { streams, ahead, level }
    }
}

/// None of them is the fastest on every machine.
const PATTERNS: [Pattern; 8] = [
    Pattern::new(1, 0, Level::First),
    Pattern::new(2, 0, Level::First),
    Pattern::new(4, 0, Level::First),
    Pattern::new(2, 1024, Level::First),
    Pattern::new(4, 1024, Level::First),
    Pattern::new(2, 2048, Level::First),
    Pattern::new(1, 2048, Level::Second),
    Pattern::new(2, 2048, Level::Second),
];

/// Whole blocks in so many bytes.
fn blocks(bytes: usize) -> usize {
    (bytes.min(MEMORY_BYTES) / BLOCK_BYTES).max(1)
}

/// 10⁹ bytes per second.
fn rate(bytes: usize, start: Instant) -> f64 {
    bytes as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Fills a block, past the caches where there are instructions for that.
fn write(path: Path, block: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if path.vectors() == Vectors::Avx512 {
        // SAFETY: the path exists only after its features were detected.
        return unsafe { write_avx512(block) };
    }
    let _ = path;
    block.fill(black_box(2.0));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn write_avx512(block: &mut [f32]) {
    use std::arch::x86_64::{_mm512_set1_ps, _mm512_stream_ps};
    let value = _mm512_set1_ps(black_box(2.0));
    // SAFETY: any bits are a number; only whole, aligned lines are used below.
    let (_, lines, _) = unsafe { block.align_to_mut::<std::arch::x86_64::__m512>() };
    for line in lines {
        // SAFETY: an aligned line of the block.
        unsafe { _mm512_stream_ps(std::ptr::from_mut(line).cast(), value) };
    }
}

/// The floating-point rate of this moment, in 10⁹ operations per second, from a few milliseconds of work: on a shared
/// host it changes from second to second.
pub fn f32_now(cpu: &Cpu) -> f64 {
    f32_rate(cpu, 2)
}

/// The rate that products with trained weights in f32 can have at this moment, as [`f32_now`]: where they go to tiles in three
/// parts each, six products for one.
pub fn f32_products_now(cpu: &Cpu) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if cpu.path.has_triple_product() {
        return f32_now(cpu).max(bf16_now(cpu) / super::dot::triple::PRODUCTS as f64);
    }
    f32_now(cpu)
}

/// The rate of products in bf16 of this moment, as [`f32_now`]; that of f32 where they are converted.
pub fn bf16_now(cpu: &Cpu) -> f64 {
    bf16_rate(cpu, 2).unwrap_or_else(|| f32_now(cpu))
}

fn bf16_rate(cpu: &Cpu, tasks_per_thread: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if cpu.path.has_dot() {
        let (tasks, operations) = (8 * tasks_per_thread * cpu.threads(), AtomicUsize::new(0));
        let start = Instant::now();
        cpu.pool.run(tasks, &|_| {
            operations.fetch_add(super::dot::bare_products(cpu.path), Ordering::Relaxed);
        });
        return Some(operations.into_inner() as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    let _ = (cpu, tasks_per_thread);
    None
}

fn f32_rate(cpu: &Cpu, tasks_per_thread: usize) -> f64 {
    let tasks = tasks_per_thread * cpu.threads();
    let start = Instant::now();
    cpu.pool.run(tasks, &|task| {
        black_box(multiply_adds(cpu.path, task as f32));
    });
    let operations = 2 * tasks * CHAINS * lanes(cpu.path) * LENGTH;
    operations as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Floats of a chain on a path.
fn lanes(path: Path) -> usize {
    match path.vectors() {
        Vectors::Avx2 => 8,
        _ => WIDTH,
    }
}

/// Every chain starts elsewhere: equal ones would be computed once.
fn multiply_adds(path: Path, seed: f32) -> f32 {
    match path.vectors() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the path exists only after its features were detected.
        Vectors::Avx2 => unsafe { multiply_adds_avx2(seed) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Vectors::Avx512 => unsafe { multiply_adds_avx512(seed) },
        _ => chains::<CHAINS, WIDTH>(seed),
    }
}

#[inline(always)]
fn chains<const N: usize, const W: usize>(seed: f32) -> f32 {
    let mut sums: [[f32; W]; N] = std::array::from_fn(|i| std::array::from_fn(|j| seed + (i * W + j) as f32));
    let (scale, shift) = (black_box(0.999f32), black_box(1e-3f32));
    for _ in 0..LENGTH {
        for sum in &mut sums {
            for x in sum {
                *x = *x * scale + shift;
            }
        }
    }
    sums.iter().flatten().sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_adds_avx2(seed: f32) -> f32 {
    use std::arch::x86_64::{__m256, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_storeu_ps};
    let mut sums: [__m256; CHAINS] = std::array::from_fn(|i| _mm256_set1_ps(seed + black_box(i as f32)));
    let (scale, shift) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(1e-3)));
    for _ in 0..LENGTH {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, scale, shift);
        }
    }
    let mut out = [0.0f32; 8];
    let mut total = 0.0;
    for sum in sums {
        // SAFETY: `out` holds the eight floats of a register.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
        total += out.iter().sum::<f32>();
    }
    total
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn multiply_adds_avx512(seed: f32) -> f32 {
    use std::arch::x86_64::{__m512, _mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps};
    let mut sums: [__m512; CHAINS] = std::array::from_fn(|i| _mm512_set1_ps(seed + black_box(i as f32)));
    let (scale, shift) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(1e-3)));
    for _ in 0..LENGTH {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, scale, shift);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

vectorized! {
    /// Adds a block up, walking through its parts side by side as the pattern says.
    fn read(block: &[f32], pattern: &Pattern) -> f32 {
        let Pattern { streams, ahead, level } = *pattern;
        let len = block.len() / streams;
        let mut sums = [[0.0f32; WIDTH]; 4];
        for at in (0..len).step_by(2 * WIDTH) {
            for (stream, sum) in sums.iter_mut().enumerate().take(streams) {
                let part = &block[stream * len + at..][..2 * WIDTH];
                let soon = [ahead, ahead + 4 * WIDTH].map(|ahead| part.as_ptr().wrapping_byte_add(ahead).cast());
                if ahead > 0 {
                    soon.into_iter().for_each(|at| ahead::into(level, at));
                }
                for i in 0..WIDTH {
                    sum[i] += part[i] + part[WIDTH + i];
                }
            }
        }
        sums.iter().flatten().sum()
    }
}

vectorized! {
    /// Changes a block in place, four parts of it side by side, each asked for 1 KiB ahead.
    fn change(block: &mut [f32]) {
        let (scale, len) = (black_box(0.5f32), block.len() / 4);
        for at in (0..len).step_by(WIDTH) {
            for stream in 0..4 {
                let part = &mut block[stream * len + at..][..WIDTH];
                ahead::line_to_write(part.as_ptr().wrapping_byte_add(1024).cast());
                for x in part {
                    *x = *x * scale + 1.0;
                }
            }
        }
    }
}
