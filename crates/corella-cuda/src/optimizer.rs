//! The norm of the gradients, and AdamW: many tensors by one launch, whose arguments hold a table of them.

use corella_ops::AdamW;

use crate::backend::{Argument, Cuda, done};
use crate::driver::Address;
use crate::geometry::{self, CHUNK_SQUARES, CHUNK_UPDATES};
use crate::param::Param;

/// Tensors of a launch, as in kernels/optimizer.cu: arguments have room for 4 KB.
const SQUARES: usize = 128;
const UPDATES: usize = 64;

/// As `struct Squares` of kernels/optimizer.cu.
#[repr(C)]
struct Squares {
    grad: [Address; SQUARES],
    len: [u64; SQUARES],
    first: [u32; SQUARES],
    count: u32,
    chunk: u32,
}

/// As `struct Updates` of kernels/optimizer.cu.
#[repr(C)]
struct Updates {
    value: [Address; UPDATES],
    image: [Address; UPDATES],
    grad: [Address; UPDATES],
    m: [Address; UPDATES],
    v: [Address; UPDATES],
    len: [u64; UPDATES],
    first: [u32; UPDATES],
    weight_decay: [f32; UPDATES],
    count: u32,
    chunk: u32,
}

const _: () = assert!(size_of::<Squares>() + 8 <= 4096 && size_of::<Updates>() + size_of::<Hyper>() <= 4096);

impl Argument for Squares {}
impl Argument for Updates {}

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
            grad_scale: h.grad_scale,
        }
    }
}

impl Cuda {
    /// Σ g² of all parameters, added up in their order; the host waits once.
    pub(crate) fn square_sum(&self, params: &[Param]) -> f64 {
        let grads: Vec<(Address, usize)> = params.iter().filter_map(|p| p.grad_read().map(|at| (at, p.len))).collect();
        let blocks: usize = grads.iter().map(|(_, len)| len.div_ceil(CHUNK_SQUARES)).sum();
        if blocks == 0 {
            return 0.0;
        }
        // The result stands before the blocks' sums.
        let total = self.scratch("squares of gradients", 8 * (1 + blocks));
        let partial = total + 8;
        let mut at = partial;
        for tensors in grads.chunks(SQUARES) {
            let mut table = Squares {
                grad: [0; SQUARES],
                len: [0; SQUARES],
                first: [0; SQUARES],
                count: tensors.len() as u32,
                chunk: CHUNK_SQUARES as u32,
            };
            let mut next = 0;
            for (i, (grad, len)) in tensors.iter().enumerate() {
                (table.grad[i], table.len[i], table.first[i]) = (*grad, *len as u64, next as u32);
                next += len.div_ceil(CHUNK_SQUARES);
            }
            self.run("square_sums", geometry::blocks(next), &[&at, &table]);
            at += 8 * next as u64;
        }
        self.run("total", geometry::blocks(1), &[&total, &partial, &(blocks as u32)]);
        let mut bytes = [0; 8];
        done(self.driver().download(total, &mut bytes));
        f64::from_le_bytes(bytes)
    }

    /// AdamW of parameters with a weight decay each.
    #[track_caller]
    pub(crate) fn update(&self, params: &mut [Param], hyper: AdamW, weight_decays: &[f32]) {
        assert_eq!(params.len(), weight_decays.len(), "parameters and their weight decays");
        for (params, decays) in params.chunks_mut(UPDATES).zip(weight_decays.chunks(UPDATES)) {
            let none = [0; UPDATES];
            let mut table = Updates {
                value: none,
                image: none,
                grad: none,
                m: none,
                v: none,
                len: none,
                first: [0; UPDATES],
                weight_decay: [0.0; UPDATES],
                count: params.len() as u32,
                chunk: CHUNK_UPDATES as u32,
            };
            let mut next = 0;
            for (i, (p, decay)) in params.iter_mut().zip(decays).enumerate() {
                let u = p.update();
                (table.value[i], table.image[i], table.grad[i], table.m[i], table.v[i]) =
                    (u.value, u.image, u.grad, u.m, u.v);
                (table.len[i], table.first[i], table.weight_decay[i]) = (p.len as u64, next as u32, *decay);
                next += p.len.div_ceil(CHUNK_UPDATES);
            }
            self.run("adamw", geometry::blocks(next), &[&table, &Hyper::new(hyper)]);
        }
    }
}
