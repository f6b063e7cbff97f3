//! Partial selection: the first N, or the first that together weigh enough, without sorting a vocabulary.

use std::cmp::Ordering;

/// Order of tokens: the likelier first, the lower id among equals.
pub fn likelier(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// The `n` likeliest of `logits` that `keep` admits, in order.
///
/// A buffer of 2n holds what may still belong to them; each time it is full, the better half stays and its last sets
/// the bar for the rest: O(V) for what a model gives, O(V + n log n) on average for any order.
pub fn top_n(logits: &[f32], n: usize, keep: impl Fn(usize) -> bool, buffer: &mut Vec<(f32, u32)>) {
    buffer.clear();
    if n == 0 {
        return;
    }
    let room = n.saturating_mul(2).max(64);
    let mut bar = f32::NEG_INFINITY;
    for (id, logit) in logits.iter().enumerate() {
        // An equal logit has a higher id than all in the buffer, so it cannot push one out.
        if (*logit > bar || buffer.len() < n) && keep(id) {
            buffer.push((*logit, id as u32));
            if buffer.len() == room {
                buffer.select_nth_unstable_by(n - 1, likelier);
                buffer.truncate(n);
                bar = buffer[n - 1].0;
            }
        }
    }
    if buffer.len() > n {
        buffer.select_nth_unstable_by(n - 1, likelier);
        buffer.truncate(n);
    }
    buffer.sort_unstable_by(likelier);
}

/// The last item, in `order`, of the shortest run from the front whose weights reach `goal`; the very last item if
/// they never do. Quickselect on weights: O(n) on average.
pub fn weighted_cut<T: Copy>(
    items: &mut [T],
    order: impl Fn(&T, &T) -> Ordering,
    weight: impl Fn(&T) -> u64,
    mut goal: u64,
) -> Option<T> {
    let mut rest = items;
    while rest.len() > 1 {
        let middle = rest.len() / 2;
        let (front, pivot, back) = rest.select_nth_unstable_by(middle, &order);
        let in_front: u64 = front.iter().map(&weight).sum();
        if in_front >= goal {
            rest = front;
        } else if in_front + weight(pivot) >= goal || back.is_empty() {
            return Some(*pivot);
        } else {
            goal -= in_front + weight(pivot);
            rest = back;
        }
    }
    rest.first().copied()
}

/// Parts that [`binned_cut`] sorts items into before it looks at one of them.
const BINS: usize = 1024;
/// Fewer items are selected from at once.
pub const FEW: usize = 2048;

/// The same as [`weighted_cut`] for `n` items that need not lie anywhere: those of one of a thousand bins are put into
/// `spare` and looked at. `depth` tells the bin: a number that never falls along `order`; from 1 on all items lie in the
/// last bin.
pub fn binned_cut<T: Copy>(
    n: usize,
    item: impl Fn(usize) -> T,
    spare: &mut Vec<T>,
    depth: impl Fn(&T) -> f32,
    order: impl Fn(&T, &T) -> Ordering,
    weight: impl Fn(&T) -> u64,
    goal: u64,
) -> Option<T> {
    spare.clear();
    if n < FEW {
        spare.extend((0..n).map(item));
        return weighted_cut(spare, order, weight, goal);
    }
    let bin = |item: &T| ((depth(item) * BINS as f32) as usize).min(BINS - 1);
    let mut sums = [0u64; BINS];
    for item in (0..n).map(&item) {
        sums[bin(&item)] += weight(&item);
    }
    let (mut before, mut at) = (0, 0);
    // The last bin takes what never reaches the goal.
    while at < BINS - 1 && before + sums[at] < goal {
        before += sums[at];
        at += 1;
    }
    spare.extend((0..n).map(&item).filter(|item| bin(item) == at && weight(item) > 0));
    weighted_cut(spare, order, weight, goal - before)
}
