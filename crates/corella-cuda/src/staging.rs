//! Copies between host and card through page-locked memory, which the card reads and writes by itself: the host fills one piece
//! while the card still copies those before, and an upload returns before it has arrived.
//!
//! It pays for everything that goes over: weights and checkpoints, whose packing and rounding on the host runs beside the
//! copies, and the small plans and token ids of each step, for which the host would else wait until the card has caught up.

use std::collections::VecDeque;

use crate::driver::Address;
use crate::error::CudaError;

/// Pieces of page-locked memory, and how long each is: a copy of 4 MiB takes a hundred times as long as it takes to start.
pub(crate) const PIECES: usize = 4;
pub(crate) const PIECE: usize = 4 << 20;
/// Where copies begin inside a piece: a whole number of what the card reads at once.
const PLACE: usize = 256;

/// What staging needs of a card's stream, on which everything follows what was started before.
pub(crate) trait Lane {
    /// [`PIECES`] pieces of [`PIECE`] bytes that the card can reach.
    fn memory(&self) -> *mut u8;
    /// Starts a copy to the card.
    ///
    /// # Safety
    /// `from` has so many bytes, in this lane's memory, and nobody writes them before the copy has ended; the card has room.
    unsafe fn start_in(&self, to: Address, from: *const u8, bytes: usize) -> Result<(), CudaError>;
    /// Starts a copy from the card.
    ///
    /// # Safety
    /// `to` has room for so many bytes, in this lane's memory, and nobody touches them before the copy has ended.
    unsafe fn start_out(&self, to: *mut u8, from: Address, bytes: usize) -> Result<(), CudaError>;
    /// Remembers, for a piece, everything that was started so far.
    fn mark(&self, piece: usize) -> Result<(), CudaError>;
    /// Waits for what was remembered for a piece last; for nothing where that was never done.
    fn wait(&self, piece: usize) -> Result<(), CudaError>;
}

/// A lane's memory as a ring: pieces are filled one after the other, each again once the copies from it have ended.
pub(crate) struct Staging<L> {
    lane: L,
    piece: usize,
    /// Bytes of the piece that copies use.
    used: usize,
}

impl<L: Lane> Staging<L> {
    pub fn new(lane: L) -> Staging<L> {
        Staging { lane, piece: 0, used: 0 }
    }

    /// Where a piece begins.
    fn start(&self, piece: usize) -> *mut u8 {
        self.lane.memory().wrapping_add(piece * PIECE)
    }

    /// Goes on to the next piece, as soon as nothing uses it.
    fn turn(&mut self) -> Result<(), CudaError> {
        self.lane.mark(self.piece)?;
        self.piece = (self.piece + 1) % PIECES;
        self.used = 0;
        self.lane.wait(self.piece)
    }

