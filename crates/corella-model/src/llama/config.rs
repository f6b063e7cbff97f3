//! The shape of a Llama.

use super::rope::{Rope, RopeScaling};
use crate::ModelError;

/// No dimension is larger.
const LARGEST: usize = 1 << 24;
/// No model has more blocks; the largest Llama has 126.
const MOST_LAYERS: usize = 4096;

/// The numbers of a shape, before they are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaShape {
    /// V, the tokens that can be predicted.
    pub vocab_size: usize,
    /// L, the blocks.
    pub n_layer: usize,
    /// NH, the heads of queries.
    pub n_head: usize,
    /// NKV, the heads of keys and values; divides NH.
    pub n_kv_head: usize,
    /// HS, the size of a head; even.
    pub head_size: usize,
    /// C, the width.
    pub n_embd: usize,
    /// F, the width of the feed-forward layer.
    pub n_ff: usize,
    /// T, the longest context.
    pub context_len: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Whether the output head is the token embedding.
    pub tied: bool,
    /// Rotary positions.
    pub rope: Rope,
}

/// A shape that a Llama can have: every value is in range, and they fit each other.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    shape: LlamaShape,
}

impl std::ops::Deref for LlamaConfig {
    type Target = LlamaShape;
    fn deref(&self) -> &LlamaShape {
        &self.shape
    }
}

impl LlamaConfig {
    /// Checks a shape.
    pub fn new(shape: LlamaShape) -> Result<Self, ModelError> {
        let counts = [
            ("vocab_size", shape.vocab_size, LARGEST),
            ("n_layer", shape.n_layer, MOST_LAYERS),
            ("n_head", shape.n_head, LARGEST),
            ("n_kv_head", shape.n_kv_head, LARGEST),
            ("head_size", shape.head_size, LARGEST),
            ("n_embd", shape.n_embd, LARGEST),
            ("n_ff", shape.n_ff, LARGEST),
            ("context_len", shape.context_len, LARGEST),
        ];
        for (field, value, most) in counts {
            check(field, value, (1..=most).contains(&value), || format!("must be from 1 to {most}"))?;
        }
        let (heads, kv, hs) = (shape.n_head, shape.n_kv_head, shape.head_size);
        check("n_kv_head", kv, heads.is_multiple_of(kv), || format!("must divide n_head = {heads}"))?;
        check("head_size", hs, hs.is_multiple_of(2), || "must be even, for rotary pairs".to_owned())?;
        let eps = shape.norm_eps;
        check("norm_eps", eps, eps.is_finite() && eps > 0.0, || "must be above 0 and finite".to_owned())?;
        shape.rope.check(hs)?;
        let config = LlamaConfig { shape };
        let counted = config.checked_count();
        check("n_embd", config.n_embd, counted.is_some(), || "the parameters must be fewer than 2^42".to_owned())?;
        Ok(config)
    }

    /// Names of the published sizes.
    pub const PRESETS: [&str; 8] = [
        "llama-3-8b",
        "llama-3-70b",
        "llama-3.1-8b",
        "llama-3.1-70b",
        "llama-3.1-405b",
        "llama-3.2-1b",
        "llama-3.2-3b",
        "llama-3.3-70b",
    ];

    /// One of [`LlamaConfig::PRESETS`] (The Llama 3 Herd of Models, arXiv 2407.21783).
    pub fn preset(name: &str) -> Option<Self> {
        let (n_layer, n_embd, n_head, head_size, n_ff, tied, factor) = match name {
            "llama-3-8b" => (32, 4096, 32, 128, 14336, false, None),
            "llama-3-70b" => (80, 8192, 64, 128, 28672, false, None),
            "llama-3.1-8b" => (32, 4096, 32, 128, 14336, false, Some(8.0)),
            "llama-3.1-70b" | "llama-3.3-70b" => (80, 8192, 64, 128, 28672, false, Some(8.0)),
            "llama-3.1-405b" => (126, 16384, 128, 128, 53248, false, Some(8.0)),
            "llama-3.2-1b" => (16, 2048, 32, 64, 8192, true, Some(32.0)),
            "llama-3.2-3b" => (28, 3072, 24, 128, 8192, true, Some(32.0)),
            _ => return None,
        };
        let scaling = factor.map_or(RopeScaling::None, |factor| RopeScaling::Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192.0,
        });
        let context_len = if factor.is_some() { 131_072 } else { 8192 };
        let shape = LlamaShape {
            vocab_size: 128_256,
            n_layer,
            n_head,
            n_kv_head: 8,
            head_size,
            n_embd,
            n_ff,
            context_len,
            norm_eps: 1e-5,
            tied,
            rope: Rope { theta: 500_000.0, scaling },
        };
        Some(LlamaConfig { shape })
    }

    /// The epsilon of the norms for a text: the shortest number that is read back as the same f32.
    pub fn norm_eps_in_text(&self) -> f64 {
        self.norm_eps.to_string().parse().unwrap_or(f64::from(self.norm_eps))
    }

    /// Width of q, k and v side by side.
    pub fn qkv_width(&self) -> usize {
        (self.n_head + 2 * self.n_kv_head) * self.head_size
    }

    /// Number of parameters, a tied head counted once.
    pub fn parameter_count(&self) -> usize {
        self.checked_count().unwrap_or(usize::MAX)
    }

    fn checked_count(&self) -> Option<usize> {
        let c = self.n_embd;
        let heads = self.n_head.checked_mul(2)?.checked_add(2 * self.n_kv_head)?;
        let attention = heads.checked_mul(self.head_size)?.checked_mul(c)?;
        let block = self.n_ff.checked_mul(3)?.checked_mul(c)?.checked_add(attention)?.checked_add(2 * c)?;
        let embeddings = self.vocab_size.checked_mul(c)?.checked_mul(if self.tied { 1 } else { 2 })?;
        block.checked_mul(self.n_layer)?.checked_add(embeddings)?.checked_add(c).filter(|n| *n < 1 << 42)
    }
}

