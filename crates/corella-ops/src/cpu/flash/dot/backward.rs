//! The backward pass in bfloat16.

use std::ops::Range;

use super::softmax::{Grads, Known, Sight, score_grads};
use super::{KEYS, Left, PANELS, QUERIES, Tiles, multiply, seen};
use crate::cpu::bf16::Bf16;
use crate::cpu::buf::numbers;
use crate::cpu::dot::{DotKernel, NR, PackedRight, STEP};
use crate::cpu::flash::backward::Inputs;
use crate::cpu::flash::{Part, SharedBuf, ahead, at, padded};
use crate::cpu::gemm::Workers;
use crate::cpu::math::sum2;
use crate::cpu::pack::{Operand, pack};
use crate::cpu::path::Path;
use crate::cpu::scratch::Scratch;
use crate::cpu::vectorized::vectorized;

/// Keys and values of a task, and their gradients.
struct Keys {
    range: Range<usize>,
    /// k and v as rows, and k turned: (hs, keys).
    k: Tiles,
    v: Tiles,
    k_turned: Tiles,
    /// (hs/NR, keys, NR).
    dk: Scratch,
    dv: Scratch,
    /// Numbers of a panel of dk or dv.
    panel: usize,
}

/// As [`crate::cpu::flash::backward::keys_grad`].
pub fn keys_grad<K: DotKernel>(
    path: Path,
    inputs: &Inputs<'_>,
    (qkv, dout): (&[Bf16], &[Bf16]),
    range: Range<usize>,
    dqkv: &SharedBuf<'_>,
    put: &impl Fn(usize, usize, &[f32]),
) {
    let Inputs { d, b, kv_head, .. } = *inputs;
    let (n, hs) = (range.len(), d.hs);
    if n == 0 {
        return;
    }
    let [k, v] = [Part::K, Part::V].map(|part| &qkv[at(d, part, b, range.start, kv_head)..]);
    let panel = n.next_multiple_of(KEYS) * NR;
    let panels = hs.div_ceil(NR);
    let mut keys = Keys {
        k: Tiles::new::<K>(Operand::rows(k, d.qkv()), n, hs),
        v: Tiles::new::<K>(Operand::rows(v, d.qkv()), n, hs),
        k_turned: Tiles::new::<K>(Operand::columns(k, d.qkv()), hs, n),
        dk: Scratch::new(panels * panel),
        dv: Scratch::new(panels * panel),
        panel,
        range,
    };
    keys.dk.fill(0.0);
    keys.dv.fill(0.0);
    let mut work = Work::new::<K>(hs);
    // SAFETY: the path exists only after the kernel's features were detected and permitted.
    unsafe { K::begin() };
    for head in kv_head * d.group()..(kv_head + 1) * d.group() {
        for t0 in (keys.range.start / QUERIES * QUERIES..d.t).step_by(QUERIES) {
            let block = QueryBlock::new(path, inputs, (qkv, dout), t0, head);
            // SAFETY: begun above.
            unsafe { work.add_grads::<K>(&block, &mut keys, hs) };
            work.put_queries(path, &block, hs, padded(d), |t, row| put(t, head, row));
        }
    }
    // SAFETY: begun above.
    unsafe { K::end() };
    for (part, grads) in [(Part::K, &keys.dk), (Part::V, &keys.dv)] {
        for (i, panel) in grads.chunks_exact(keys.panel).enumerate() {
            let width = NR.min(hs - i * NR);
            for (s, row) in panel.chunks_exact(NR).enumerate().take(n) {
                let at = at(d, part, b, keys.range.start + s, kv_head) + i * NR;
                // SAFETY: this head's columns of these keys, which no other task writes.
                unsafe { dqkv.put(path, at, &row[..width], 1.0) };
            }
        }
    }
}

/// A block of queries of one head, both ways round.
struct QueryBlock {
    t0: usize,
    rows: usize,
    /// q and dout with queries outside (panels of queries, steps of hs), and with hs outside.
    q: PackedRight,
    dout: PackedRight,
    q_turned: PackedRight,
    dout_turned: PackedRight,
    known: [Known; PANELS],
}

impl QueryBlock {
    fn new(path: Path, from: &Inputs<'_>, (qkv, dout): (&[Bf16], &[Bf16]), t0: usize, head: usize) -> QueryBlock {
        let (d, hs) = (from.d, from.d.hs);
        let rows = QUERIES.min(d.t - t0);
        let at_out = (from.b * d.t + t0) * d.c() + head * hs;
        let (q, dout) = (&qkv[at(d, Part::Q, from.b, t0, head)..], &dout[at_out..]);
        let mut known = std::array::from_fn(|_| Known { lse: [0.0; NR], mean: [0.0; NR] });
        let lse = &from.lse[(from.b * d.nh + head) * d.t + t0..][..rows];
        numbers!([out = from.out] {
            for (i, lse) in lse.iter().enumerate() {
                let at = at_out + i * d.c();
                // The next block of each.
                ahead(out, at + QUERIES * d.c(), hs);
                ahead(dout, (i + QUERIES) * d.c(), hs);
                ahead(q, (i + QUERIES) * d.qkv(), hs);
                let known: &mut Known = &mut known[i / NR];
                known.lse[i % NR] = lse * std::f32::consts::LOG2_E;
                known.mean[i % NR] = dot(path, &dout[i * d.c()..][..hs], &out[at..][..hs]);
            }
        });
        let rows_of = |x, width| PackedRight::new(Workers::Caller, Operand::rows(x, width), rows, hs);
        let columns_of = |x, width| PackedRight::new(Workers::Caller, Operand::columns(x, width), hs, rows);
        QueryBlock {
            t0,
            rows,
            q: rows_of(q, d.qkv()),
            dout: rows_of(dout, d.c()),
            q_turned: columns_of(q, d.qkv()),
            dout_turned: columns_of(dout, d.c()),
            known,
        }
    }
}

