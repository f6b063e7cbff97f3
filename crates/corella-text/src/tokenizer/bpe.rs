//! Merging neighbours by rank: the lowest rank first, the leftmost among equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

/// For a pair of neighbours: the rank of its merge (lower first) and the id it becomes.
#[derive(Clone, Debug, Default)]
pub struct Merges(FxHashMap<(u32, u32), Merge>);

/// What becomes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Lower first.
    pub rank: u32,
    /// The id that replaces the pair.
    pub id: u32,
}

/// Marks the end of the linked list.
const NONE: u32 = u32::MAX;

/// Most symbols that are merged by looking at all their pairs every time: for words that is the fastest way.
const SHORT: usize = 48;

/// No merge: its rank is behind every other.
const NO_MERGE: Merge = Merge { rank: u32::MAX, id: 0 };

impl Merges {
    /// Adds a merge; of two for one pair, the first stays.
    pub fn insert(&mut self, pair: (u32, u32), merge: Merge) {
        self.0.entry(pair).or_insert(merge);
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What a pair becomes.
    pub fn get(&self, left: u32, right: u32) -> Merge {
        self.0.get(&(left, right)).copied().unwrap_or(NO_MERGE)
    }

    /// Appends to `out` what the merges make of `symbols`. At most O(n log n) steps, and O(n) merges.
    pub fn apply(&self, symbols: impl ExactSizeIterator<Item = u32>, out: &mut Vec<u32>) {
        if symbols.len() <= SHORT {
            self.apply_short(symbols, out);
        } else {
            self.apply_long(symbols, out);
        }
    }

    fn apply_short(&self, symbols: impl ExactSizeIterator<Item = u32>, out: &mut Vec<u32>) {
        let mut ids = [0u32; SHORT];
        // Of each pair of neighbours (i, i + 1).
        let mut pairs = [NO_MERGE; SHORT];
        let mut n = symbols.len();
        for (to, symbol) in ids.iter_mut().zip(symbols) {
            *to = symbol;
        }
        for i in 1..n {
            pairs[i - 1] = self.get(ids[i - 1], ids[i]);
        }
        while n > 1 {
            let mut best = 0;
            for i in 1..n - 1 {
                if pairs[i].rank < pairs[best].rank {
                    best = i;
                }
            }
            if pairs[best] == NO_MERGE {
                break;
            }
            ids[best] = pairs[best].id;
            ids.copy_within(best + 2..n, best + 1);
            pairs.copy_within(best + 1..n - 1, best);
            n -= 1;
            if best > 0 {
                pairs[best - 1] = self.get(ids[best - 1], ids[best]);
            }
            if best + 1 < n {
                pairs[best] = self.get(ids[best], ids[best + 1]);
            }
        }
        out.extend_from_slice(&ids[..n]);
    }

    /// A linked list and a heap, so that a megabyte of one letter is no trap. Returns how often the heap was asked: at
    /// most three times for each symbol.
    fn apply_long(&self, symbols: impl ExactSizeIterator<Item = u32>, out: &mut Vec<u32>) -> usize {
        let mut ids: Vec<u32> = symbols.collect();
        let n = ids.len() as u32;
        let mut next: Vec<u32> = (1..=n).map(|i| if i == n { NONE } else { i }).collect();
        let mut previous: Vec<u32> = (0..n).map(|i| i.checked_sub(1).unwrap_or(NONE)).collect();
        // One number orders by rank, then by place; what was merged away has the place of no pair.
        let entry = |rank: u32, place: u32| Reverse(u64::from(rank) << 32 | u64::from(place));
        let mut heap = BinaryHeap::with_capacity(ids.len());
        for i in 1..n {
            let merge = self.get(ids[i as usize - 1], ids[i as usize]);
            if merge != NO_MERGE {
                heap.push(entry(merge.rank, i - 1));
            }
        }
        let mut asked = 0;
        while let Some(Reverse(top)) = heap.pop() {
            asked += 1;
            let (rank, left) = ((top >> 32) as u32, top as u32 as usize);
            let right = next[left];
            if right == NONE {
                continue;
            }
            // The entry may be from before a neighbour changed.
            let merge = self.get(ids[left], ids[right as usize]);
            if merge == NO_MERGE || merge.rank != rank {
                continue;
            }
            ids[left] = merge.id;
            let after = next[right as usize];
            next[right as usize] = NONE;
            next[left] = after;
            if after != NONE {
                previous[after as usize] = left as u32;
                let merge = self.get(ids[left], ids[after as usize]);
                if merge != NO_MERGE {
                    heap.push(entry(merge.rank, left as u32));
                }
            }
            let before = previous[left];
            if before != NONE {
                let merge = self.get(ids[before as usize], ids[left]);
                if merge != NO_MERGE {
                    heap.push(entry(merge.rank, before));
                }
            }
        }
        let mut at = 0;
        while at != NONE {
            out.push(ids[at as usize]);
            at = next[at as usize];
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merges among a, b and what comes of them, in a scrambled order of ranks.
    fn scrambled() -> Merges {
        let mut merges = Merges::default();
        let (mut next, mut rank) = (256, 97);
        for pair in [(97, 98), (98, 98), (97, 97), (256, 97), (257, 256), (98, 97), (258, 258), (256, 256)] {
            merges.insert(pair, Merge { rank, id: next });
            rank = rank * 31 % 101;
            next += 1;
        }
        merges
    }

    #[test]
    fn short_pieces_come_out_as_long_ones_do() {
        let merges = scrambled();
        for bits in 0..1u32 << 12 {
            let piece: Vec<u32> = (0..12).map(|i| 97 + (bits >> i & 1)).collect();
            for len in 1..=12 {
                let (mut short, mut long) = (Vec::new(), Vec::new());
                merges.apply_short(piece[..len].iter().copied(), &mut short);
                merges.apply_long(piece[..len].iter().copied(), &mut long);
                assert_eq!(short, long, "{:?}", &piece[..len]);
            }
        }
    }

    #[test]
    fn the_work_on_a_long_piece_is_bounded_by_its_length() {
        let merges = scrambled();
        let mut state = 1u32;
        let mut mixed = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            97 + (state >> 31)
        };
        let n = 100_000;
        for piece in [vec![97; n], (0..n).map(|_| mixed()).collect(), (0..n as u32).map(|i| 97 + i % 2).collect()] {
            let mut out = Vec::new();
            let asked = merges.apply_long(piece.into_iter(), &mut out);
            assert!(asked <= 3 * n, "{asked} questions for {n} symbols");
        }
    }
}
