//! The inference half of the contract on a card.

mod angles;
mod batch;
mod cached;
mod draw;
mod paged;
mod pages;
mod products;
mod recorded;
mod weight;

pub(crate) use angles::Angles;
pub use batch::Batch;
pub use cached::Kv;
pub use pages::KvPages;
pub use recorded::Recorded;
pub use weight::Weight;

use corella_ops::shapes;
use corella_ops::{
    BatchPlan, Draw, Dtype, EmbeddingDims, HeadDims, KvKind, KvPagesDims, Linear, OpsError, OpsInfer, OpsTrain,
    ReadRows, RopePairs, Store, WeightFormat,
};

use crate::array::Buf;
use crate::backend::{Cuda, done, no_memory};
use crate::ids::Ids;
use crate::parallel::in_parallel;

/// Bytes of a weight that a thread reads, packs and sends to the card at once, about.
const STRETCH: usize = 4 << 20;

impl OpsInfer for Cuda {
    type Kv = Kv;
    type Weight = Weight;
    type KvPages = KvPages;
    type Batch = Batch;
    type Recorded = Recorded;

    fn step_dtype(&self) -> Dtype {
        Dtype::Bf16
    }

    fn kv(&self, capacity: usize, c: usize) -> Result<Kv, OpsError> {
        Kv::new(self.shared_driver(), capacity, c).map_err(no_memory(8 * (capacity * c) as u64, "keys and values"))
    }

    fn attention_cached(&self, out: &mut Buf, kv: &mut Kv, qkv: &Buf, pos0: usize, n: usize, nh: usize, hs: usize) {
        self.attend_cached(out, kv, qkv, pos0, n, nh, hs);
    }

    fn weight(&self, format: WeightFormat, rows: usize, cols: usize, what: &str) -> Result<Weight, OpsError> {
        format.check_row(cols, what)?;
        let bytes = Weight::bytes_of(format, rows, cols);
        Weight::new(self.shared_driver(), format, rows, cols).map_err(no_memory(bytes, what))
    }

    fn weight_rows(&self, w: &mut Weight, first: usize, bytes: &[u8]) {
        done(w.write_rows(self.driver(), first, bytes));
    }

    fn weight_fill<E: Send>(
        &self,
        w: &mut Weight,
        rows: usize,
        row_bytes: usize,
        read: &ReadRows<'_, E>,
    ) -> Result<(), E> {
        if !self.keeps() {
            return Ok(());
        }
        let (w, step) = (&*w, (STRETCH / row_bytes.max(1)).max(1));
        let firsts: Vec<usize> = (0..rows).step_by(step).collect();
        let fill = |first: &usize| {
            let mut bytes = vec![0; step.min(rows - first) * row_bytes];
            read(*first, &mut bytes)?;
            done(w.write_rows(self.driver(), *first, &bytes));
            Ok(())
        };
        in_parallel(&firsts, fill).into_iter().collect()
    }

    fn weight_bytes(&self, w: &Weight) -> u64 {
        w.bytes()
    }

    fn lookup(&self, out: &mut Buf, ids: &Ids, w: &Weight, n: usize, store: Store) {
        shapes::embedding(out, ids, EmbeddingDims { n, c: w.cols });
        self.unpack(out.array(), Some(ids), w, n, store);
    }

    fn linear(&self, out: &mut Buf, x: &Buf, n: usize, layers: &[Linear<'_, Self>], store: Store) {
        self.packed_linear(out, x, n, layers, store);
    }

    fn batch(&self, plan: BatchPlan<'_>) -> Result<Batch, OpsError> {
        shapes::batch(&plan);
        Batch::new(self, plan).map_err(no_memory(0, "the plan of a step"))
    }

    fn decode_rows(&self, n: usize) -> usize {
        recorded::rows(n)
    }

    fn decode_batch(&self, plan: BatchPlan<'_>) -> Result<Batch, OpsError> {
        shapes::batch(&plan);
        Batch::of_single_tokens(self, plan).map_err(no_memory(0, "the plan of a step"))
    }

    fn repeat(&self, recorded: &mut Recorded, batch: &Batch, work: &mut dyn FnMut()) {
        self.repeat_step(recorded, batch, work);
    }

    fn select_rows(&self, out: &mut Buf, x: &Buf, rows: &[u32], c: usize) {
        shapes::select_rows(out, x, rows, c);
        self.select(out, x, rows, c);
    }

    fn draw(&self, logits: &mut Buf, v: usize, draws: &[(usize, &Draw)]) -> Option<Vec<Option<u32>>> {
        Some(self.draw_tokens(logits, v, draws))
    }

    fn rope_rows(&self, qkv: &mut Buf, batch: &Batch, pairs: RopePairs, dims: HeadDims) {
        shapes::rope_rows(qkv, batch.n, batch.pairs, dims);
        self.turn_rows(qkv, batch, pairs, dims);
    }

    fn kv_kinds() -> &'static [KvKind] {
        &[KvKind::F16, KvKind::Bf16, KvKind::Q8]
    }

    fn kv_pages(&self, dims: KvPagesDims) -> Result<KvPages, OpsError> {
        shapes::kv_pages(dims);
        if !Self::kv_kinds().contains(&dims.kind) {
            let known: Vec<&str> = Self::kv_kinds().iter().map(|kind| kind.name()).collect();
            let (asked, known) = (dims.kind.name(), known.join(", "));
            return Err(OpsError::UnknownKvKind { device: "cuda", asked, known });
        }
        self.check_heads(dims.hs)?;
        KvPages::new(self.shared_driver(), dims).map_err(no_memory(dims.bytes(), "pages of keys and values"))
    }

    fn copy_page(&self, pages: &mut KvPages, from: u32, to: u32) {
        shapes::copy_page(pages.dims, from as usize, to as usize);
        self.copy_pages(pages, from as usize, to as usize);
    }

    fn attention_paged(&self, out: &mut Buf, pages: &mut KvPages, qkv: &Buf, batch: &Batch, dims: HeadDims) {
        shapes::attention_paged(out, qkv, pages.dims, (batch.n, batch.page_len), dims);
        self.attend_paged(out, pages, qkv, batch, dims);
    }
}
