//! Attention for training.

use std::ffi::c_void;

use corella_ops::cases::Random;
use corella_ops::quant::half::{bf16_to_f32, f32_to_bf16};
use corella_ops::reference::Reference;
use corella_ops::{AttentionDims, OpsTrain};

use crate::apart::apart;
use crate::emulator::{Kernels, Memory, kernels, launch};

/// As `Heads` in attention.cu.
#[repr(C)]
struct Heads {
    t: i32,
    nh: i32,
    nkv: i32,
}

/// As `Array` in common.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
struct Array {
    data: *mut c_void,
    is_bf16: u32,
    unused: u32,
}

/// As `View` in attention_plain.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct View {
    array: Array,
    offset: u64,
    width: u64,
}

/// As `PlainHeads` in attention_plain.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct PlainHeads {
    b: i32,
    t: i32,
    nh: i32,
    nkv: i32,
    hs: i32,
    keys: i32,
    pos0: i32,
}

struct Inputs {
    qkv: Vec<f32>,
    dout: Vec<f32>,
}

impl Inputs {
    fn new(d: AttentionDims) -> Inputs {
        let mut random = Random::new((d.t + d.hs) as u64);
        let mut numbers = |len| random.normals(len).iter().map(|x| bf16_to_f32(f32_to_bf16(*x))).collect();
        Inputs { qkv: numbers(d.b * d.t * d.qkv()), dout: numbers(d.b * d.t * d.c()) }
    }
}

/// out, lse, dqkv.
type Outputs = [Vec<f32>; 3];

fn expected(d: AttentionDims, inputs: &Inputs) -> Outputs {
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (qkv, dout) = (wide(&inputs.qkv), wide(&inputs.dout));
    let (mut out, mut lse, mut dqkv) = (vec![0.0; dout.len()], vec![0.0; d.b * d.t * d.nh], vec![0.0; qkv.len()]);
    Reference.attention(&mut out, &mut lse, &qkv, d);
    Reference.attention_grad(&mut dqkv, &dout, &out, &qkv, &lse, d);
    [out, lse, dqkv].map(|x| x.iter().map(|x| *x as f32).collect())
}

/// Elements may be off by `tolerance` times the largest of their array.
fn compare(got: &Outputs, expected: &Outputs, tolerance: f32, what: &str) {
    for ((got, expected), name) in got.iter().zip(expected).zip(["out", "lse", "dqkv"]) {
        let scale = expected.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
        for (i, (g, e)) in got.iter().zip(expected).enumerate() {
            assert!((g - e).abs() <= tolerance * scale, "{what}: element {i} of {name} is {g} instead of {e}");
        }
    }
}

