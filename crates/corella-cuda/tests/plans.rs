//! What models take of a card's memory, counted on paper: what fits the cards that people have, and what does not.

use corella_cuda::{BESIDE, Cuda, Paper};
use corella_model::gpt2::{Gpt2Config, Gpt2Exact, Gpt2Infer, Gpt2Train};
use corella_model::llama::{LlamaConfig, LlamaInfer};
use corella_model::{
    AdamW, BatchShape, Dtype, KvKind, ModelError, Recompute, StepModel, StepOptions, TrainModel, Zeros,
};
use corella_ops::cpu::{Cpu, CpuOptions};
use corella_ops::{KvPagesDims, OpsError, OpsInfer, WeightFormat};

/// Bytes that the driver offers on an idle RTX 3060 and 4090, about: their memory without what the display and the driver keep.
const CARD_12: u64 = 12_000_000_000;
const CARD_24: u64 = 24_000_000_000;
const CARD_80: u64 = 84_000_000_000;

fn on_paper() -> (Cuda, Paper) {
    let (paper, cpu) =
        (Paper::default(), Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("starts"));
    (Cuda::of_paper(&paper, cpu), paper)
}

/// Bytes of an update of a GPT-2 in bf16 with `b` sequences of its whole context.
fn training(name: &str, b: usize, recompute: Recompute) -> u64 {
    let (ops, paper) = on_paper();
    let config = Gpt2Config::preset(name).expect("a size of GPT-2");
    let batch = BatchShape { b, t: config.seq_len() };
    let zeros = Zeros::new(config, WeightFormat::F32);
    let mut model = Gpt2Train::new(ops, &zeros, batch, recompute, Dtype::Bf16).expect("paper has room");
    let ids = vec![0; batch.b * batch.t];
    model.zero_grad();
    model.forward_backward(&ids, &ids, 1.0);
    model.grad_norm();
    model.adamw(AdamW { lr: 0.0, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, grad_scale: 1.0, step: 1 });
    paper.most() + BESIDE
}

/// The largest micro-batch, a power of two, that fits.
fn largest(name: &str, recompute: Recompute, card: u64) -> usize {
    (0..7).map(|i| 1 << i).take_while(|b| training(name, *b, recompute) <= card).last().unwrap_or(0)
}

#[test]
fn what_can_be_trained_on_which_card() {
    use Recompute::{Block, None};
    for (name, recompute, card, b) in [
        ("gpt2-124m", None, CARD_12, 16),
        ("gpt2-124m", None, CARD_24, 64),
        ("gpt2-124m", Block, CARD_12, 64),
        ("gpt2-355m", None, CARD_12, 4),
        ("gpt2-355m", Block, CARD_12, 32),
        ("gpt2-355m", None, CARD_24, 16),
        ("gpt2-774m", Block, CARD_12, 0),
        ("gpt2-774m", None, CARD_24, 4),
        ("gpt2-774m", Block, CARD_24, 32),
        ("gpt2-1558m", Block, CARD_24, 0),
        ("gpt2-1558m", None, CARD_80, 16),
        ("gpt2-1558m", Block, CARD_80, 64),
    ] {
        assert_eq!(largest(name, recompute, card), b, "{name}, {recompute:?}, {card} bytes");
    }
}

/// The count of an update is what its parts come to. A parameter takes 18 bytes (f32 value, gradient, two moments, bf16 image); a
/// token leaves, in each layer, 10 arrays of its width in bf16 (both norms, q, k, v, attention, the MLP before GELU) and two in f32
/// (the residual stream); with recompute only what enters a layer.
#[test]
fn the_count_of_an_update_is_its_parts() {
    for (name, layers, width) in [("gpt2-124m", 12, 768), ("gpt2-355m", 24, 1024), ("gpt2-774m", 36, 1280)] {
        let each = |recompute| (training(name, 16, recompute) - training(name, 8, recompute)) / 8;
        let (kept, recomputed) = ((20 + 8) * layers * width * 1024, 4 * layers * width * 1024);
        let (all, few) = (each(Recompute::None), each(Recompute::Block));
        // Beside it what one layer takes at a time, and gradients.
        let once = 64 * width * 1024;
        assert!(all > kept && all < kept + once, "{name}: {all} bytes a sequence, {kept} are kept");
        assert!(
            few > recomputed && few < recomputed + 2 * once,
            "{name}: {few} bytes a sequence, {recomputed} are kept"
        );
        let parameters = 18 * Gpt2Config::preset(name).expect("a size of GPT-2").parameter_count() as u64;
        let rest = training(name, 8, Recompute::None) - 8 * all - BESIDE;
        // Logits of a chunk of rows are 129 MB; the rest is the rounding of arrays to pages.
        assert!(rest > parameters && rest < parameters + (1 << 30), "{name}: {rest} bytes, {parameters} of parameters");
    }
}

