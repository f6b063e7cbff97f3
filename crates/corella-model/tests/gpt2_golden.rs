//! GPT-2 against `transformers`: logits, loss, every gradient, ten updates (fixtures/gpt2/make.py).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corella_model::gpt2::{
    Gpt2Config, Gpt2Infer, Gpt2Train, Gpt2Weights, Recompute, load_gpt2, random_weights, save_hugging_face, save_llmc,
};
use corella_model::{AdamW, BatchShape, Dtype, ParamPart, TextModel, TrainModel};
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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gpt2")
}

fn golden() -> (Golden, Gpt2Weights) {
    let text = std::fs::read_to_string(fixtures().join("golden.json")).expect("fixture");
    (serde_json::from_str(&text).expect("fixture"), load_gpt2(&fixtures().join("model")).expect("fixture"))
}

fn cpu(path: KernelPath, threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), path: Some(path) }).expect("available")
}

fn model(path: KernelPath, g: &Golden, weights: &Gpt2Weights, recompute: Recompute) -> Gpt2Train<Cpu> {
    model_in(Dtype::F32, path, g, weights, recompute)
}

fn model_in(dtype: Dtype, path: KernelPath, g: &Golden, weights: &Gpt2Weights, recompute: Recompute) -> Gpt2Train<Cpu> {
    Gpt2Train::new(cpu(path, 2), weights, BatchShape { b: g.b, t: g.t }, recompute, dtype).expect("fits")
}

/// Largest difference relative to the largest expected value.
fn gap(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-12f32, |m, x| m.max(x.abs()));
    got.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

#[test]
fn loss_and_every_gradient_equal_transformers() {
    let (g, weights) = golden();
    for path in KernelPath::available() {
        for recompute in [Recompute::None, Recompute::Block] {
            let mut m = model(path, &g, &weights, recompute);
            // Two halves add up to the whole: gradients accumulate.
            let loss = m.forward_backward(&g.inputs, &g.targets, 0.25);
            m.forward_backward(&g.inputs, &g.targets, 0.75);
            assert!((loss - g.loss).abs() < 2e-6, "{loss} {}", g.loss);
            assert_eq!(m.params().len(), g.grads.len());
            for i in 0..m.params().len() {
                let name = m.params()[i].name.clone();
                let error = gap(&m.read(i, ParamPart::Grad), &g.grads[&name]);
                assert!(error < 3e-5, "{path:?} {recompute:?} gradient of {name} is off by {error}");
            }
        }
    }
}

/// Each gradient as a whole, against f32 of `transformers`: a few roundings of 2⁻⁹ on the way.
#[test]
fn gradients_in_bf16_are_as_close_as_bf16_allows() {
    let (g, weights) = golden();
    for path in KernelPath::available() {
        let mut m = model_in(Dtype::Bf16, path, &g, &weights, Recompute::None);
        let loss = m.forward_backward(&g.inputs, &g.targets, 1.0);
        assert!((loss / g.loss - 1.0).abs() < 1e-3, "{path:?}: loss {loss} {}", g.loss);
        for i in 0..m.params().len() {
            let name = m.params()[i].name.clone();
            let (got, expected) = (m.read(i, ParamPart::Grad), &g.grads[&name]);
            let square = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let error =
                square(&mut got.iter().zip(expected).map(|(a, b)| a - b)) / square(&mut expected.iter().copied());
            assert!(error < 0.02, "{path:?} gradient of {name} is off by {error}");
        }
    }
}

