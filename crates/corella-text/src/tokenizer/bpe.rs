//! Merging the bytes of one piece by rank.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

/// For a pair of neighbours: the rank of its merge (lower first) and the id it becomes.
pub type Merges = FxHashMap<(u32, u32), (u32, u32)>;

/// Marks the end of the linked list.
const NONE: usize = usize::MAX;

/// Longest piece, in bytes, that is merged by looking at all its pairs every time: for words that is the fastest way.
const SHORT: usize = 48;

/// Appends the ids of a piece. The merge of lowest rank comes first, the leftmost among equals.
pub fn encode_piece(piece: &[u8], byte_ids: &[u32; 256], merges: &Merges, out: &mut Vec<u32>) {
    if piece.len() <= SHORT {
        encode_short(piece, byte_ids, merges, out)
    } else {
        encode_long(piece, byte_ids, merges, out)
    }
}

fn encode_short(piece: &[u8], byte_ids: &[u32; 256], merges: &Merges, out: &mut Vec<u32>) {
    const NO_MERGE: (u32, u32) = (u32::MAX, 0);
    let mut ids = [0u32; SHORT];
    // Of each pair of neighbours (i, i + 1): rank and result of its merge.
    let mut pairs = [NO_MERGE; SHORT];
    let mut n = piece.len();
    for (id, byte) in ids.iter_mut().zip(piece) {
        *id = byte_ids[*byte as usize];
    }
    let merge = |left: u32, right: u32| merges.get(&(left, right)).copied().unwrap_or(NO_MERGE);
    for i in 1..n {
        pairs[i - 1] = merge(ids[i - 1], ids[i]);
    }
    while n > 1 {
        let mut best = 0;
        for i in 1..n - 1 {
            if pairs[i].0 < pairs[best].0 {
                best = i;
            }
        }
        if pairs[best] == NO_MERGE {
            break;
        }
        ids[best] = pairs[best].1;
        ids.copy_within(best + 2..n, best + 1);
        pairs.copy_within(best + 1..n - 1, best);
        n -= 1;
        if best > 0 {
            pairs[best - 1] = merge(ids[best - 1], ids[best]);
        }
        if best + 1 < n {
            pairs[best] = merge(ids[best], ids[best + 1]);
        }
    }
    out.extend_from_slice(&ids[..n]);
}

/// A linked list and a heap keep it at O(n log n), so that a megabyte of one letter is no trap.
fn encode_long(piece: &[u8], byte_ids: &[u32; 256], merges: &Merges, out: &mut Vec<u32>) {
    let mut ids: Vec<u32> = piece.iter().map(|b| byte_ids[*b as usize]).collect();
    let n = ids.len();
    let mut next: Vec<usize> = (1..=n).map(|i| if i == n { NONE } else { i }).collect();
    let mut previous: Vec<usize> = (0..n).map(|i| i.checked_sub(1).unwrap_or(NONE)).collect();
    let mut alive = vec![true; n];
    let mut heap = BinaryHeap::new();
    for i in 1..n {
        if let Some((rank, _)) = merges.get(&(ids[i - 1], ids[i])) {
            heap.push(Reverse((*rank, i - 1)));
        }
    }
    while let Some(Reverse((rank, left))) = heap.pop() {
        if !alive[left] || next[left] == NONE {
            continue;
        }
        let right = next[left];
        // The entry may be from before a neighbour changed.
        let Some((now, id)) = merges.get(&(ids[left], ids[right])).copied() else { continue };
        if now != rank {
            continue;
        }
        ids[left] = id;
        alive[right] = false;
        next[left] = next[right];
        if next[left] != NONE {
            previous[next[left]] = left;
        }
        for (a, b) in [(previous[left], left), (left, next[left])] {
            if a != NONE
                && b != NONE
                && let Some((rank, _)) = merges.get(&(ids[a], ids[b]))
            {
                heap.push(Reverse((*rank, a)));
            }
        }
    }
    out.extend(ids.iter().zip(&alive).filter(|(_, alive)| **alive).map(|(id, _)| *id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pieces_come_out_as_long_ones_do() {
        // Merges among a, b and what comes of them, in a scrambled order of ranks.
        let byte_ids = std::array::from_fn(|b| b as u32);
        let mut merges = Merges::default();
        let (mut next, mut rank) = (256, 97);
        for (left, right) in [(97, 98), (98, 98), (97, 97), (256, 97), (257, 256), (98, 97), (258, 258), (256, 256)] {
            merges.insert((left, right), (rank, next));
            rank = rank * 31 % 101;
            next += 1;
        }
        for bits in 0..1u32 << 12 {
            let piece: Vec<u8> = (0..12).map(|i| if bits >> i & 1 == 0 { b'a' } else { b'b' }).collect();
            for len in 1..=12 {
                let (mut short, mut long) = (Vec::new(), Vec::new());
                encode_short(&piece[..len], &byte_ids, &merges, &mut short);
                encode_long(&piece[..len], &byte_ids, &merges, &mut long);
                assert_eq!(short, long, "{:?}", &piece[..len]);
            }
        }
    }
}
