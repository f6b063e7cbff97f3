//! Keys and values of one sequence in f32: what the trainer's samples would use, and the plain form of a cache.

use std::sync::Arc;

use corella_ops::{AttentionDims, Dtype};

use super::products::{Part, elements_of_rows};
use crate::array::{Array, Buf};
use crate::attention::{PlainHeads, View, plain_launch};
use crate::backend::{Argument, Cuda};
use crate::driver::{Driver, Memory};
use crate::error::CudaError;
use crate::geometry::MOST_HS;

/// Keys and values of positions 0 .. capacity, each (capacity, C).
#[derive(Debug)]
pub struct Kv {
    k: Memory,
    v: Memory,
    capacity: usize,
    c: usize,
}

impl Kv {
    pub(crate) fn new(driver: &Arc<dyn Driver>, capacity: usize, c: usize) -> Result<Kv, CudaError> {
        let memory = || Memory::zeros(driver, 4 * capacity * c);
        Ok(Kv { k: memory()?, v: memory()?, capacity, c })
    }
}

impl Cuda {
    /// See [`corella_ops::OpsInfer::attention_cached`].
    #[track_caller]
    pub(crate) fn attend_cached(
        &self,
        out: &mut Buf,
        kv: &mut Kv,
        qkv: &Buf,
        pos0: usize,
        n: usize,
        nh: usize,
        hs: usize,
    ) {
        let c = kv.c;
        assert!(pos0 + n <= kv.capacity && c == nh * hs, "{n} more positions at {pos0} of {}", kv.capacity);
        assert!(hs <= MOST_HS, "heads of up to {MOST_HS}");
        out.holds(n * c);
        qkv.holds(3 * n * c);
        for (memory, part) in [(&kv.k, 1), (&kv.v, 2)] {
            let to = Part { array: Array::new(memory.at, Dtype::F32), first: (pos0 * c) as u64, width: c as u64 };
            let from = Part { array: qkv.array(), first: (part * c) as u64, width: 3 * c as u64 };
            let arguments: [&dyn Argument; 5] = [&to, &from, &(n as u32), &(c as u64), &0u32];
            self.run("copy_part", elements_of_rows(n, c), &arguments);
        }
        let view = |array, width: usize| View { array, offset: 0, width: width as u64 };
        let cached = |memory: &Memory| view(Array::new(memory.at, Dtype::F32), c);
        let [t, heads, size, keys, first] = [n, nh, hs, pos0 + n, pos0].map(|x| x as i32);
        let dims = PlainHeads { b: 1, t, nh: heads, nkv: heads, hs: size, keys, pos0: first };
        let arguments: [&dyn Argument; 6] =
            [&view(out.array(), c), &0u64, &view(qkv.array(), 3 * c), &cached(&kv.k), &cached(&kv.v), &dims];
        self.run("attention_plain", plain_launch(AttentionDims { b: 1, t: n, nh, nkv: nh, hs }, nh), &arguments);
    }
}
