//! Training of both families against `transformers`: loss, every gradient, ten updates (fixtures/gpt2/make.py,
//! fixtures/llama/make.py).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corella_model::exchange::{Exchange, KeptAs};
use corella_model::gpt2::Gpt2Config;
use corella_model::llama::{LlamaConfig, LlamaShape};
use corella_model::params::{Init, ModelConfig};
use corella_model::{
    AdamW, BatchShape, Checkpoint, Dtype, ModelFiles, Network, ParamPart, Recompute, Source, SpecialIds, TrainModel,
    Training, Weights,
};
use corella_ops::cpu::{Cpu, CpuOptions, Path as KernelPath};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    #[serde(rename = "B")]
    b: usize,
    #[serde(rename = "T")]
    t: usize,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    loss: f64,
    logits: Vec<f32>,
    grads: BTreeMap<String, Vec<f32>>,
    losses: Vec<f64>,
    norms: Vec<f64>,
}

/// The golden values of a family and the weights that they belong to.
fn golden<C: Exchange>() -> (Golden, Weights<C>) {
    let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(C::ARCHITECTURE);
    let text = std::fs::read_to_string(dir.join("golden.json")).expect("fixture");
    let weights = Weights::read(&Checkpoint::<C>::open(&dir.join("model")).expect("fixture")).expect("fixture");
    (serde_json::from_str(&text).expect("fixture"), weights)
}

/// The same shape for a context of another length.
fn with_context(config: &LlamaConfig, context_len: usize) -> LlamaConfig {
    let shape: &LlamaShape = config;
    LlamaConfig::new(LlamaShape { context_len, ..shape.clone() }).expect("valid")
}

/// The model of the golden values cut to a context whose KV cache is small.
fn llama() -> (Golden, Weights<LlamaConfig>) {
    let (g, mut weights) = golden::<LlamaConfig>();
    weights.config = with_context(&weights.config, 64);
    (g, weights)
}

fn cpu(path: KernelPath, threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), path: Some(path), ..CpuOptions::default() }).expect("available")
}

fn model<C: Network>(
    path: KernelPath,
    g: &Golden,
    weights: &Weights<C>,
    recompute: Recompute,
    dtype: Dtype,
) -> Training<Cpu, C> {
    Training::new(cpu(path, 2), weights, BatchShape { b: g.b, t: g.t }, recompute, dtype).expect("fits")
}

/// Largest difference relative to the largest expected value.
fn gap(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-12f32, |m, x| m.max(x.abs()));
    got.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// Every gradient beside the expected one, tensor by tensor as files keep them.
fn gradients<C: Network + Exchange>(
    m: &Training<Cpu, C>,
    config: &C,
    g: &Golden,
    mut each: impl FnMut(&str, &[f32], &[f32]),
) {
    let mut compared = 0;
    for (row, spec) in config.table().iter().enumerate() {
        let grad = m.read(row, ParamPart::Grad);
        let mut at = 0;
        for part in &spec.parts {
            let names = config.hugging_face_names(part.tensor, spec.layer);
            let (name, expected) =
                names.iter().find_map(|name| g.grads.get_key_value(name)).expect("a golden gradient");
            let len = part.rows * spec.cols;
            each(name, &grad[at..at + len], expected);
            (at, compared) = (at + len, compared + 1);
        }
    }
    assert_eq!(compared, g.grads.len(), "every tensor has a gradient");
}

fn loss_and_every_gradient<C: Network + Exchange>((g, weights): (Golden, Weights<C>), allowed: f32) {
    for path in KernelPath::available() {
        for recompute in [Recompute::None, Recompute::Block] {
            let mut m = model(path, &g, &weights, recompute, Dtype::F32);
            // Two parts add up to the whole: gradients accumulate.
            let loss = m.forward_backward(&g.inputs, &g.targets, 0.25);
            m.forward_backward(&g.inputs, &g.targets, 0.75);
            assert!((loss - g.loss).abs() < 3e-6, "{loss} {}", g.loss);
            gradients(&m, &weights.config, &g, |name, got, expected| {
                let error = gap(got, expected);
                assert!(error < allowed, "{path:?} {recompute:?} gradient of {name} is off by {error}");
            });
        }
    }
}

#[test]
fn gpt2s_loss_and_every_gradient_equal_transformers() {
    loss_and_every_gradient(golden::<Gpt2Config>(), 3e-5);
}

#[test]
fn llamas_loss_and_every_gradient_equal_transformers() {
    loss_and_every_gradient(llama(), 5e-5);
}

/// Each gradient as a whole, against f32 of `transformers`: a few roundings of 2⁻⁹ on the way.
fn gradients_in_bf16<C: Network + Exchange>((g, weights): (Golden, Weights<C>), allowed: f64) {
    for path in KernelPath::available() {
        let mut m = model(path, &g, &weights, Recompute::None, Dtype::Bf16);
        let loss = m.forward_backward(&g.inputs, &g.targets, 1.0);
        assert!((loss / g.loss - 1.0).abs() < 1e-3, "{path:?}: loss {loss} {}", g.loss);
        gradients(&m, &weights.config, &g, |name, got, expected| {
            let square = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let error =
                square(&mut got.iter().zip(expected).map(|(a, b)| a - b)) / square(&mut expected.iter().copied());
            assert!(error < allowed, "{path:?} gradient of {name} is off by {error}");
        });
    }
}

