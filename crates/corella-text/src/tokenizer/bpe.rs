//! Merging the bytes of one piece by rank.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// For a pair of neighbours: the rank of its merge (lower first) and the id it becomes.
pub type Merges = HashMap<(u32, u32), (u32, u32)>;

/// Marks the end of the linked list.
const NONE: usize = usize::MAX;

/// Appends the ids of a piece. The merge of lowest rank comes first, the leftmost among equals.
///
/// A linked list and a heap keep it at O(n log n), so that a megabyte of one letter is no trap.
pub fn encode_piece(piece: &[u8], byte_ids: &[u32; 256], merges: &Merges, out: &mut Vec<u32>) {
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
