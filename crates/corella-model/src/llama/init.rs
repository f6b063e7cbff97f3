//! Random weights to train from.

use super::params::ParamSpec;
use crate::gpt2::Mersenne;

/// Draws the tensors of a table one after the other, from one generator.
pub fn random_tensor(seed: u64) -> impl FnMut(&ParamSpec) -> Vec<f32> {
    // The generator takes 32 bits; the rest of a long seed is folded in.
    let mut generator = Mersenne::new((seed ^ (seed >> 32)) as u32);
    move |spec| {
        if spec.vector {
            return vec![1.0; spec.len()];
        }
        let mut values = vec![0.0; spec.len()];
        generator.normal(&mut values, spec.std);
        values
    }
}
