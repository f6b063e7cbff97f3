//! A Llama whose rotary angles can be reckoned by hand.

use corella_model::Weights;
use corella_model::llama::{LlamaConfig, LlamaShape, LlamaWeights, Rope, RopeScaling};

/// Heads of four numbers, so of two rotary pairs: with the base 10,000 they turn by 1 and by 1/100 per position.
pub fn llama(tied: bool) -> LlamaWeights {
    let rope = Rope { theta: 10_000.0, scaling: RopeScaling::None };
    let shape = LlamaShape {
        vocab_size: 11,
        n_layer: 1,
        n_head: 2,
        n_kv_head: 1,
        head_size: 4,
        n_embd: 8,
        n_ff: 12,
        context_len: 16,
        norm_eps: 1e-5,
        tied,
        rope,
    };
    Weights::random(&LlamaConfig::new(shape).expect("valid"), 3)
}