fn check(
    field: &'static str,
    value: impl std::fmt::Display,
    ok: bool,
    rule: impl FnOnce() -> String,
) -> Result<(), ModelError> {
    if ok { Ok(()) } else { Err(ModelError::BadConfig { field, value: value.to_string(), rule: rule() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes_have_their_published_counts() {
        let published = [
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.2-3b", 3_212_749_824),
            ("llama-3.1-8b", 8_030_261_248),
            ("llama-3.1-70b", 70_553_706_496),
            ("llama-3.3-70b", 70_553_706_496),
            ("llama-3.1-405b", 405_853_388_800),
        ];
        assert!(LlamaConfig::PRESETS.iter().all(|name| LlamaConfig::preset(name).is_some()));
        for (name, count) in published {
            let config = LlamaConfig::preset(name).expect(name);
            assert_eq!(config.parameter_count(), count, "{name}");
            assert_eq!(LlamaConfig::new(config.shape.clone()).expect(name), config, "{name}");
        }
    }

    #[test]
    fn shapes_that_no_llama_has_are_refused_with_field_and_rule() {
        let good = LlamaConfig::preset("llama-3.2-1b").expect("known").shape;
        let refused = |field: &str, change: &dyn Fn(&mut LlamaShape)| {
            let mut shape = good.clone();
            change(&mut shape);
            match LlamaConfig::new(shape) {
                Err(ModelError::BadConfig { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        };
        refused("n_head", &|s| s.n_head = 0);
        refused("n_kv_head", &|s| s.n_kv_head = 0);
        refused("n_kv_head", &|s| s.n_kv_head = 5);
        refused("n_kv_head", &|s| s.n_kv_head = 64);
        refused("n_layer", &|s| s.n_layer = 0);
        refused("n_layer", &|s| s.n_layer = 1 << 31);
        refused("vocab_size", &|s| s.vocab_size = 0);
        refused("head_size", &|s| s.head_size = 63);
        refused("context_len", &|s| s.context_len = 0);
        refused("n_embd", &|s| s.n_embd = usize::MAX);
        for eps in [0.0, -1e-5, f32::NAN, f32::INFINITY] {
            refused("norm_eps", &|s| s.norm_eps = eps);
        }
        for theta in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY] {
            refused("rope_theta", &|s| s.rope.theta = theta);
        }
        for factor in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            refused("rope factor", &|s| s.rope.scaling = RopeScaling::Linear { factor });
        }
        for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let numbers = [8.0, 1.0, 4.0, 8192.0];
            for (at, field) in ["rope_scaling", "rope_scaling", "high_freq_factor", "rope_scaling"].iter().enumerate() {
                let mut numbers = numbers;
                numbers[at] = wrong;
                let [factor, low_freq_factor, high_freq_factor, original_context] = numbers;
                let scaling = RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context };
                refused(field, &|s| s.rope.scaling = scaling.clone());
            }
        }
        // Equal factors leave nothing to mix over: the rule would divide by 0.
        refused("high_freq_factor", &|s| {
            let (factor, original_context) = (8.0, 8192.0);
            s.rope.scaling =
                RopeScaling::Llama3 { factor, low_freq_factor: 4.0, high_freq_factor: 4.0, original_context };
        });
        for divisors in [vec![], vec![1.0; 31], vec![0.0; 32], vec![f32::NAN; 32]] {
            refused("rope_freqs", &|s| {
                s.rope.scaling = RopeScaling::Divisors { divisors: divisors.clone(), original_context: None }
            });
        }
        refused("n_embd", &|s| (s.n_layer, s.n_embd, s.n_ff) = (4096, 1 << 24, 1 << 24));
    }
}