#[test]
fn gradients_in_bf16_are_as_close_as_bf16_allows() {
    gradients_in_bf16(golden::<Gpt2Config>(), 0.02);
    // One product more on the way back, and norms without a bias.
    gradients_in_bf16(llama(), 0.03);
}

fn no_bit_changes<C: Network>((g, weights): (Golden, Weights<C>)) {
    for path in KernelPath::available() {
        for dtype in Dtype::ALL {
            let grads = |recompute, threads| {
                let batch = BatchShape { b: g.b, t: g.t };
                let mut m = Training::new(cpu(path, threads), &weights, batch, recompute, dtype).expect("fits");
                m.forward_backward(&g.inputs, &g.targets, 1.0);
                (0..m.params().len()).map(|i| m.read(i, ParamPart::Grad)).collect::<Vec<_>>()
            };
            let plain = grads(Recompute::None, 2);
            assert!(plain == grads(Recompute::Block, 2), "{path:?} {dtype:?}: recomputed");
            assert!(plain == grads(Recompute::None, 3), "{path:?} {dtype:?}: three threads");
        }
    }
}

#[test]
fn recomputing_and_threads_change_no_bit() {
    no_bit_changes(golden::<Gpt2Config>());
    no_bit_changes(llama());
}

fn ten_updates<C: Network>((g, weights): (Golden, Weights<C>)) {
    for path in KernelPath::available() {
        let mut m = model(path, &g, &weights, Recompute::None, Dtype::F32);
        for step in 0..10 {
            m.zero_grad();
            let loss = m.forward_backward(&g.inputs, &g.targets, 1.0);
            let norm = m.grad_norm();
            assert!((loss - g.losses[step]).abs() < 3e-5, "{path:?} step {step}: {loss} {}", g.losses[step]);
            assert!((norm / g.norms[step] - 1.0).abs() < 3e-4, "{path:?} step {step}: {norm} {}", g.norms[step]);
            let grad_scale = (1.0 / (norm + 1e-6)).min(1.0) as f32;
            let step = step as u64 + 1;
            m.adamw(AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale, step });
        }
    }
}

#[test]
fn ten_updates_equal_pytorchs() {
    ten_updates(golden::<Gpt2Config>());
    ten_updates(llama());
}

fn continues_text<C: Network>((g, weights): (Golden, Weights<C>), allowed: f32) {
    let v = weights.config.vocab_size();
    for path in KernelPath::available() {
        let mut m = model(path, &g, &weights, Recompute::None, Dtype::F32);
        let mut text = m.text_model().expect("fits");
        for b in 0..g.b {
            text.reset();
            text.feed_each(&g.inputs[b * g.t..][..g.t], &mut |t, logits| {
                let off = gap(logits, &g.logits[(b * g.t + t) * v..][..v]);
                assert!(off < allowed, "{path:?}: row {t} is off by {off}");
            });
        }
    }
}

#[test]
fn a_model_under_training_continues_text_with_the_logits_of_transformers() {
    continues_text(golden::<Gpt2Config>(), 1e-5);
    continues_text(llama(), 1e-5);
}

/// `other` has another shape.
fn checkpoint_brings_back<C: Network + Exchange>((g, weights): (Golden, Weights<C>), other: C) {
    let dir = std::env::temp_dir().join(format!("corella-kept-{}-{}", C::ARCHITECTURE, std::process::id()));
    let files = KeptAs { config: weights.config.clone(), special: SpecialIds { bos: Some(3), eos: vec![3] } };
    files.save(&model(KernelPath::Portable, &g, &weights, Recompute::None, Dtype::F32), &dir).expect("written");
    let checkpoint = Checkpoint::<C>::open(&dir).expect("read");
    assert_eq!((&checkpoint.config, &checkpoint.special), (&weights.config, &files.special));
    assert!(Weights::read(&checkpoint).expect("read") == weights);
    let drawn = Weights::random(&weights.config, 3);
    let mut restored = model(KernelPath::Portable, &g, &drawn, Recompute::None, Dtype::F32);
    files.load(&mut restored, &dir).expect("read");
    for (row, values) in weights.tensors.iter().enumerate() {
        assert!(&restored.read(row, ParamPart::Value) == values);
    }
    assert!(KeptAs { config: other, special: SpecialIds::default() }.load(&mut restored, &dir).is_err());
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn a_checkpoint_brings_back_the_same_weights() {
    let gpt2 = golden::<Gpt2Config>();
    let longer = Gpt2Config::new(97, 2, 3, 24, 14).expect("valid");
    checkpoint_brings_back(gpt2, longer);
    let llama = llama();
    let longer = with_context(&llama.1.config, 65);
    checkpoint_brings_back(llama, longer);
}

#[test]
fn random_weights_have_the_deviations_of_the_table() {
    let (_, weights) = golden::<LlamaConfig>();
    let random = Weights::random(&weights.config, 42);
    for (spec, values) in random.config().table().iter().zip(&random.tensors) {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt();
        match spec.init {
            Init::Ones => assert!(values.iter().all(|v| *v == 1.0)),
            Init::Zeros => assert!(values.iter().all(|v| *v == 0.0)),
            Init::Normal(expected) => {
                let close = (std / expected - 1.0).abs() < 0.1 && mean.abs() < 0.1 * expected;
                assert!(close, "{}: {mean} {std}", spec.name);
            }
        }
    }
}
