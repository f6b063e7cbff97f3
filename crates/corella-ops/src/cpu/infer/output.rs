//! Where the sums of a product go.

use std::ops::Range;

use super::super::path::Path;
use super::super::shared::SharedMut;
use super::super::vectorized::vectorized;
#[cfg(target_arch = "x86_64")]
use super::super::{dot::settle, stream512};
use super::ahead;
use super::layout::{COLUMNS, VECTOR};
use crate::contract_infer::Store;

/// The output of all layers of a call (N, width), written by tasks.
pub struct Output<'a> {
    path: Path,
    out: SharedMut<'a>,
    width: usize,
    store: Store,
    /// Whether it passes the caches by.
    streams: bool,
}

/// Columns of the output that belong to a pair of panels.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The first.
    pub column: usize,
    /// How many there are: the last pair of a layer may have fewer than others.
    pub width: usize,
    /// (width).
    pub bias: Option<&'a [f32]>,
}

impl<'a> Output<'a> {
    /// The first `n` rows of `out`.
    pub fn new(path: Path, out: &'a mut [f32], n: usize, width: usize, store: Store) -> Output<'a> {
        #[cfg(target_arch = "x86_64")]
        let streams = store == Store::Write && stream512::streams(path, &out[..n * width], width);
        #[cfg(not(target_arch = "x86_64"))]
        let (streams, _) = (false, n);
        Output { path, out: SharedMut::new(out), width, store, streams }
    }

    /// Asks for the lines of some rows of a place, if they will be written through the caches.
    pub fn ask(&self, place: &Place<'_>, rows: Range<usize>) {
        if !self.streams {
            for row in rows {
                let line = self.out.address(row * self.width + place.column).cast::<u8>();
                ahead::line_to_write(line);
                ahead::line_to_write(line.wrapping_add(VECTOR));
            }
        }
    }

    /// Brings sums (rows, columns) to a place that belongs to this task, from row `first` on.
    pub fn store(&self, place: &Place<'_>, first: usize, sums: &[[f32; COLUMNS]]) {
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: columns of this task's pair in one of its rows.
            let out = unsafe { self.out.part((first + r) * self.width + place.column, place.width) };
            #[cfg(target_arch = "x86_64")]
            if self.streams && place.width == COLUMNS && out.as_ptr().addr().is_multiple_of(VECTOR) {
                // SAFETY: 512-bit vectors (`streams`), and whole lines.
                unsafe { stream512::row(out, sums, place.bias.unwrap_or_default()) };
                continue;
            }
            match out.first_chunk_mut() {
                Some(whole) => {
                    let bias = place.bias.and_then(|bias| bias.first_chunk());
                    store_whole(self.path, whole, sums, bias, self.store);
                }
                None => store_row(out, sums, place.bias, self.store),
            }
        }
    }

    /// Ends a task: what went past the caches is seen by whoever sees that the task has ended.
    pub fn settle(&self) {
        #[cfg(target_arch = "x86_64")]
        if self.streams {
            settle();
        }
    }
}

vectorized! {
    /// [`store_row`] of a whole pair of panels.
    fn store_whole(out: &mut [f32; COLUMNS], sums: &[f32; COLUMNS], bias: Option<&[f32; COLUMNS]>, store: Store) {
        if let (None, Store::Write) = (bias, store) {
            *out = *sums;
        } else {
            store_row(out, sums, bias.map(|bias| bias.as_slice()), store);
        }
    }
}

/// out = sums (+ bias), or += if so said.
#[inline(always)]
fn store_row(out: &mut [f32], sums: &[f32; COLUMNS], bias: Option<&[f32]>, store: Store) {
    match (bias, store) {
        (None, Store::Write) => out.copy_from_slice(&sums[..out.len()]),
        (None, Store::Add) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        (Some(bias), store) => {
            for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                *out = if store == Store::Add { *out + (sum + bias) } else { sum + bias };
            }
        }
    }
}
