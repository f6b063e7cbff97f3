//! The whole model's gradient against the slope of its own loss in f64, and the f32 backend against the f64 one.

use corella_model::gpt2::{Gpt2Config, Gpt2Train, Gpt2Weights};
use corella_model::params::ModelConfig;
use corella_model::{AdamW, BatchShape, Dtype, ParamPart, Recompute, TrainModel};
use corella_ops::OpsInfer;
use corella_ops::cases::Random;
use corella_ops::cpu::{Cpu, CpuOptions, Path};
use corella_ops::reference::Reference;

const B: usize = 2;
const T: usize = 5;
const V: usize = 13;

/// Two blocks, and every tensor random: norms and biases too, so that no term of a gradient vanishes.
fn weights() -> Gpt2Weights {
    let config = Gpt2Config::new(V, 2, 2, 6, T + 1).expect("a valid shape");
    let mut random = Random::new(11);
    let specs = config.table();
    let tensors = specs.iter().map(|spec| random.normals(spec.len()).iter().map(|x| 0.5 * x).collect());
    Gpt2Weights { tensors: tensors.collect(), config }
}

fn batch() -> (Vec<u32>, Vec<u32>) {
    let mut random = Random::new(12);
    let ids: Vec<u32> = (0..2 * B * T).map(|_| random.below(V) as u32).collect();
    (ids[..B * T].to_vec(), ids[B * T..].to_vec())
}

fn model<O: OpsInfer>(ops: O, recompute: Recompute) -> Gpt2Train<O> {
    Gpt2Train::new(ops, &weights(), BatchShape { b: B, t: T }, recompute, Dtype::F32).expect("fits")
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let (inputs, targets) = batch();
    let mut m = model(Reference, Recompute::None);
    m.forward_backward(&inputs, &targets, 1.0);
    let mut checked = 0;
    for index in 0..m.params().len() {
        let (values, grads) = (m.read(index, ParamPart::Value), m.read(index, ParamPart::Grad));
        for (i, grad) in grads.iter().enumerate() {
            let loss = |m: &mut Gpt2Train<Reference>, step: f32| {
                let mut moved = values.clone();
                moved[i] += step;
                m.write(index, ParamPart::Value, &moved);
                (m.loss_sum(&inputs, &targets) / (B * T) as f64, f64::from(moved[i]))
            };
            // 2^-10; the true distance is that of the rounded values.
            let ((high, above), (low, below)) = (loss(&mut m, 9.765_625e-4), loss(&mut m, -9.765_625e-4));
            let slope = (high - low) / (above - below);
            let name = &m.params()[index].name;
            assert!((slope - f64::from(*grad)).abs() < 2e-6, "{name}[{i}]: gradient {grad}, slope {slope}");
            checked += 1;
        }
        m.write(index, ParamPart::Value, &values);
    }
    assert_eq!(checked, weights().config.parameter_count());
}

#[test]
fn ten_updates_in_f32_follow_those_in_f64() {
    let (inputs, targets) = batch();
    for path in Path::available() {
        let cpu =
            Cpu::new(CpuOptions { threads: Some(2), path: Some(path), ..CpuOptions::default() }).expect("available");
        let mut single = model(cpu, Recompute::Block);
        let mut double = model(Reference, Recompute::None);
        for step in 1..=10 {
            let (a, b) = (update(&mut single, &inputs, &targets, step), update(&mut double, &inputs, &targets, step));
            assert!((a - b).abs() < 1e-5 * b, "{path:?} step {step}: loss {a} instead of {b}");
        }
    }
}

fn update(m: &mut dyn TrainModel, inputs: &[u32], targets: &[u32], step: u64) -> f64 {
    m.zero_grad();
    let loss = m.forward_backward(inputs, targets, 1.0);
    let grad_scale = (1.0 / m.grad_norm()).min(1.0) as f32;
    m.adamw(AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale, step });
    loss
}