/// Arrays of a block of queries against a block of keys.
struct Work {
    /// (KEYS, NR).
    scores: Scratch,
    dp: Scratch,
    /// (PANELS, KEYS, NR).
    p: Scratch<Bf16>,
    ds: Scratch<Bf16>,
    /// (KEYS/2, NR, 2).
    ds_pairs: Scratch<Bf16>,
    /// (PANELS, hs, NR), of which a panel has `dq_panel` numbers.
    dq: Scratch,
    dq_panel: usize,
}

impl Work {
    fn new<K: DotKernel>(hs: usize) -> Work {
        let [scores, dp] = std::array::from_fn(|_| Scratch::new(KEYS * NR));
        let [p, ds] = std::array::from_fn(|_| Scratch::new(PANELS * KEYS * NR));
        let dq_panel = hs.next_multiple_of(K::MR) * NR;
        Work { scores, dp, p, ds, ds_pairs: Scratch::new(KEYS * NR), dq: Scratch::new(PANELS * dq_panel), dq_panel }
    }

    /// dq = what the keys contribute to the block, and dk, dv += what the block contributes to the keys.
    ///
    /// # Safety
    /// [`DotKernel::begin`] was called on this thread.
    unsafe fn add_grads<K: DotKernel>(&mut self, block: &QueryBlock, keys: &mut Keys, hs: usize) {
        let (hs_tiles, hs_steps) = (hs.div_ceil(K::MR), hs.div_ceil(STEP));
        let scale = 1.0 / (hs as f32).sqrt();
        let panels = block.rows.div_ceil(NR);
        let start = keys.range.start;
        let end = keys.range.end.min(block.t0 + block.rows);
        for k0 in (start..end).step_by(KEYS) {
            let n = KEYS.min(end - k0);
            // Panels before this one see none of the keys.
            let first = (0..panels).find(|panel| seen(n, k0, block.t0 + panel * NR) > 0).unwrap_or(panels);
            for panel in first..panels {
                let t0 = block.t0 + panel * NR;
                let seen = seen(n, k0, t0);
                let (tiles, steps) = (seen.div_ceil(K::MR), seen.div_ceil(STEP));
                let sight = Sight { queries: NR.min(block.t0 + block.rows - t0), ahead: t0 as isize - k0 as isize };
                let place = panel * KEYS * NR..(panel + 1) * KEYS * NR;
                let grads = Grads {
                    p: &mut self.p[place.clone()],
                    ds: &mut self.ds[place],
                    ds_pairs: &mut self.ds_pairs[..steps * STEP * NR],
                };
                let (tile, step) = ((k0 - start) / K::MR, (k0 - start) / STEP);
                let dq = &mut self.dq[panel * self.dq_panel..][..self.dq_panel];
                // SAFETY: begun by the caller; these paths have the features of the softmax.
                unsafe {
                    multiply::<K>(
                        &mut self.scores,
                        keys.k.from(tile, 0),
                        block.q.panel(panel),
                        (tiles, hs_steps),
                        false,
                    );
                    multiply::<K>(
                        &mut self.dp,
                        keys.v.from(tile, 0),
                        block.dout.panel(panel),
                        (tiles, hs_steps),
                        false,
                    );
                    score_grads(&self.scores, &self.dp, grads, seen, sight, scale, &block.known[panel]);
                    let turned = keys.k_turned.from(0, step);
                    multiply::<K>(dq, turned, &self.ds_pairs, (hs_tiles, steps), k0 > start);
                }
            }
            let (tiles, steps) = (n.div_ceil(K::MR), panels - first);
            for (sums, a, b) in [(&mut keys.dv, &self.p, &block.dout_turned), (&mut keys.dk, &self.ds, &block.q_turned)]
            {
                let a = Left { data: &a[first * KEYS * NR..], tile: K::MR * STEP, step: KEYS * NR };
                for (i, sums) in sums.chunks_exact_mut(keys.panel).enumerate() {
                    let b = &b.panel(i)[first * STEP * NR..];
                    // SAFETY: begun by the caller.
                    unsafe { multiply::<K>(&mut sums[(k0 - start) * NR..], a, b, (tiles, steps), true) };
                }
            }
        }
    }

    /// Hands the rows of dq to `put(t, row)`.
    fn put_queries(&self, path: Path, block: &QueryBlock, hs: usize, row: usize, put: impl Fn(usize, &[f32])) {
        let mut turned = Scratch::new(NR * row);
        for (panel, dq) in self.dq.chunks_exact(self.dq_panel).enumerate().take(block.rows.div_ceil(NR)) {
            let rows = NR.min(block.rows - panel * NR);
            pack(path, row, &mut turned, Operand::rows(dq, NR), 0, hs, 0, rows);
            for (i, from) in turned.chunks_exact(row).enumerate().take(rows) {
                put(block.t0 + panel * NR + i, &from[..hs]);
            }
        }
    }
}

vectorized! {
    fn dot<A: Number, B: Number>(a: &[A], b: &[B]) -> f32 {
        sum2(a, b, |a, b| a.get() * b.get())
    }
}
