//! Whole models on every card, emulated or not.

use corella_cuda::Cuda;
use corella_model::gpt2::{Gpt2Config, Gpt2Infer};
use corella_model::llama::{LlamaCheckpoint, LlamaConfig, LlamaInfer, LlamaShape, LlamaWeights, Rope, RopeScaling};
use corella_model::{OneSequence, StepOptions, TextModel, Weights};
use corella_ops::OpsInfer;
use serde_json::Value;

use super::{fixtures, gap};

/// What activations and weights in bf16 may take the logits of these small models off, relative to the largest of them.
const BF16: f32 = 3e-2;

/// The logits of a Llama in bf16 after some of its tokens are those of `transformers` (fixtures/llama/make.py).
pub fn llama_agrees_with_transformers(ops: Cuda) {
    let checkpoint = LlamaCheckpoint::open(&fixtures("llama").join("model_bf16")).expect("the fixture");
    let text = std::fs::read_to_string(fixtures("llama").join("bf16.json")).expect("the fixture");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let ids: Vec<u32> = list(&golden["ids"]).iter().map(|id| id.as_u64().expect("an id") as u32).collect();
    let options = StepOptions::one_sequence(ids.len());
    let mut model = OneSequence::new(LlamaInfer::new(ops, &checkpoint, options).expect("fits"));
    let mut fed = 0;
    for (place, expected) in list(&golden["places"]).iter().zip(list(&golden["logits"])) {
        let next = place.as_u64().expect("a place") as usize + 1;
        let expected: Vec<f32> = list(&expected).iter().map(|x| x.as_f64().expect("a number") as f32).collect();
        let off = gap(model.feed(&ids[fed..next]), &expected);
        assert!(off < BF16, "logits after token {place} are off by {off}");
        fed = next;
    }
}

/// A random Llama with heads of 64 in groups: prompts take the kernels for many rows.
pub fn llama_weights(context_len: usize) -> LlamaWeights {
    let shape = LlamaShape {
        vocab_size: 97,
        n_layer: 2,
        n_head: 4,
        n_kv_head: 2,
        head_size: 64,
        n_embd: 64,
        n_ff: 160,
        context_len,
        norm_eps: 1e-5,
        tied: false,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
    };
    LlamaWeights::random(&LlamaConfig::new(shape).expect("a shape"), 5)
}

fn llama<B: OpsInfer>(ops: B) -> OneSequence<LlamaInfer<B>> {
    OneSequence::new(LlamaInfer::new(ops, &llama_weights(48), StepOptions::one_sequence(48)).expect("fits"))
}

fn tokens() -> Vec<u32> {
    (0..40u32).map(|i| (i * i * 31 + i * 7) % 97).collect()
}

/// Logits after prompts and single tokens are nearly those of the processor, for both families.
pub fn models_agree_with_the_processor<B: OpsInfer>(card: impl Fn() -> Cuda, cpu: impl Fn() -> B) {
    let compare = |got: &mut dyn TextModel, expected: &mut dyn TextModel, what: &str| {
        for piece in [&tokens()[..30], &tokens()[30..31], &tokens()[31..]] {
            let off = gap(got.feed(piece), expected.feed(piece));
            assert!(off < BF16, "{what}: {off}");
        }
    };
    compare(&mut llama(card()), &mut llama(cpu()), "Llama");
    let config = Gpt2Config::new(97, 2, 2, 128, 48).expect("a shape");
    let weights = Weights::random(&config, 3);
    let options = StepOptions::one_sequence(48);
    let mut got = OneSequence::new(Gpt2Infer::new(card(), &weights, options).expect("fits"));
    let mut expected = OneSequence::new(Gpt2Infer::new(cpu(), &weights, options).expect("fits"));
    compare(&mut got, &mut expected, "GPT-2");
}

/// With batch invariance a prompt gives the same bits in one piece, in chunks and token by token.
pub fn pieces_change_no_bit(card: impl Fn() -> Cuda) {
    let logits = |pieces: &[usize]| {
        let mut model = llama(card().with_batch_invariance());
        let (mut fed, mut last) = (0, Vec::new());
        for len in pieces {
            last = model.feed(&tokens()[fed..fed + len]).to_vec();
            fed += len;
        }
        last
    };
    let whole = logits(&[24]);
    assert_eq!(logits(&[17, 7]), whole);
    assert_eq!(logits(&[1; 24]), whole);
}
