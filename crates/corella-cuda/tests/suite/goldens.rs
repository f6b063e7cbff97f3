//! Training against PyTorch and `transformers`: loss, every gradient, ten updates (fixtures/gpt2/make.py, fixtures/llama/make.py).

use corella_cuda::Cuda;
use corella_model::exchange::Exchange;
use corella_model::{
    AdamW, BatchShape, Checkpoint, Dtype, Network, ParamPart, Recompute, TrainModel, Training, Weights,
};
use serde_json::Value;

use super::{fixtures, gap};

/// What sums in f32 in another order may take a gradient off, relative to the largest of its tensor, and ten losses and norms.
const GRADIENT: f32 = 1e-4;
const LOSS: f64 = 1e-4;
const NORM: f64 = 1e-3;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|id| id as u32).collect()
}

/// A family's golden values, in f32.
pub fn training_agrees_with_transformers<C: Network + Exchange>(card: impl Fn() -> Cuda) {
    let dir = fixtures(C::ARCHITECTURE);
    let text = std::fs::read_to_string(dir.join("golden.json")).expect("the fixture");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let weights = Weights::read(&Checkpoint::<C>::open(&dir.join("model")).expect("the model")).expect("the model");
    let size = |name: &str| golden[name].as_u64().expect("a size") as usize;
    let batch = BatchShape { b: size("B"), t: size("T") };
    let model = || Training::new(card(), &weights, batch, Recompute::None, Dtype::F32).expect("fits");
    let (inputs, targets) = (ids(&golden["inputs"]), ids(&golden["targets"]));

    let mut first = model();
    let loss = first.forward_backward(&inputs, &targets, 1.0);
    let expected = golden["loss"].as_f64().expect("a loss");
    assert!((loss - expected).abs() < LOSS, "loss {loss} instead of {expected}");
    let mut compared = 0;
    for (row, spec) in weights.config.table().iter().enumerate() {
        let grad = first.read(row, ParamPart::Grad);
        let mut at = 0;
        for part in &spec.parts {
            let names = weights.config.hugging_face_names(part.tensor, spec.layer);
            let (name, expected) =
                names.iter().find_map(|name| Some((name, golden["grads"].get(name)?))).expect("a golden gradient");
            let expected: Vec<f32> = numbers(expected).into_iter().map(|x| x as f32).collect();
            let off = gap(&grad[at..at + expected.len()], &expected);
            assert!(off < GRADIENT, "gradient of {name} is off by {off}");
            (at, compared) = (at + part.rows * spec.cols, compared + 1);
        }
    }
    assert_eq!(compared, golden["grads"].as_object().map_or(0, |all| all.len()), "every tensor has a gradient");

    let mut model = model();
    for (step, (loss, norm)) in (1..).zip(numbers(&golden["losses"]).into_iter().zip(numbers(&golden["norms"]))) {
        model.zero_grad();
        let found = [model.forward_backward(&inputs, &targets, 1.0), model.grad_norm()];
        assert!((found[0] - loss).abs() < LOSS, "step {step}: loss {} instead of {loss}", found[0]);
        assert!((found[1] / norm - 1.0).abs() < NORM, "step {step}: norm {} instead of {norm}", found[1]);
        let grad_scale = (1.0 / (found[1] + 1e-6)).min(1.0) as f32;
        model.adamw(AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale, step });
    }
}
