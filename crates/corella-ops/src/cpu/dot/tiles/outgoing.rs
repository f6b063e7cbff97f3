//! Tiles between the end of their sums and their result.

use super::kernel::{A_STEP, B_STEP, MR, NEAR, Sums, TILE};
use crate::cpu::bf16::{Bf16, Number};
use crate::cpu::dot::finish::{Finish, PASSING, Place, Rows};
use crate::cpu::dot::kernel::{NR, STEP};
use crate::cpu::scratch::Scratch;

/// A piece of a tile's products.
pub struct Piece<'a> {
    /// Steps of k.
    pub steps: usize,
    /// A, packed.
    pub a: &'a [Bf16],
    /// B, a part of a panel.
    pub b: &'a [Bf16],
    /// Which of the tiles of sums it is.
    pub tile: usize,
    /// Whether the sums go on.
    pub add: bool,
    /// The part of the result, if the sums are whole after this piece.
    pub last: Option<Place>,
    /// What is asked for meanwhile.
    pub soon: *const Bf16,
}

/// The tiles of a task. Each step of a tile's products is followed by some rows of the tile before, which are finished meanwhile: a
/// whole tile at once would leave the products waiting, and its lines on their way to memory would take all the buffers that loads from the
/// second-level cache need.
pub struct Outgoing<'a, 'b, O: Number> {
    to: &'b Finish<'a, O>,
    sums: Scratch<f32>,
    /// The tile whose sums are whole.
    whole: Option<(usize, Rows<O>)>,
    stream: bool,
}

impl<'a, 'b, O: Number> Outgoing<'a, 'b, O> {
    /// With room for the sums of `tiles` tiles: two at least, if tiles are formed one after the other.
    pub fn new(to: &'b Finish<'a, O>, tiles: usize) -> Outgoing<'a, 'b, O> {
        let stream = to.out.len() * size_of::<O>() >= PASSING;
        Outgoing { to, sums: Scratch::new(tiles * TILE), whole: None, stream }
    }

    /// Products of a piece of a tile, and the end of the tile before, if there is one.
    ///
    /// # Safety
    /// Tiles were configured on this thread, and the path has the features; the tile of the result belongs to this task alone.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn multiply<const LINES: usize>(&mut self, piece: &Piece<'_>) {
        let Piece { steps, a, b, tile, add, last, mut soon } = *piece;
        assert!(steps > 0 && a.len() == steps * A_STEP && b.len() == steps * B_STEP, "{steps} steps");
        assert!((tile + 1) * TILE <= self.sums.len(), "tile {tile} of sums");
        let all = self.sums.as_mut_ptr();
        // SAFETY: the caller's promises.
        let next = last.map(|place| unsafe { Rows::new(self.to, place, self.stream) });
        let each = MR.div_ceil(steps);
        let mut row = 0;
        // SAFETY: whole steps of both, the sums of a tile (asserted); tiles were configured (the caller's promise), and nothing
        // between has to do with them.
        unsafe {
            let sums = all.add(tile * TILE);
            let mut products = Sums::begin(a.as_ptr(), b.as_ptr(), add.then_some(sums.cast_const()));
            for step in 1..steps {
                match step < NEAR {
                    true => products.step::<LINES, true>(soon),
                    false => products.step::<LINES, false>(soon),
                }
                soon = soon.wrapping_add(LINES * STEP);
                self.finish(all, row..row + each);
                next.iter().for_each(|next| next.ask(row..row + each));
                row += each;
            }
            products.end(sums);
            self.finish(all, row..MR);
        }
        self.whole = next.map(|rows| (tile, rows));
    }

    /// Finishes some rows of the tile whose sums are whole, if there is one.
    ///
    /// # Safety
    /// The path has the features; what was promised when the tile was formed. `all` are the tiles of sums.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn finish(&self, all: *const f32, rows: std::ops::Range<usize>) {
        if let Some((tile, whole)) = &self.whole {
            for row in rows.start..rows.end.min(whole.rows) {
                // SAFETY: a row of the tile; the caller's promises.
                unsafe { whole.finish(row, &*all.add(tile * TILE + row * NR).cast()) };
            }
        }
    }

    /// Finishes what is left.
    ///
    /// # Safety
    /// As of [`Outgoing::multiply`].
    pub unsafe fn end(self) {
        // SAFETY: the caller's promises.
        unsafe { self.finish(self.sums.as_ptr(), 0..MR) };
    }
}
