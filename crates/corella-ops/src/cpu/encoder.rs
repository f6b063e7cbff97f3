//! Embeddings of tokens, with or without those of positions.

use super::bf16::Number;
use super::param::Weight;
use super::pool::Pool;
use super::rows::{by_columns, by_rows};
use super::shared::SharedMut;
use crate::contract::{EmbeddingDims, EncoderDims};

/// See [`crate::OpsTrain::encoder`].
pub fn forward<O: Number>(pool: &Pool, out: &mut [O], ids: &[u32], wte: Weight<'_>, wpe: Weight<'_>, d: EncoderDims) {
    by_rows(pool, out, d.b * d.t, d.c, |first, _, out| {
        let (mut token, mut position) = (vec![0.0; d.c], vec![0.0; d.c]);
        for (i, out) in out.chunks_exact_mut(d.c).enumerate() {
            let row = first + i;
            wte.row(ids[row] as usize, &mut token);
            wpe.row(d.pos0 + row % d.t, &mut position);
            for ((out, token), position) in out.iter_mut().zip(&token).zip(&position) {
                *out = O::put(token + position);
            }
        }
    });
}

/// See [`crate::OpsTrain::encoder_grad`]. Blocks of columns, so that equal tokens add up in the order of the rows.
pub fn backward<D: Number>(pool: &Pool, dwte: &mut [f32], dwpe: &mut [f32], dout: &[D], ids: &[u32], d: EncoderDims) {
    let (dwte, dwpe) = (SharedMut::new(dwte), SharedMut::new(dwpe));
    by_columns(pool, d.c, |first, columns| {
        for row in 0..d.b * d.t {
            let dout = &dout[row * d.c + first..][..columns];
            let (token, position) = (ids[row] as usize, d.pos0 + row % d.t);
            // SAFETY: these columns belong to this task in every row, and the two parts are of different arrays.
            let (a, b) =
                unsafe { (dwte.part(token * d.c + first, columns), dwpe.part(position * d.c + first, columns)) };
            for ((a, b), dout) in a.iter_mut().zip(b).zip(dout) {
                *a += dout.get();
                *b += dout.get();
            }
        }
    });
}

/// See [`crate::OpsTrain::embedding`].
pub fn tokens<O: Number>(pool: &Pool, out: &mut [O], ids: &[u32], wte: Weight<'_>, d: EmbeddingDims) {
    by_rows(pool, out, d.n, d.c, |first, _, out| {
        let mut token = vec![0.0; d.c];
        for (out, id) in out.chunks_exact_mut(d.c).zip(&ids[first..]) {
            wte.row(*id as usize, &mut token);
            out.iter_mut().zip(&token).for_each(|(out, token)| *out = O::put(*token));
        }
    });
}

/// See [`crate::OpsTrain::embedding_grad`].
pub fn tokens_grad<D: Number>(pool: &Pool, dwte: &mut [f32], dout: &[D], ids: &[u32], d: EmbeddingDims) {
    let dwte = SharedMut::new(dwte);
    by_columns(pool, d.c, |first, columns| {
        for (row, id) in ids.iter().enumerate().take(d.n) {
            // SAFETY: these columns belong to this task in every row.
            let sums = unsafe { dwte.part(*id as usize * d.c + first, columns) };
            for (sum, dout) in sums.iter_mut().zip(&dout[row * d.c + first..]) {
                *sum += dout.get();
            }
        }
    });
}
