//! Tiles between the end of their sums and their result.

use super::carry::Carry;
use super::kernel::{A_STEP, B_STEP, CARRIED, MR, NEAR, TILE, tile};
use crate::cpu::bf16::{Bf16, Number};
use crate::cpu::dot::finish::{Finish, Place, finish, finish_aside};
use crate::cpu::dot::kernel::NR;
use crate::cpu::scratch::Scratch;

/// Results of this many bytes pass the caches by.
const PASSING: usize = 4 << 20;

/// A piece of a tile's work.
pub struct Piece<'a> {
    /// Steps of k.
    pub steps: usize,
    /// A, packed.
    pub a: &'a [Bf16],
    /// B, a part of a panel.
    pub b: &'a [Bf16],
    /// Where the tile's sums are.
    pub at: usize,
    /// Whether they go on.
    pub add: bool,
    /// What is asked for meanwhile.
    pub soon: *const Bf16,
}

/// The tiles of a task: sums are finished after the next tile's products, which the processor begins meanwhile, and carried out
/// during those of the one behind it.
pub struct Outgoing<'a, 'b, O: Number> {
    to: &'b Finish<'a, O>,
    sums: Scratch<f32>,
    /// The tile whose sums are formed, and where they are.
    formed: Option<(usize, Place)>,
    /// Its results, a row's lines one behind the other.
    copy: Scratch<Bf16>,
    carry: Carry,
    passing: bool,
}

impl<'a, 'b, O: Number> Outgoing<'a, 'b, O> {
    /// With room for the sums of `kept` tiles: two at least, if tiles are formed one after the other.
    pub fn new(to: &'b Finish<'a, O>, kept: usize) -> Outgoing<'a, 'b, O> {
        let passing = to.out.len() * size_of::<O>() >= PASSING;
        let (sums, copy) = (Scratch::new(kept * TILE), Scratch::new(2 * MR * NR));
        Outgoing { to, sums, formed: None, copy, carry: Carry::NONE, passing }
    }

    /// Products of a piece of a tile, while the one before last is carried out.
    ///
    /// # Safety
    /// Tiles were configured on this thread, and the path has the features.
    pub unsafe fn multiply<const LINES: usize>(&mut self, piece: &Piece<'_>) {
        let Piece { steps, a, b, at, add, soon } = *piece;
        assert!(steps > 0 && a.len() == steps * A_STEP && b.len() == steps * B_STEP, "{steps} steps");
        let sums = self.sums[at * TILE..][..TILE].as_mut_ptr();
        let (a, b, carry) = (a.as_ptr(), b.as_ptr(), &self.carry);
        // SAFETY: whole steps of both, the sums of a tile (asserted); the caller's promises. Fewer rows are carried than a tile
        // has, and `carry` holds all of one or none.
        unsafe {
            match carry.lines() {
                0 => tile::<LINES, 0>(steps, a, b, sums, add, soon, carry),
                1 => tile::<LINES, 1>(steps, a, b, sums, add, soon, carry),
                _ => tile::<LINES, 2>(steps, a, b, sums, add, soon, carry),
            }
            self.carry.advance(CARRIED * NEAR.min(steps - 1));
            self.carry.flush();
            self.finish();
        }
    }

    /// All products of the tile at `at` were formed.
    pub fn formed(&mut self, at: usize, place: Place) {
        self.formed = Some((at, place));
    }

    /// Finishes the tile that was formed, if there is one.
    ///
    /// # Safety
    /// The path has the features; the tile belongs to this task alone.
    unsafe fn finish(&mut self) {
        let Some((at, place)) = self.formed.take() else { return };
        let sums = &self.sums[at * TILE..][..TILE];
        // SAFETY: the caller's promises.
        unsafe {
            match self.to.whole_lines(place) {
                Some(lines) if self.passing && place.rows == MR => {
                    let (to, beside, row_bytes) = finish_aside(sums, self.to, place, &mut self.copy);
                    self.carry = Carry::new(self.copy.as_ptr().cast(), to.cast(), beside, row_bytes, lines);
                }
                _ => finish(sums, self.to, place),
            }
        }
    }

    /// Finishes what is left.
    ///
    /// # Safety
    /// The path has the features.
    pub unsafe fn end(mut self) {
        // SAFETY: the caller's promise.
        unsafe {
            self.carry.flush();
            self.finish();
            self.carry.flush();
        }
    }
}