#[test]
fn recomputing_and_threads_change_no_bit() {
    let (g, weights) = golden();
    for path in KernelPath::available() {
        for dtype in Dtype::ALL {
            let grads = |recompute, threads| {
                let batch = BatchShape { b: g.b, t: g.t };
                let mut m = Gpt2Train::new(cpu(path, threads), &weights, batch, recompute, dtype).expect("fits");
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
fn ten_updates_equal_pytorchs() {
    let (g, weights) = golden();
    for path in KernelPath::available() {
        let mut m = model(path, &g, &weights, Recompute::None);
        for step in 0..10 {
            m.zero_grad();
            let loss = m.forward_backward(&g.inputs, &g.targets, 1.0);
            let norm = m.grad_norm();
            assert!((loss - g.losses[step]).abs() < 2e-5, "{path:?} step {step}: {loss} {}", g.losses[step]);
            assert!((norm / g.norms[step] - 1.0).abs() < 2e-4, "{path:?} step {step}: {norm} {}", g.norms[step]);
            let grad_scale = (1.0 / (norm + 1e-6)).min(1.0) as f32;
            let hyper = AdamW {
                lr: 1e-3,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                grad_scale,
                step: step as u64 + 1,
            };
            m.adamw(hyper);
        }
    }
}

#[test]
fn generation_gives_the_logits_of_transformers_in_any_chunks() {
    let (g, weights) = golden();
    let v = weights.config.vocab_size();
    for path in KernelPath::available() {
        for b in 0..g.b {
            let tokens = &g.inputs[b * g.t..][..g.t];
            let mut one_by_one = Gpt2Infer::new(cpu(path, 1), weights.clone()).expect("fits");
            let mut at_once = Gpt2Infer::new(cpu(path, 2), weights.clone()).expect("fits");
            for t in 0..g.t {
                let logits = one_by_one.feed(&tokens[t..=t]).to_vec();
                assert!(gap(&logits, &g.logits[(b * g.t + t) * v..][..v]) < 1e-5);
                at_once.reset();
                assert_eq!(at_once.feed(&tokens[..=t]), &logits[..], "prefill and decode, bit for bit");
            }
        }
    }
}

#[test]
fn prefill_equals_decode_over_many_chunks() {
    let config = Gpt2Config::new(300, 2, 2, 40, 200).expect("valid");
    let weights = random_weights(&config, 3);
    let tokens: Vec<u32> = (0..200).map(|i| i * 7 % 300).collect();
    for path in KernelPath::available() {
        let mut whole = Gpt2Infer::new(cpu(path, 2), weights.clone()).expect("fits");
        let mut parts = Gpt2Infer::new(cpu(path, 1), weights.clone()).expect("fits");
        parts.feed(&tokens[..1]);
        parts.feed(&tokens[1..131]);
        assert_eq!(whole.feed(&tokens), parts.feed(&tokens[131..]));
    }
}

#[test]
fn files_bring_back_the_same_weights() {
    let config = Gpt2Config::new(131, 3, 2, 16, 20).expect("valid");
    let weights = random_weights(&config, 11);
    let dir = std::env::temp_dir().join(format!("corella-model-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary folder");
    save_hugging_face(&weights, &dir.join("hf")).expect("written");
    save_llmc(&weights, &dir.join("model.bin")).expect("written");
    assert!(load_gpt2(&dir.join("hf")).expect("read") == weights);
    assert!(load_gpt2(&dir.join("model.bin")).expect("read") == weights);

    let file = dir.join("hf/model.safetensors");
    let whole = std::fs::read(&file).expect("read");
    let huge = [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat();
    for broken in [&whole[..whole.len() - 4], &whole[..5], &huge, &[&whole[..], &[0; 4]].concat()] {
        std::fs::write(&file, broken).expect("written");
        assert!(load_gpt2(&dir.join("hf")).is_err());
    }
    let bin = std::fs::read(dir.join("model.bin")).expect("read");
    for (at, word) in [(0, 1u32), (4, 9), (12, u32::MAX), (16, 0), (20, 3), (28, 7)] {
        let mut broken = bin.clone();
        broken[at..at + 4].copy_from_slice(&word.to_le_bytes());
        std::fs::write(dir.join("model.bin"), &broken).expect("written");
        assert!(load_gpt2(&dir.join("model.bin")).is_err(), "header word {}", at / 4);
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}
