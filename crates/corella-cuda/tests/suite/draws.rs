//! Draws on the card are those of the engine's sampler.

use corella_cuda::Cuda;
use corella_infer::{SampleParams, Sampler, Sampling};
use corella_ops::cases::Random;
use corella_ops::{Draw, Dtype, Edit, OpsInfer, OpsTrain, Penalty};

/// Settings, alone and together.
fn settings() -> Vec<SampleParams> {
    let all =
        |temperature, top_k, top_p, min_p| SampleParams { temperature, top_k, top_p, min_p, ..SampleParams::default() };
    vec![
        all(0.0, None, None, None),
        all(1.0, None, None, None),
        all(0.7, Some(1), None, None),
        all(1.3, Some(40), None, None),
        all(1.0, Some(5000), None, None),
        all(1.0, None, Some(0.9), None),
        all(2.0, None, Some(0.3), None),
        all(0.8, None, Some(1e-6), None),
        all(1.0, None, None, Some(0.05)),
        all(1.0, None, None, Some(1.0)),
        all(0.9, Some(50), Some(0.95), Some(0.02)),
        all(1e-38, Some(3), Some(0.5), None),
        all(3e38, Some(20), Some(0.5), Some(0.5)),
    ]
}

/// Rows of logits that are hard to cut: many equal ones, impossible ones, far and near neighbours, nothing at all.
fn rows(v: usize) -> Vec<Vec<f32>> {
    let mut random = Random::new(v as u64);
    let normal: Vec<f32> = random.normals(v).iter().map(|x| 3.0 * x).collect();
    let coarse = normal.iter().map(|x| x.round()).collect();
    let near = random.normals(v).iter().map(|x| 17.0 + 1e-6 * x).collect();
    let some = normal.iter().enumerate().map(|(i, x)| if i % 3 == 0 { *x } else { f32::NEG_INFINITY }).collect();
    let far = normal.iter().map(|x| 40.0 * x).collect();
    vec![normal, coarse, near, some, far, vec![-2.5; v], vec![f32::NEG_INFINITY; v]]
}

fn edits(tokens: usize) -> Vec<Edit> {
    let id = |i: usize| (i * 7 % tokens) as u32;
    let penalty = Penalty { repetition: 1.3, taken: 0.7 };
    let none = Edit { id: 0, bias: None, penalty: None, forbidden: false };
    vec![
        Edit { id: id(0), bias: Some(4.25), ..none },
        Edit { id: id(1), bias: Some(-1.1), penalty: Some(penalty), ..none },
        Edit { id: id(2), penalty: Some(Penalty { taken: 0.0, ..penalty }), ..none },
        Edit { id: id(3), bias: Some(100.0), forbidden: true, ..none },
    ]
}

/// Every setting on every row, with and without edits, all in one call: the sampler's tokens.
pub fn draws_are_the_samplers(ops: &Cuda, v: usize) {
    let (rows, mut random) = (rows(v), 0x9e37_79b9_7f4a_7c15u64);
    let mut sampler = Sampler::default();
    let (mut flat, mut draws, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for params in settings() {
        for (i, logits) in rows.iter().enumerate() {
            random = random.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
            // Of every other row the last tokens are padding.
            let tokens = if i % 2 == 0 { v } else { v - 1 };
            let edits = if draws.len() % 3 == 1 { edits(tokens) } else { Vec::new() };
            let SampleParams { temperature, top_k, top_p, min_p, .. } = params;
            let draw = Draw { tokens, edits, temperature, top_k, top_p, min_p, bits: random };
            let mut changed = logits[..tokens].to_vec();
            draw.edits.iter().for_each(|edit| changed[edit.id as usize] = edit.apply(changed[edit.id as usize]));
            let sampling = Sampling::new(params.clone(), v).expect("valid");
            expected.push(sampler.distribution(&changed, &sampling).pick(random));
            flat.extend_from_slice(logits);
            draws.push(draw);
        }
    }
    let mut logits = ops.buf(flat.len(), Dtype::F32, "logits").expect("memory");
    ops.write(&mut logits, &flat);
    let list: Vec<(usize, &Draw)> = draws.iter().enumerate().collect();
    let found = ops.draw(&mut logits, v, &list).expect("a backend that draws");
    for ((draw, found), expected) in draws.iter().zip(&found).zip(&expected) {
        assert_eq!(*found, Some(*expected), "{v} tokens: {draw:?}");
    }
}

/// Twenty draws from one row go through the weights evenly, to the last one.
pub fn the_whole_range_of_bits_is_used(ops: &Cuda) {
    let v = 1500;
    let mut logits = ops.buf(v, Dtype::F32, "logits").expect("memory");
    ops.write(&mut logits, &vec![0.5; v]);
    let bits = (0..20u64).map(|i| i * (u64::MAX / 19)).collect::<Vec<_>>();
    let draw = |bits| Draw { tokens: v, edits: vec![], temperature: 1.0, top_k: None, top_p: None, min_p: None, bits };
    let draws: Vec<Draw> = bits.iter().map(|bits| draw(*bits)).collect();
    let list: Vec<(usize, &Draw)> = draws.iter().map(|draw| (0, draw)).collect();
    let found = ops.draw(&mut logits, v, &list).expect("a backend that draws");
    let expected: Vec<_> = bits.iter().map(|bits| Some(((u128::from(*bits) * v as u128) >> 64) as u32)).collect();
    assert_eq!(found, expected);
}

/// A row that is not numbers has no token, whatever the settings and whatever its first logit is changed to; the rows beside it
/// have theirs.
pub fn a_row_that_is_not_numbers_has_no_token(ops: &Cuda) {
    let v = 97;
    let edited = [Vec::new(), vec![Edit { id: 0, bias: Some(1.0), penalty: None, forbidden: true }]];
    let of = |params: &SampleParams, edits: &Vec<Edit>| {
        let SampleParams { temperature, top_k, top_p, min_p, .. } = *params;
        Draw { tokens: v, edits: edits.clone(), temperature, top_k, top_p, min_p, bits: 1 << 63 }
    };
    let draws: Vec<Draw> = settings().iter().flat_map(|params| edited.iter().map(move |e| of(params, e))).collect();
    let rows = draws.iter().enumerate().flat_map(|(i, _)| vec![if i % 4 < 2 { f32::NAN } else { 0.5 }; v]);
    let mut logits = ops.buf(draws.len() * v, Dtype::F32, "logits").expect("memory");
    ops.write(&mut logits, &rows.collect::<Vec<_>>());
    let list: Vec<(usize, &Draw)> = draws.iter().enumerate().collect();
    let found = ops.draw(&mut logits, v, &list).expect("a backend that draws");
    let broken: Vec<bool> = found.iter().map(Option::is_none).collect();
    assert_eq!(broken, (0..draws.len()).map(|i| i % 4 < 2).collect::<Vec<_>>());
}