/// Bytes of a Llama that steps at its limits.
fn stepping(name: &str, format: WeightFormat, options: StepOptions) -> u64 {
    let (ops, paper) = on_paper();
    let zeros = Zeros::new(LlamaConfig::preset(name).expect("a size of Llama"), format);
    let mut model = LlamaInfer::new(ops, &zeros, options).expect("paper has room");
    for plan in model.limits().largest_plans(model.draws()) {
        model.step(&plan).expect("a plan within the limits");
    }
    paper.most() + BESIDE
}

fn options(context_len: usize, kv_tokens: usize, kv_kind: KvKind) -> StepOptions {
    StepOptions { context_len, kv_tokens, kv_kind, max_seqs: 32, max_batch_tokens: 512, max_logit_rows: 32 }
}

#[test]
fn which_llama_runs_on_which_card() {
    use WeightFormat::{Bf16, Q4_K, Q8_0};
    let (name, one, many) = ("llama-3.1-8b", options(8192, 8192, KvKind::F16), options(8192, 65_536, KvKind::F16));
    for (format, options, card, fits) in [
        (Q4_K, one, CARD_12, true),
        // Eight contexts of 8,192 positions take 8.6 GB.
        (Q4_K, many, CARD_12, false),
        (Q4_K, many, CARD_24, true),
        (Q8_0, one, CARD_12, true),
        (Q8_0, many, CARD_24, true),
        (Bf16, one, CARD_12, false),
        (Bf16, one, CARD_24, true),
        (Bf16, many, CARD_24, false),
        (Bf16, many, CARD_80, true),
    ] {
        let bytes = stepping(name, format, options);
        assert_eq!(bytes <= card, fits, "{} and {} positions take {bytes} of {card}", format.name(), options.kv_tokens);
    }
    // A third of the same model with its whole context of 131,072 positions.
    let whole = options(131_072, 131_072, KvKind::Q8);
    assert!(stepping("llama-3.2-3b", Q4_K, whole) <= CARD_12);
}

/// The count is what the parts come to: weights as they lie on the card, pages, activations, scratch.
#[test]
fn the_count_of_a_llama_is_its_parts() {
    let config = LlamaConfig::preset("llama-3.1-8b").expect("a size of Llama");
    let bytes = stepping("llama-3.1-8b", WeightFormat::Q8_0, options(8192, 8192, KvKind::F16)) - BESIDE;
    let matrices = (config.parameter_count() as f64 * 34.0 / 32.0) as u64;
    let pages = 2 * 32 * 8 * 128 * 2 * 8192;
    // The largest layer in bf16, and a step's activations and logits.
    let rest = 2 * 14_336 * 4096 + 512 * (4096 * 4 + 2 * (4096 + 6144 + 4096 + 3 * 14_336)) + 32 * 128_256 * 4;
    let parts = matrices + pages + rest;
    assert!(bytes > parts && bytes < parts + (600 << 20), "{bytes} counted, {parts} in parts");
}

/// Before anything is allocated, wherever attention follows: in training, in its samples, and in steps.
#[test]
fn heads_beyond_the_kernels_are_refused() {
    let config = |n_head| Gpt2Config::new(64, 1, n_head, 640, 16).expect("a shape");
    let too_large =
        |error: ModelError| matches!(error, ModelError::Ops(OpsError::HeadTooLarge { found: 320, allowed: 256, .. }));
    let train = |n_head| {
        let (zeros, batch) = (Zeros::new(config(n_head), WeightFormat::F32), BatchShape { b: 1, t: 8 });
        Gpt2Train::new(on_paper().0, &zeros, batch, Recompute::None, Dtype::F32).map(drop)
    };
    let sample = |n_head| Gpt2Exact::new(on_paper().0, &Zeros::new(config(n_head), WeightFormat::F32)).map(drop);
    let step = |n_head| {
        let zeros = Zeros::new(config(n_head), WeightFormat::F32);
        Gpt2Infer::new(on_paper().0, &zeros, options(16, 16, KvKind::F16)).map(drop)
    };
    for (what, refused, taken) in
        [("training", train(2), train(4)), ("samples", sample(2), sample(4)), ("steps", step(2), step(4))]
    {
        assert!(refused.is_err_and(too_large), "{what}");
        taken.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let pages = on_paper().0.kv_pages(KvPagesDims { pages: 1, page_len: 16, nkv: 1, hs: 257, kind: KvKind::F16 });
    assert!(matches!(pages, Err(OpsError::HeadTooLarge { found: 257, .. })));
}
