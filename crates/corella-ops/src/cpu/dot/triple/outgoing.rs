//! Tiles between the end of their sums and their result.

use super::kernel::{self, SIDE, STEP_LEN, TILE};
use crate::cpu::bf16::Bf16;
use crate::cpu::dot::amx::store_sums;
use crate::cpu::dot::finish::{Finish, PASSING, Place, Rows};
use crate::cpu::dot::kernel::STEP;
use crate::cpu::dot::prefetch;
use crate::cpu::scratch::Scratch;

/// The products of a tile.
pub struct Products<'a> {
    /// A, whole steps.
    pub a: &'a [Bf16],
    /// B, as many.
    pub b: &'a [Bf16],
    /// What the tile that follows begins with, of A and of B.
    pub next: (*const Bf16, *const Bf16),
    /// What is asked for meanwhile, for the second-level cache.
    pub soon: &'a [Bf16],
    /// The part of the result.
    pub place: Place,
}

/// The tiles of a task. Each step of a tile's products is followed by some rows of the tile before, which are finished meanwhile.
pub struct Outgoing<'a, 'b> {
    to: &'b Finish<'a, f32>,
    /// Sums of the tile that is formed and of the one that is finished.
    sums: Scratch<f32>,
    /// Which of the two is formed.
    slot: usize,
    /// The tile before.
    whole: Option<Rows<f32>>,
    stream: bool,
}

impl<'a, 'b> Outgoing<'a, 'b> {
    /// No tile yet.
    pub fn new(to: &'b Finish<'a, f32>) -> Outgoing<'a, 'b> {
        let stream = to.out.len() * size_of::<f32>() >= PASSING;
        Outgoing { to, sums: Scratch::new(2 * TILE), slot: 0, whole: None, stream }
    }

    /// Products of a tile, and the end of the tile before, if there is one.
    ///
    /// # Safety
    /// Tiles were configured on this thread, and the path has the features; the tile of the result belongs to this task alone.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn multiply(&mut self, products: &Products<'_>) {
        let Products { a, b, next, soon, place } = *products;
        let (a, _) = a.as_chunks::<STEP_LEN>();
        let (b, _) = b.as_chunks::<STEP_LEN>();
        let steps = a.len();
        assert!(steps > 0 && b.len() == steps, "{steps} steps of A, {} of B", b.len());
        // SAFETY: the caller's promises.
        let rows = unsafe { Rows::new(self.to, place, self.stream) };
        let (each, share) = (SIDE.div_ceil(steps), soon.len().div_ceil(steps).next_multiple_of(2 * STEP));
        let mut soon = soon.chunks(share.max(1));
        // SAFETY: a step of both, the sums of a tile; tiles were configured (the caller's promise), and nothing between has to do
        // with them.
        unsafe {
            kernel::begin();
            for step in 0..steps {
                let next_a = a.get(step + 1).map_or(next.0, |a| a.as_ptr());
                let next_b = b.get(step + 1).map_or(next.1, |b| b.as_ptr());
                kernel::step(a[step].as_ptr(), b[step].as_ptr(), next_a, next_b);
                prefetch(soon.next().unwrap_or_default());
                let done = step * each..(step + 1) * each;
                rows.ask(done.clone());
                self.finish(done);
            }
            store_sums(self.sums[self.slot * TILE..][..TILE].as_mut_ptr());
        }
        self.whole = Some(rows);
        self.slot = 1 - self.slot;
    }

    /// Finishes some rows of the tile before, if there is one.
    ///
    /// # Safety
    /// The path has the features; what was promised when the tile was formed.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn finish(&self, rows: std::ops::Range<usize>) {
        if let Some(whole) = &self.whole {
            let (sums, _) = self.sums[(1 - self.slot) * TILE..][..TILE].as_chunks::<SIDE>();
            for row in rows.take_while(|row| *row < whole.rows) {
                // SAFETY: the caller's promises.
                unsafe { whole.finish(row, &sums[row]) };
            }
        }
    }

    /// Finishes what is left.
    ///
    /// # Safety
    /// As of [`Outgoing::multiply`].
    pub unsafe fn end(self) {
        // SAFETY: the caller's promises.
        unsafe { self.finish(0..SIDE) };
    }
}