/// Queries or keys of a block, and of a tile that passes by, as at the end of attention.cu, and in attention_blocks.cu.
fn tiles(hs: usize, by_blocks: bool) -> [(&'static str, u32, u32); 3] {
    if by_blocks {
        [
            ("attention_blocks", 64, 64),
            ("attention_blocks_grad_queries", 64, 64),
            ("attention_blocks_grad_keys", 64, 64),
        ]
    } else if hs == 64 {
        [("attention_64", 128, 64), ("attention_grad_queries_64", 128, 32), ("attention_grad_keys_64", 64, 64)]
    } else {
        [("attention_128", 64, 64), ("attention_grad_queries_128", 64, 32), ("attention_grad_keys_128", 64, 32)]
    }
}

fn delta(
    plain: &'static Kernels,
    d: AttentionDims,
    dout: &Memory,
    out: &Memory,
    is_bf16: u32,
    backwards: bool,
) -> Memory {
    let delta = plain.f32(&vec![f32::NAN; d.b * d.nh * d.t]);
    let heads = plain_heads(d);
    let view = |m: &Memory| View { array: Array { data: m.at, is_bf16, unused: 0 }, offset: 0, width: d.c() as u64 };
    let grid = [((d.b * d.nh * d.t) as u32).div_ceil(4), 1, 1];
    launch!(plain, "attention_delta", (grid, 128, 0), backwards, delta.at, view(dout), view(out), heads)
        .expect("delta");
    delta
}

fn plain_heads(d: AttentionDims) -> PlainHeads {
    let [b, t, nh, nkv, hs] = [d.b, d.t, d.nh, d.nkv, d.hs].map(|x| x as i32);
    PlainHeads { b, t, nh, nkv, hs, keys: t, pos0: 0 }
}

fn on_tensor_cores(d: AttentionDims, inputs: &Inputs, by_blocks: bool, backwards: bool) -> Option<Outputs> {
    let file = if by_blocks { "attention_blocks.cu" } else { "attention.cu" };
    let (fast, plain) = (kernels(file)?, kernels("attention_plain.cu")?);
    let [forward, queries, keys] = tiles(d.hs, by_blocks);
    let heads = Heads { t: d.t as i32, nh: d.nh as i32, nkv: d.nkv as i32 };
    let (qkv, dout) = (fast.bf16(&inputs.qkv), fast.bf16(&inputs.dout));
    let out = fast.bf16(&vec![f32::NAN; inputs.dout.len()]);
    let lse = fast.f32(&vec![f32::NAN; d.b * d.nh * d.t]);
    let dqkv = fast.bf16(&vec![f32::NAN; inputs.qkv.len()]);
    let grid = |rows: u32, heads: usize| [(d.t as u32).div_ceil(rows), heads as u32, d.b as u32];
    let bytes = |held: u32, block: u32, tile: u32| ((held * block + 4 * tile) as usize) * d.hs * 2;
    let shape = (grid(forward.1, d.nh), 128, bytes(1, forward.1, forward.2));
    launch!(fast, forward.0, shape, backwards, out.at, lse.at, qkv.at, heads).expect("forward");
    let of_queries = (grid(queries.1, d.nh), 128, bytes(2, queries.1, queries.2));
    let of_keys = (grid(keys.1, d.nkv), 128, bytes(2, keys.1, keys.2) + 16 * keys.2 as usize);
    let (queries, keys) = (queries.0, keys.0);
    if by_blocks {
        let sums = fast.f32(&vec![f32::NAN; d.b * d.t.div_ceil(64) * d.qkv()]);
        let delta = fast.f32(&vec![f32::NAN; d.b * d.nh * d.t]);
        let [dqkv, sums, delta, dout, out, qkv, lse] = [&dqkv, &sums, &delta, &dout, &out, &qkv, &lse].map(|m| m.at);
        launch!(fast, queries, of_queries, backwards, dqkv, sums, delta, dout, out, qkv, lse, heads).expect("dq");
        launch!(fast, keys, of_keys, backwards, dqkv, sums, dout, qkv, lse, delta, heads).expect("dk, dv");
    } else {
        let delta = delta(plain, d, &dout, &out, 1, backwards);
        let [dqkv, dout, qkv, lse, delta] = [&dqkv, &dout, &qkv, &lse, &delta].map(|m| m.at);
        launch!(fast, queries, of_queries, backwards, dqkv, dout, qkv, lse, delta, heads).expect("dq");
        launch!(fast, keys, of_keys, backwards, dqkv, dout, qkv, lse, delta, heads).expect("dk, dv");
    }
    Some([out.read_bf16(), lse.read_f32(), dqkv.read_bf16()])
}

fn plainly(d: AttentionDims, inputs: &Inputs, is_bf16: u32, backwards: bool) -> Option<Outputs> {
    let plain = kernels("attention_plain.cu")?;
    let make = |x: &[f32]| if is_bf16 == 1 { plain.bf16(x) } else { plain.f32(x) };
    let (qkv, dout) = (make(&inputs.qkv), make(&inputs.dout));
    let (out, dqkv) = (make(&vec![f32::NAN; inputs.dout.len()]), make(&vec![f32::NAN; inputs.qkv.len()]));
    let lse = plain.f32(&vec![f32::NAN; d.b * d.nh * d.t]);
    let heads = plain_heads(d);
    let part = |m: &Memory, head: usize, width: usize| View {
        array: Array { data: m.at, is_bf16, unused: 0 },
        offset: (head * d.hs) as u64,
        width: width as u64,
    };
    let of = |m: &Memory| [0, d.nh, d.nh + d.nkv].map(|head| part(m, head, d.qkv()));
    let ([q, k, v], [dq, dk, dv]) = (of(&qkv), of(&dqkv));
    let tasks = |heads: usize| [((d.b * heads * d.t) as u32).div_ceil(4), 1, 1];
    let row = |m: &Memory| part(m, 0, d.c());
    launch!(plain, "attention_plain", (tasks(d.nh), 128, 0), backwards, row(&out), lse.at, q, k, v, heads)
        .expect("out");
    let delta = delta(plain, d, &dout, &out, is_bf16, backwards);
    let shape = (tasks(d.nh), 128, 0);
    launch!(plain, "attention_plain_grad_queries", shape, backwards, dq, row(&dout), q, k, v, lse.at, delta.at, heads)
        .expect("dq");
    let shape = (tasks(d.nkv), 128, 0);
    launch!(plain, "attention_plain_grad_keys", shape, backwards, dk, dv, row(&dout), q, k, v, lse.at, delta.at, heads)
        .expect("dk, dv");
    let read = |m: &Memory| if is_bf16 == 1 { m.read_bf16() } else { m.read_f32() };
    Some([read(&out), lse.read_f32(), read(&dqkv)])
}

/// Shapes as in the shared cases: a part of a tile, a tile and one more, several blocks, grouped heads, several sequences.
#[test]
fn tensor_cores_agree_with_the_reference() {
    apart(|| {
        for (b, t, nh, nkv, hs) in [
            (1, 1, 1, 1, 64),
            (2, 31, 2, 2, 64),
            (1, 65, 3, 1, 64),
            (1, 200, 2, 1, 64),
            (2, 129, 1, 1, 64),
            (1, 17, 1, 1, 128),
            (1, 130, 4, 2, 128),
        ] {
            let d = AttentionDims { b, t, nh, nkv, hs };
            let inputs = Inputs::new(d);
            let expected = expected(d, &inputs);
            for by_blocks in [false, true].into_iter().filter(|by_blocks| hs == 64 || !by_blocks) {
                let Some(got) = on_tensor_cores(d, &inputs, by_blocks, false) else { return };
                compare(&got, &expected, 6e-3, &format!("{d:?}, by blocks: {by_blocks}"));
                assert_eq!(
                    Some(got),
                    on_tensor_cores(d, &inputs, by_blocks, true),
                    "{d:?}: the order of threads and blocks"
                );
            }
        }
    });
}

#[test]
fn plain_kernels_agree_with_the_reference() {
    apart(|| {
        for (b, t, nh, nkv, hs) in
            [(2, 7, 3, 3, 8), (1, 50, 2, 1, 17), (2, 33, 6, 2, 16), (1, 70, 2, 1, 128), (1, 40, 1, 1, 256)]
        {
            let d = AttentionDims { b, t, nh, nkv, hs };
            let inputs = Inputs::new(d);
            for (is_bf16, tolerance) in [(0, 5e-6), (1, 6e-3)] {
                let Some(got) = plainly(d, &inputs, is_bf16, false) else { return };
                compare(&got, &expected(d, &inputs), tolerance, &format!("{d:?}"));
                assert_eq!(Some(got), plainly(d, &inputs, is_bf16, true), "{d:?}: the order of threads and blocks");
            }
        }
    });
}
