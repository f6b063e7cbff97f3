//! The forward pass in bfloat16.

use std::ops::Range;

use super::softmax::{Sight, State, exponentials};
use super::{KEYS, PANELS, QUERIES, Tiles, multiply, seen};
use crate::cpu::bf16::Bf16;
use crate::cpu::dot::{DotKernel, NR, PackedRight, STEP};
use crate::cpu::flash::forward::{Output, Place};
use crate::cpu::flash::{Part, at};
use crate::cpu::gemm::Workers;
use crate::cpu::pack::Operand;
use crate::cpu::scratch::Scratch;

/// Some blocks of queries of a head.
pub fn run_of_queries<K: DotKernel>(output: &Output<'_>, qkv: &[Bf16], place: Place, queries: Range<usize>) {
    let (d, hs, end) = (output.d, output.d.hs, queries.end);
    let Place { b, head } = place;
    let scale = std::f32::consts::LOG2_E / (hs as f32).sqrt();
    let k = Tiles::new::<K>(Operand::rows(&qkv[at(d, Part::K, b, 0, head / d.group())..], d.qkv()), end, hs);
    let v = Tiles::new::<K>(Operand::columns(&qkv[at(d, Part::V, b, 0, head / d.group())..], d.qkv()), hs, end);
    let (hs_tiles, hs_steps) = (hs.div_ceil(K::MR), hs.div_ceil(STEP));
    let out_len = hs_tiles * K::MR * NR;
    let (mut scores, mut p) = (Scratch::<f32>::new(KEYS * NR), Scratch::<Bf16>::new(KEYS * NR));
    let mut sums = Scratch::<f32>::new(PANELS * out_len);
    // SAFETY: the path exists only after the kernel's features were detected and permitted.
    unsafe { K::begin() };
    for t0 in queries.step_by(QUERIES) {
        let rows = QUERIES.min(d.t - t0);
        let q =
            PackedRight::new(Workers::Caller, Operand::rows(&qkv[at(d, Part::Q, b, t0, head)..], d.qkv()), rows, hs);
        let panels = rows.div_ceil(NR);
        let mut states: [State; PANELS] = std::array::from_fn(|_| State::new());
        for k0 in (0..t0 + rows).step_by(KEYS) {
            let n = KEYS.min(t0 + rows - k0);
            for (panel, state) in states.iter_mut().enumerate().take(panels) {
                let t0 = t0 + panel * NR;
                let seen = seen(n, k0, t0);
                if seen == 0 {
                    continue;
                }
                let (tiles, steps) = (seen.div_ceil(K::MR), seen.div_ceil(STEP));
                let sums = &mut sums[panel * out_len..][..out_len];
                let p = &mut p[..steps * STEP * NR];
                let sight = Sight { queries: NR.min(d.t - t0), ahead: t0 as isize - k0 as isize };
                // SAFETY: begun above; these paths have the features of the softmax.
                unsafe {
                    multiply::<K>(&mut scores, k.from(k0 / K::MR, 0), q.panel(panel), (tiles, hs_steps), false);
                    let earlier = if k0 > 0 { &mut sums[..] } else { &mut [] };
                    exponentials(&scores, p, seen, sight, scale, state, earlier);
                    multiply::<K>(sums, v.from(0, k0 / STEP), p, (hs_tiles, steps), k0 > 0);
                }
            }
        }
        for (panel, state) in states.iter().enumerate().take(panels) {
            let (first, sums) = (t0 + panel * NR, &sums[panel * out_len..][..out_len]);
            // SAFETY: these queries of this head belong to this task.
            unsafe { output.put(place, first, NR.min(d.t - first), sums, &state.max, &state.total) };
        }
    }
    // SAFETY: begun above.
    unsafe { K::end() };
}
