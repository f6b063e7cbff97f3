//! The norm of the gradients, and AdamW.

use corella_ops::AdamW;

use crate::backend::{Argument, Cuda, done};
use crate::driver::Address;
use crate::geometry::{self, CHUNK_SQUARES};
use crate::param::Param;

/// As `struct AdamW` of kernels/optimizer.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Hyper {
    lr: f32,
    beta1: f32,
    beta2: f32,
    correct1: f32,
    correct2: f32,
    eps: f32,
    weight_decay: f32,
    grad_scale: f32,
}

impl Argument for Hyper {}

impl Hyper {
    fn new(h: AdamW) -> Hyper {
        let correct = |beta: f32| {
            let power = f64::from(beta).powf(h.step as f64);
            (1.0 / (1.0 - power)) as f32
        };
        Hyper {
            lr: h.lr,
            beta1: h.beta1,
            beta2: h.beta2,
            correct1: correct(h.beta1),
            correct2: correct(h.beta2),
            eps: h.eps,
            weight_decay: h.weight_decay,
            grad_scale: h.grad_scale,
        }
    }
}

impl Cuda {
    /// Σ g² of all parameters, added up in their order; the host waits once.
    pub(crate) fn square_sum(&self, params: &[Param]) -> f64 {
        let grads: Vec<(Address, usize)> = params.iter().filter_map(|p| p.grad_read().map(|at| (at, p.len))).collect();
        let most = grads.iter().map(|(_, len)| len.div_ceil(CHUNK_SQUARES)).max().unwrap_or(0);
        let partial = self.scratch("squares of chunks", 8 * most);
        let totals = self.scratch("squares of gradients", 8 * grads.len());
        for ((at, len), i) in grads.iter().zip(0u64..) {
            let shape = geometry::squares(*len);
            let arguments: [&dyn Argument; 4] = [&partial, at, &(*len as u64), &(CHUNK_SQUARES as u64)];
            self.run("square_sums", shape, &arguments);
            self.run("total", geometry::one_block(), &[&(totals + 8 * i), &partial, &shape.grid[0]]);
        }
        let mut bytes = vec![0; 8 * grads.len()];
        done(self.driver().download(totals, &mut bytes));
        let numbers =
            bytes.chunks_exact(8).map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
        numbers.sum()
    }

    #[track_caller]
    pub(crate) fn update(&self, p: &mut Param, hyper: AdamW) {
        let (u, len) = (p.update(), p.len as u64);
        let arguments: [&dyn Argument; 7] = [&u.value, &u.image, &u.grad, &u.m, &u.v, &len, &Hyper::new(hyper)];
        self.run("adamw", geometry::elements(p.len), &arguments);
    }
}
