//! Llama's training against `transformers`: logits, loss, every gradient, ten updates (fixtures/llama/make.py).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corella_model::llama::{
    LlamaCheckpoint, LlamaConfig, LlamaFiles, LlamaSource, LlamaTrain, LlamaWeights, Tensor, param_specs,
};
use corella_model::memory::Recompute;
use corella_model::{AdamW, BatchShape, Dtype, ModelFiles, ParamPart, SpecialIds, TrainModel};
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

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/llama")
}

/// The golden values, and the model cut to a context that a table of angles can be made for.
fn golden() -> (Golden, LlamaWeights) {
    let text = std::fs::read_to_string(fixtures().join("golden.json")).expect("fixture");
    let checkpoint = LlamaCheckpoint::open(&fixtures().join("model")).expect("fixture");
    let weights = LlamaWeights::read(&checkpoint).expect("fixture");
    (serde_json::from_str(&text).expect("fixture"), weights)
}

fn model(path: KernelPath, g: &Golden, weights: &LlamaWeights, recompute: Recompute) -> LlamaTrain<Cpu> {
    let cpu = Cpu::new(CpuOptions { threads: Some(2), path: Some(path) }).expect("available");
    LlamaTrain::new(cpu, weights, BatchShape { b: g.b, t: g.t }, recompute, Dtype::F32).expect("fits")
}

/// Largest difference relative to the largest expected value.
fn gap(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-12f32, |m, x| m.max(x.abs()));
    got.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// The name that `transformers` has for a tensor.
fn name(tensor: Tensor, layer: Option<usize>) -> String {
    let rest = match tensor {
        Tensor::Embedding => "embed_tokens",
        Tensor::AttentionNorm => "input_layernorm",
        Tensor::Q => "self_attn.q_proj",
        Tensor::K => "self_attn.k_proj",
        Tensor::V => "self_attn.v_proj",
        Tensor::O => "self_attn.o_proj",
        Tensor::FeedForwardNorm => "post_attention_layernorm",
        Tensor::Gate => "mlp.gate_proj",
        Tensor::Up => "mlp.up_proj",
        Tensor::Down => "mlp.down_proj",
        Tensor::Norm => "norm",
        Tensor::Head => return "lm_head.weight".to_owned(),
    };
    layer.map_or_else(|| format!("model.{rest}.weight"), |l| format!("model.layers.{l}.{rest}.weight"))
}

#[test]
fn loss_and_every_gradient_equal_transformers() {
    let (g, weights) = golden();
    for path in KernelPath::available() {
        for recompute in [Recompute::None, Recompute::Block] {
            let mut m = model(path, &g, &weights, recompute);
            // Two parts add up to the whole: gradients accumulate.
            let loss = m.forward_backward(&g.inputs, &g.targets, 0.25);
            m.forward_backward(&g.inputs, &g.targets, 0.75);
            assert!((loss - g.loss).abs() < 3e-6, "{loss} {}", g.loss);
            let mut compared = 0;
            for (row, spec) in param_specs(&weights.config).iter().enumerate() {
                let grad = m.read(row, ParamPart::Grad);
                let mut at = 0;
                for part in &spec.parts {
                    let (name, len) = (name(part.tensor, spec.layer), part.rows * spec.cols);
                    let error = gap(&grad[at..at + len], &g.grads[&name]);
                    assert!(error < 5e-5, "{path:?} {recompute:?} gradient of {name} is off by {error}");
                    (at, compared) = (at + len, compared + 1);
                }
            }
            assert_eq!(compared, g.grads.len(), "every tensor has a gradient");
        }
    }
}

#[test]
fn ten_updates_equal_pytorchs() {
    let (g, weights) = golden();
    for path in KernelPath::available() {
        let mut m = model(path, &g, &weights, Recompute::None);
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
fn the_model_under_training_continues_text_with_the_logits_of_transformers() {
    let (g, mut weights) = golden();
    weights.config = weights.config.with_context(64).expect("valid");
    let v = weights.config.vocab_size;
    let mut m = model(KernelPath::Portable, &g, &weights, Recompute::None);
    let mut text = m.text_model().expect("fits");
    for b in 0..g.b {
        text.reset();
        text.feed_each(&g.inputs[b * g.t..][..g.t], &mut |t, logits| {
            // Keys and values are rounded to half precision.
            let off = gap(logits, &g.logits[(b * g.t + t) * v..][..v]);
            assert!(off < 2e-3, "row {t} is off by {off}");
        });
    }
}

#[test]
fn a_checkpoint_brings_back_the_same_weights() {
    let (g, mut weights) = golden();
    weights.config = weights.config.with_context(64).expect("valid");
    let dir = std::env::temp_dir().join(format!("corella-llama-files-{}", std::process::id()));
    let files = LlamaFiles { config: weights.config.clone(), special: SpecialIds { bos: Some(3), eos: vec![3] } };
    files.save(&model(KernelPath::Portable, &g, &weights, Recompute::None), &dir).expect("written");
    let checkpoint = LlamaCheckpoint::open(&dir).expect("read");
    assert_eq!((&checkpoint.config, &checkpoint.special), (&weights.config, &files.special));
    assert!(LlamaWeights::read(&checkpoint).expect("read") == weights);

    let other = LlamaWeights::random(&weights.config, 3);
    let mut restored = model(KernelPath::Portable, &g, &other, Recompute::None);
    files.load(&mut restored, &dir).expect("read");
    for (row, values) in weights.tensors.iter().enumerate() {
        assert!(&restored.read(row, ParamPart::Value) == values);
    }
    let wider: LlamaConfig = weights.config.with_context(65).expect("valid");
    assert!(LlamaFiles { config: wider, special: SpecialIds::default() }.load(&mut restored, &dir).is_err());
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn random_weights_have_the_deviations_of_the_table() {
    let (_, weights) = golden();
    let random = LlamaWeights::random(&weights.config, 42);
    for (spec, values) in param_specs(random.config()).iter().zip(&random.tensors) {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt();
        if spec.vector {
            assert!(values.iter().all(|v| *v == 1.0));
        } else {
            assert!((std / spec.std - 1.0).abs() < 0.1 && mean.abs() < 0.1 * spec.std, "{}: {mean} {std}", spec.name);
        }
    }
}
