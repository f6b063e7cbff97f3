//! The B operand of a layer's products, in whatever form its weights are kept.

#[cfg(target_arch = "x86_64")]
use super::bf16::Bf16;
#[cfg(target_arch = "x86_64")]
use super::dot::{Panels, STEP};
use super::gemm::Source;
use super::pack::Operand;

/// B, for an A of numbers `T`.
#[derive(Clone, Copy)]
pub enum Right<'a, T = f32> {
    /// For any kernel.
    Source(Source<'a, T>),
    /// For instructions that multiply in bf16. Only A in bf16 goes with them: the function says that `T` is that.
    #[cfg(target_arch = "x86_64")]
    Panels(Panels<'a>, for<'b> fn(Operand<'b, T>) -> Operand<'b, Bf16>),
}

impl<'a, T> Right<'a, T> {
    /// Packed for this product.
    pub fn fresh(operand: Operand<'a, T>) -> Right<'a, T> {
        Right::Source(Source::Fresh(operand))
    }

    /// `n` outer indices as the inner size of the next product: in whole steps where that product's kernel takes steps.
    pub fn steps(&self, n: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Right::Panels(..) => n.next_multiple_of(STEP),
            Right::Source(_) => n,
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<'a> Right<'a, Bf16> {
    /// Packed before, on paths with instructions for bf16.
    pub fn panels(panels: Panels<'a>) -> Right<'a, Bf16> {
        fn same(operand: Operand<'_, Bf16>) -> Operand<'_, Bf16> {
            operand
        }
        Right::Panels(panels, same)
    }
}
