//! Pages of keys and values on the card, as kernels/paged.cuh lays them out.

use std::sync::Arc;

use corella_ops::{KvKind, KvPagesDims};

use crate::backend::{Argument, Cuda, done};
use crate::driver::{Address, Driver, Memory};
use crate::error::CudaError;

/// Keys and values of one layer.
#[derive(Debug)]
pub struct KvPages {
    pub(crate) dims: KvPagesDims,
    k: Memory,
    v: Memory,
    k_scales: Memory,
    v_scales: Memory,
}

/// As `struct Pages` of kernels/paged.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PagesArgument {
    k: Address,
    v: Address,
    k_scales: Address,
    v_scales: Address,
    page_len: i32,
    nkv: i32,
    hs: i32,
    hsp: i32,
}

impl Argument for PagesArgument {}

/// Numbers of a head with the zeros behind them.
pub(crate) fn padded_head(hs: usize) -> usize {
    hs.next_multiple_of(8)
}

/// Bytes of a page: of its keys, or its values, and of their scales.
fn page_bytes(d: KvPagesDims) -> [usize; 2] {
    let positions = d.page_len * d.nkv;
    let quantised = d.kind == KvKind::Q8;
    [positions * padded_head(d.hs) * if quantised { 1 } else { 2 }, if quantised { 4 * positions } else { 0 }]
}

impl KvPages {
    pub(crate) fn new(driver: &Arc<dyn Driver>, dims: KvPagesDims) -> Result<KvPages, CudaError> {
        let [data, scales] = page_bytes(dims).map(|bytes| dims.pages * bytes);
        let memory = |bytes| Memory::zeros(driver, bytes);
        Ok(KvPages { dims, k: memory(data)?, v: memory(data)?, k_scales: memory(scales)?, v_scales: memory(scales)? })
    }

    /// As kernels take it.
    pub(crate) fn argument(&self) -> PagesArgument {
        let [page_len, nkv, hs, hsp] =
            [self.dims.page_len, self.dims.nkv, self.dims.hs, padded_head(self.dims.hs)].map(|x| x as i32);
        let [k, v, k_scales, v_scales] = [&self.k, &self.v, &self.k_scales, &self.v_scales].map(|memory| memory.at);
        PagesArgument { k, v, k_scales, v_scales, page_len, nkv, hs, hsp }
    }
}

impl Cuda {
    /// Page `from` over page `to`.
    #[track_caller]
    pub(crate) fn copy_pages(&self, pages: &mut KvPages, from: usize, to: usize) {
        let [data, scales] = page_bytes(pages.dims);
        for (memory, bytes) in
            [(&pages.k, data), (&pages.v, data), (&pages.k_scales, scales), (&pages.v_scales, scales)]
        {
            let place = |page: usize| memory.at + (page * bytes) as u64;
            done(self.driver().copy(place(to), place(from), bytes));
        }
    }
}
