//! Cosines and sines of rotary angles. A position's are computed when it is first stepped over and then kept: a prompt of 2,048
//! tokens needs 262,144 of them in f64, some 5 ms of one thread before the card has anything to do, and the next prompt, or the
//! next step of another sequence, needs the same ones.

use std::sync::{Mutex, PoisonError};

use corella_ops::RowAt;

use crate::parallel::in_parallel;

/// Most words that are kept, 64 MiB of the host's memory: 131,072 positions of heads of 128, which is the whole context of Llama 3.1.
/// The angles of positions behind that are computed again for each step that has them.
const MOST_WORDS: usize = 16 << 20;
/// Pairs that a thread computes at once, some 0.1 ms: less is not worth starting a thread.
const PAIRS_OF_A_JOB: usize = 4096;

/// The angles of positions for one set of frequencies. Memory is taken up to the largest position that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Angles(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Radians per position of each pair, as bits.
    frequencies: Vec<u32>,
    /// (positions, 2·pairs), and which positions stand there.
    table: Vec<u32>,
    there: Vec<bool>,
}

/// The cosines of a position's pairs, then the sines, as bits of f32.
fn turned(position: u32, frequencies: &[f32], out: &mut [u32]) {
    let (cosines, sines) = out.split_at_mut(frequencies.len());
    for ((f, cosine), sine) in frequencies.iter().zip(cosines).zip(sines) {
        let (s, c) = f64::from(position as f32 * f).sin_cos();
        *cosine = (c as f32).to_bits();
        *sine = (s as f32).to_bits();
    }
}

/// The same for many positions (positions, 2·pairs), by several threads where that pays.
fn turned_all(positions: &[u32], frequencies: &[f32]) -> Vec<u32> {
    let width = 2 * frequencies.len();
    let of_some = |positions: &[u32]| {
        let mut words = vec![0; positions.len() * width];
        for (position, out) in positions.iter().zip(words.chunks_exact_mut(width)) {
            turned(*position, frequencies, out);
        }
        words
    };
    let jobs: Vec<&[u32]> = positions.chunks((PAIRS_OF_A_JOB / frequencies.len()).max(1)).collect();
    match jobs[..] {
        [] => Vec::new(),
        [all] => of_some(all),
        _ => in_parallel(&jobs, |positions| of_some(positions)).concat(),
    }
}

impl Angles {
    /// Appends the angles of each row (rows, 2·pairs) to `words`: cosines, then sines, as bits of f32.
    pub fn append(&self, words: &mut Vec<u32>, rows: &[RowAt], frequencies: &[f32]) {
        if frequencies.is_empty() {
            return;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(words, rows, frequencies, MOST_WORDS);
    }
}

impl Known {
    fn append(&mut self, words: &mut Vec<u32>, rows: &[RowAt], frequencies: &[f32], most_words: usize) {
        let width = 2 * frequencies.len();
        if !self.frequencies.iter().copied().eq(frequencies.iter().map(|f| f.to_bits())) {
            let frequencies = frequencies.iter().map(|f| f.to_bits()).collect();
            *self = Known { frequencies, ..Known::default() };
        }
        // Every new position once, in ascending order.
        let is_there = |there: &[bool], position: u32| there.get(position as usize) == Some(&true);
        let mut new: Vec<u32> = rows.iter().map(|row| row.position).filter(|p| !is_there(&self.there, *p)).collect();
        new.sort_unstable();
        new.dedup();
        let numbers = turned_all(&new, frequencies);
        let kept = new.partition_point(|position| (*position as usize) < most_words / width);
        if let Some(last) = new[..kept].last() {
            let positions = self.there.len().max(*last as usize + 1);
            self.there.resize(positions, false);
            self.table.resize(positions * width, 0);
        }
        for (position, numbers) in new[..kept].iter().zip(numbers.chunks_exact(width)) {
            let at = *position as usize;
            self.there[at] = true;
            self.table[at * width..][..width].copy_from_slice(numbers);
        }
        for row in rows {
            let at = row.position as usize;
            words.extend_from_slice(match new[kept..].binary_search(&row.position) {
                Ok(found) => &numbers[(kept + found) * width..][..width],
                Err(_) => &self.table[at * width..][..width],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(positions: &[u32]) -> Vec<RowAt> {
        positions.iter().map(|position| RowAt { sequence: 0, position: *position }).collect()
    }

    /// The angle in f32, its cosine and sine in f64, each rounded once: cosines of a row, then sines.
    fn expected(positions: &[u32], frequencies: &[f32]) -> Vec<u32> {
        let mut out = Vec::new();
        for p in positions {
            let angles: Vec<f64> = frequencies.iter().map(|f| f64::from(*p as f32 * f)).collect();
            out.extend(angles.iter().map(|x| (x.cos() as f32).to_bits()));
            out.extend(angles.iter().map(|x| (x.sin() as f32).to_bits()));
        }
        out
    }

    fn frequencies(pairs: usize, base: f32) -> Vec<f32> {
        (0..pairs).map(|i| base.powf(-(i as f32) / pairs as f32)).collect()
    }

    /// New positions and known ones, in any order and twice, few and so many that threads share them, and other frequencies.
    #[test]
    fn angles_are_those_of_each_row_whatever_came_before() {
        let (whole, half, other) = (frequencies(64, 5e5), frequencies(32, 1e4), frequencies(32, 1e6));
        let many: Vec<u32> = (0..1000).rev().collect();
        let known = Angles::default();
        for f in [&whole, &half, &other, &whole] {
            for positions in [&[5, 3, 5][..], &[4], &many, &[999, 100_000, 0, 131_071], &[]] {
                let mut words = vec![7];
                known.append(&mut words, &rows(positions), f);
                assert_eq!(words[0], 7);
                assert!(words[1..] == expected(positions, f), "{} pairs, {} rows", f.len(), positions.len());
            }
        }
        let mut words = Vec::new();
        known.append(&mut words, &rows(&[1, 2]), &[]);
        assert!(words.is_empty(), "without rotary positions there is nothing");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let f = frequencies(4, 1e4);
        let (mut known, mut words) = (Known::default(), Vec::new());
        let positions = [9, 10, 1 << 30, 3, 10, u32::MAX, 12];
        for _ in 0..2 {
            words.clear();
            known.append(&mut words, &rows(&positions), &f, 8 * 11);
            assert!(words == expected(&positions, &f));
            assert_eq!((known.table.len(), known.there.len()), (8 * 11, 11));
        }
    }
}
