//! What every card must pass, emulated or not.

pub mod draws;
pub mod goldens;
pub mod inference;
pub mod recorded;
pub mod steps;

use std::path::{Path, PathBuf};

use corella_cuda::Cuda;
use corella_model::gpt2::{Gpt2Config, Gpt2Train};
use corella_model::{AdamW, BatchShape, Dtype, Recompute, TrainModel, Weights};
use corella_ops::OpsTrain;
use corella_ops::cases::{Case, Expected, training};
use corella_ops::cpu::{Cpu, CpuOptions};

/// Largest difference relative to the largest expected number.
pub fn gap(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-12f32, |m, x| m.max(x.abs()));
    got.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// The folder of the fixtures of a family: of this crate as it was built, or where cargo, or a script, says that it lies now.
pub fn fixtures(family: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("../../fixtures").join(family)
}

/// The CPU backend.
pub fn cpu() -> Cpu {
    Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).expect("the backend starts")
}

/// Every operation of training agrees with the f64 reference, in both formats.
pub fn operations(ops: &Cuda) {
    for dtype in Dtype::ALL {
        let expected = Expected::new(dtype).expect("the reference runs");
        let found = expected.training_differences(ops).expect("the cases run");
        assert!(found.is_empty(), "{dtype:?}:\n{}", found.join("\n"));
    }
}

/// Cases that run every kernel at least once: not those whose sums are only longer than others', for the blocks of a processor.
pub fn of_all_kernels() -> Vec<Case<Cuda>> {
    let mut cases = training::<Cuda>();
    cases.retain(|case| ![" 7×6200", " 3300×", " 1×389"].iter().any(|shape| case.name.contains(shape)));
    cases
}

/// Every operation in bf16, where all kernels have a part, gives the same bits on both, or twice on one.
pub fn same_bits(one: &Cuda, other: &Cuda) {
    for case in of_all_kernels() {
        let run = |ops| case.run(ops, Dtype::Bf16).expect("runs");
        for ((name, a), (_, b)) in run(one).iter().zip(&run(other)) {
            let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{}: {name}", case.name);
        }
    }
}

/// Losses and norms of updates of a small GPT-2 with `v` tokens, two micro-batches each.
fn updates<B: OpsTrain>(ops: B, v: u32, dtype: Dtype, recompute: Recompute, steps: u64) -> Vec<[f64; 2]> {
    let config = Gpt2Config::new(v as usize, 2, 2, 32, 16).expect("a shape");
    let batch = BatchShape { b: 2, t: 16 };
    let mut model = Gpt2Train::new(ops, &Weights::random(&config, 3), batch, recompute, dtype).expect("fits");
    let ids: Vec<u32> = (0..65).map(|i| (i * i * 31 + i * 7) % v).collect();
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

/// Updates with two micro-batches go as on the processor: in f32, with blocks that are computed again, and nearly so in bf16.
pub fn updates_agree(card: impl Fn() -> Cuda, v: u32, steps: u64) {
    let expected = updates(cpu(), v, Dtype::F32, Recompute::None, steps);
    for (dtype, recompute, tolerance) in [(Dtype::F32, Recompute::Block, 1e-4), (Dtype::Bf16, Recompute::None, 3e-2)] {
        let got = updates(card(), v, dtype, recompute, steps);
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