    /// Copies to the card; the bytes may change when it returns.
    ///
    /// # Safety
    /// The card has room for the bytes at `to`.
    pub unsafe fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), CudaError> {
        let mut done = 0;
        while done < bytes.len() {
            if self.used == PIECE {
                self.turn()?;
            }
            let part = &bytes[done..bytes.len().min(done + PIECE - self.used)];
            let from = self.start(self.piece).wrapping_add(self.used);
            // SAFETY: the part fits behind what the piece holds, and no copy under way reads there: `turn` has waited for those of
            // the ring's last round. The card has room (the caller's promise).
            unsafe {
                from.copy_from_nonoverlapping(part.as_ptr(), part.len());
                self.lane.start_in(to + done as u64, from, part.len())?;
            }
            self.used = (self.used + part.len()).next_multiple_of(PLACE).min(PIECE);
            done += part.len();
        }
        Ok(())
    }

    /// Copies from the card; returns when the bytes are there.
    ///
    /// # Safety
    /// The card holds so many bytes at `from`.
    pub unsafe fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        let mut under_way: VecDeque<(usize, &mut [u8])> = VecDeque::new();
        let mut at = from;
        for part in bytes.chunks_mut(PIECE) {
            // So that the piece after this one is not one whose bytes still wait here.
            if under_way.len() == PIECES - 1 {
                self.arrived(under_way.pop_front())?;
            }
            self.turn()?;
            // SAFETY: the piece is free, as `turn` has waited for it; the card holds the bytes (the caller's promise).
            unsafe { self.lane.start_out(self.start(self.piece), at, part.len())? };
            self.lane.mark(self.piece)?;
            at += part.len() as u64;
            under_way.push_back((self.piece, part));
        }
        while let Some(next) = under_way.pop_front() {
            self.arrived(Some(next))?;
        }
        Ok(())
    }

    /// Waits for a copy from the card and takes its bytes.
    fn arrived(&self, copy: Option<(usize, &mut [u8])>) -> Result<(), CudaError> {
        let Some((piece, part)) = copy else { return Ok(()) };
        self.lane.wait(piece)?;
        // SAFETY: the piece holds the part, whose copy has ended, and nothing else writes there before the next `turn`.
        unsafe { part.as_mut_ptr().copy_from_nonoverlapping(self.start(piece), part.len()) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;

    /// A copy that was started.
    enum Started {
        In { to: usize, from: usize, bytes: usize },
        Out { to: usize, from: usize, bytes: usize },
    }

    /// A card that copies as late as it may: only what somebody waits for, with all that was started before.
    struct Late {
        memory: RefCell<Vec<u8>>,
        card: RefCell<Vec<u8>>,
        started: RefCell<VecDeque<Started>>,
        /// Copies that have ended, and for each piece the number of the last that was remembered.
        ended: RefCell<usize>,
        marks: RefCell<[usize; PIECES]>,
    }

    impl Late {
        fn new(bytes: usize) -> Late {
            Late {
                memory: RefCell::new(vec![0xee; PIECES * PIECE]),
                card: RefCell::new(vec![0; bytes]),
                started: RefCell::default(),
                ended: RefCell::new(0),
                marks: RefCell::new([0; PIECES]),
            }
        }

        fn run_until(&self, number: usize) {
            let (mut memory, mut card) = (self.memory.borrow_mut(), self.card.borrow_mut());
            while *self.ended.borrow() < number {
                match self.started.borrow_mut().pop_front().expect("what was remembered was started") {
                    Started::In { to, from, bytes } => {
                        card[to..to + bytes].copy_from_slice(&memory[from..from + bytes])
                    }
                    Started::Out { to, from, bytes } => {
                        memory[to..to + bytes].copy_from_slice(&card[from..from + bytes])
                    }
                }
                *self.ended.borrow_mut() += 1;
            }
        }

        fn all(&self) -> usize {
            *self.ended.borrow() + self.started.borrow().len()
        }

        fn offset(&self, at: *const u8) -> usize {
            at as usize - self.memory() as usize
        }
    }

    impl Lane for Late {
        fn memory(&self) -> *mut u8 {
            self.memory.borrow_mut().as_mut_ptr()
        }

        unsafe fn start_in(&self, to: Address, from: *const u8, bytes: usize) -> Result<(), CudaError> {
            let from = self.offset(from);
            assert!(from % PIECE + bytes <= PIECE, "{bytes} bytes at {from}");
            self.started.borrow_mut().push_back(Started::In { to: to as usize, from, bytes });
            Ok(())
        }

        unsafe fn start_out(&self, to: *mut u8, from: Address, bytes: usize) -> Result<(), CudaError> {
            let to = self.offset(to);
            self.started.borrow_mut().push_back(Started::Out { to, from: from as usize, bytes });
            Ok(())
        }

        fn mark(&self, piece: usize) -> Result<(), CudaError> {
            self.marks.borrow_mut()[piece] = self.all();
            Ok(())
        }

        fn wait(&self, piece: usize) -> Result<(), CudaError> {
            self.run_until(self.marks.borrow()[piece]);
            Ok(())
        }
    }

    fn numbers(seed: usize, len: usize) -> Vec<u8> {
        (0..len).map(|i| ((i * 31 + seed * 97) ^ (i >> 8)) as u8).collect()
    }

    /// Sizes around a piece and around all of them, many small ones, and both ways in turn, on a card that is as slow as can be.
    #[test]
    fn every_byte_arrives_however_late_the_card_copies() {
        let whole = PIECES * PIECE;
        let mut staging = Staging::new(Late::new(3 * whole));
        for (seed, len) in
            [1, 255, 256, 257, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, whole, whole + 3, 2 * whole + PIECE + 7]
                .into_iter()
                .enumerate()
        {
            let (bytes, mut back) = (numbers(seed, len), vec![0; len]);
            // SAFETY: the card has room for three times the ring.
            unsafe {
                staging.upload(64, &bytes).expect("copies");
                staging.download(64, &mut back).expect("copies");
            }
            assert!(back == bytes, "{len} bytes");
        }
        // More small uploads than the ring holds, none of which is waited for.
        let small = numbers(1, 3 * whole);
        for (part, at) in small.chunks(10_000).zip((0..).step_by(10_000)) {
            // SAFETY: as above.
            unsafe { staging.upload(at, part).expect("copies") };
        }
        let mut back = vec![0; small.len()];
        // SAFETY: as above.
        unsafe { staging.download(0, &mut back).expect("copies") };
        assert!(back == small);
    }

    #[test]
    fn small_uploads_return_while_the_card_is_busy() {
        let mut staging = Staging::new(Late::new(1 << 20));
        for i in 0..100 {
            // SAFETY: the card has room for a mebibyte.
            unsafe { staging.upload(i * 1000, &numbers(i as usize, 1000)).expect("copies") };
        }
        assert_eq!((*staging.lane.ended.borrow(), staging.lane.started.borrow().len()), (0, 100));
    }
}
