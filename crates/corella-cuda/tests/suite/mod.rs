//! What every card must pass, emulated or not.

pub mod draws;
pub mod inference;
pub mod recorded;
pub mod steps;

use corella_cuda::Cuda;
use corella_model::gpt2::{Gpt2Config, Gpt2Train};
use corella_model::{AdamW, BatchShape, Dtype, Recompute, TrainModel, Weights};
use corella_ops::OpsTrain;
use corella_ops::cases::{Expected, training};
use corella_ops::cpu::{Cpu, CpuOptions};

/// The CPU backend.
pub fn cpu() -> Cpu {
    Cpu::new(CpuOptions { threads: Some(2), path: None }).expect("the backend starts")
}

/// Every operation of training agrees with the f64 reference, in both formats.
pub fn operations(ops: &Cuda) {
    for dtype in Dtype::ALL {
        let expected = Expected::new(dtype).expect("the reference runs");
        let found = expected.training_differences(ops).expect("the cases run");
        assert!(found.is_empty(), "{dtype:?}:\n{}", found.join("\n"));
    }
}

/// Every operation gives the same bits on both, or twice on one.
pub fn same_bits(one: &Cuda, other: &Cuda) {
    for dtype in Dtype::ALL {
        for case in training::<Cuda>() {
            let (a, b) = (case.run(one, dtype).expect("runs"), case.run(other, dtype).expect("runs"));
            for ((name, a), (_, b)) in a.iter().zip(&b) {
                let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{dtype:?}, {}: {name}", case.name);
            }
        }
    }
}

/// Losses and norms of updates of a small GPT-2, two micro-batches each.
fn updates<B: OpsTrain>(ops: B, dtype: Dtype, recompute: Recompute, steps: u64) -> Vec<[f64; 2]> {
    let config = Gpt2Config::new(97, 2, 2, 32, 16).expect("a shape");
    let batch = BatchShape { b: 2, t: 16 };
    let mut model = Gpt2Train::new(ops, &Weights::random(&config, 3), batch, recompute, dtype).expect("fits");
    let ids: Vec<u32> = (0..65).map(|i| (i * i * 31 + i * 7) % 97).collect();
    (1..=steps)
        .map(|step| {
            model.zero_grad();
            let mut loss = 0.0;
            for first in [0, 32] {
                loss += 0.5 * model.forward_backward(&ids[first..first + 32], &ids[first + 1..first + 33], 0.5);
            }
            let norm = model.grad_norm();
            let grad_scale = (1.0 / norm).min(1.0) as f32;
            model.adamw(AdamW { lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale, step });
            [loss, norm]
        })
        .collect()
}

/// Ten updates go as on the processor, in f32 with both ways of keeping activations, and nearly so in bf16.
pub fn ten_updates(card: impl Fn() -> Cuda) {
    let expected = updates(cpu(), Dtype::F32, Recompute::None, 10);
    for (dtype, recompute, tolerance) in [
        (Dtype::F32, Recompute::None, 1e-4),
        (Dtype::F32, Recompute::Block, 1e-4),
        (Dtype::Bf16, Recompute::None, 3e-2),
    ] {
        let got = updates(card(), dtype, recompute, 10);
        for (step, (got, expected)) in got.iter().zip(&expected).enumerate() {
            for (g, e) in got.iter().zip(expected) {
                assert!(
                    (g - e).abs() <= tolerance * e.abs(),
                    "{dtype:?} {recompute:?}, step {step}: {g} instead of {e}"
                );
            }
        }
    }
}
