//! What a draw costs, at the size of Llama 3's vocabulary: one thread does it while the others wait.

use corella_infer::{SampleParams, Sampler, Sampling};
use corella_ops::cases::Random;

use super::{Bench, Bound};
use crate::error::{Failure, Result};

/// Logits of a row.
const V: usize = 128_256;
/// Spread of the logits: that of a trained model, whose likeliest tokens stand far out.
const DEVIATION: f32 = 2.5;

/// The filters.
fn cases() -> [(&'static str, SampleParams); 8] {
    let plain = SampleParams::default();
    let all = SampleParams { temperature: 0.8, top_k: Some(50), top_p: Some(0.9), min_p: Some(0.05), ..plain.clone() };
    [
        ("greedy", SampleParams { temperature: 0.0, ..plain.clone() }),
        ("temperature 1", plain.clone()),
        ("temperature 0.8", SampleParams { temperature: 0.8, ..plain.clone() }),
        ("top-k 50", SampleParams { top_k: Some(50), ..plain.clone() }),
        ("top-p 0.9", SampleParams { top_p: Some(0.9), ..plain.clone() }),
        ("min-p 0.05", SampleParams { min_p: Some(0.05), ..plain.clone() }),
        ("typical-p 0.9", SampleParams { typical_p: Some(0.9), ..plain }),
        ("t, k, p, min-p", all),
    ]
}

/// The names of all.
pub fn names() -> Vec<String> {
    cases().into_iter().map(|(name, _)| format!("draw {name}")).chain(["top 20".to_owned()]).collect()
}

/// A draw with each of the filters.
pub fn run(bench: &mut Bench) -> Result<()> {
    let mut logits: Vec<f32> = Random::new(7).normals(V).iter().map(|x| DEVIATION * x).collect();
    for (i, logit) in logits[1000..1008].iter_mut().enumerate() {
        *logit = 20.0 - i as f32;
    }
    let mut sampler = Sampler::default();
    for (name, params) in cases() {
        let sampling = Sampling::new(params, V).map_err(Failure::new)?;
        let (bytes, mut position) = (4.0 * V as f64, 0);
        bench.time(
            &format!("draw {name}"),
            format!("{V} logits"),
            Bound::Memory(bytes),
            "4·V bytes of logits",
            |_| {
                position += 1;
                std::hint::black_box(sampler.distribution(&logits, &sampling).draw(1, 0, position));
            },
        );
    }
    bench.time("top 20", format!("{V} logits"), Bound::Memory(4.0 * V as f64), "4·V bytes of logits", |_| {
        std::hint::black_box(sampler.distribution(&logits, &Sampling::plain()).top(20));
    });
    Ok(())
}
