//! The contract of inference: products with weights packed when loaded, and attention over a paged KV cache.
//!
//! Vectors (norms, biases) are [`OpsTrain::Param`]s, and norms, GELU, SwiGLU and residuals are the operations of
//! [`OpsTrain`]; what stands here is what only inference needs. The conventions are those of [`crate::contract`], and
//! a batch is ragged: `N` rows, each a token at a position of one of several sequences, prompts and single tokens mixed.
//!
//! One rule holds for all operations: **a row's bits depend on that row's data alone**, never on the other rows of the
//! call, their number, or the threads. Sums over the inner dimension have one order; activations are rounded by row and
//! block where weights are quantised, and where weights are in BF16 to 16 bits, or to BF16 if asked for; keys and values are rounded to the cache's type before anything reads them; attention over long contexts is cut at
//! absolute positions. So a prompt gives the same bits in one piece, in chunks, token by token, alone or among others.

use std::fmt::Debug;

use crate::contract::{Dtype, OpsError, OpsTrain};
use crate::draws::Draw;
use crate::quant::WeightFormat;
use crate::quant::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

/// What happens to the old content of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// It is replaced.
    Write,
    /// The result is added to it.
    Add,
}

/// One of the linear layers that read the same input.
#[derive(Debug)]
pub struct Linear<'a, B: OpsInfer + ?Sized> {
    /// (OC, C).
    pub w: &'a B::Weight,
    /// (OC).
    pub bias: Option<&'a B::Param>,
}

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// (x_i, x_{i+R/2}): Hugging Face's order, "rotate half".
    Halves,
    /// (x_{2i}, x_{2i+1}): Meta's order, of GGUF and llama2.c files.
    Neighbours,
}

/// Heads of attention. qkv is (N, (NH + 2·NKV)·HS): the heads of q, then of k, then of v, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadDims {
    /// Heads of q; a multiple of `nkv`. Head h reads the keys and values of head h / (nh / nkv).
    pub nh: usize,
    /// Heads of k and v.
    pub nkv: usize,
    /// Size of a head.
    pub hs: usize,
}

impl HeadDims {
    /// Width of a row of qkv.
    pub fn qkv(self) -> usize {
        (self.nh + 2 * self.nkv) * self.hs
    }
}

/// Number type of cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvKind {
    /// As computed: for log-likelihoods that are compared with those of others.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// 8-bit integers with one f32 scale for each position and head.
    Q8,
}

impl KvKind {
    /// Every kind.
    pub const ALL: [KvKind; 4] = [KvKind::F32, KvKind::F16, KvKind::Bf16, KvKind::Q8];

    /// Name as in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            KvKind::F32 => "f32",
            KvKind::F16 => "f16",
            KvKind::Bf16 => "bf16",
            KvKind::Q8 => "q8",
        }
    }

    /// Bytes that `hs` cached numbers take.
    pub fn bytes(self, hs: usize) -> usize {
        match self {
            KvKind::F32 => 4 * hs,
            KvKind::F16 | KvKind::Bf16 => 2 * hs,
            KvKind::Q8 => hs + 4,
        }
    }

    /// Rounds a head of keys or values (HS) to what the cache keeps: the definition that every backend follows.
    pub fn round(self, head: &mut [f32]) {
        match self {
            KvKind::F32 => {}
            KvKind::F16 => head.iter_mut().for_each(|x| *x = f16_to_f32(f32_to_f16(*x))),
            KvKind::Bf16 => head.iter_mut().for_each(|x| *x = bf16_to_f32(f32_to_bf16(*x))),
            KvKind::Q8 => {
                let (scale, inverse) = int8_scale(head);
                head.iter_mut().for_each(|x| *x = scale * (*x * inverse).round_ties_even());
            }
        }
    }
}

/// Scale of numbers rounded to −127 ..= 127, max |x| / 127, and its inverse; both 0 for zeros, NaN if there is a NaN.
#[inline(always)]
pub fn int8_scale(x: &[f32]) -> (f32, f32) {
    // As integers, magnitudes are in the same order, and NaN is the largest.
    let max = f32::from_bits(x.iter().fold(0, |max, x| max.max(x.to_bits() & 0x7fff_ffff)));
    // Below this the inverse would overflow.
    if max < 1e-36 { (0.0, 0.0) } else { (max / 127.0, 127.0 / max) }
}

/// Shape of one layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvPagesDims {
    /// Pages.
    pub pages: usize,
    /// Positions of a page, a multiple of [`KvPagesDims::GROUP`].
    pub page_len: usize,
    /// Heads of k and v.
    pub nkv: usize,
    /// Size of a head.
    pub hs: usize,
    /// Number type.
    pub kind: KvKind,
}

impl KvPagesDims {
    /// Positions that lie together inside a page.
    pub const GROUP: usize = 16;

    /// Bytes of all pages.
    pub fn bytes(self) -> u64 {
        2 * (self.pages * self.page_len * self.nkv) as u64 * self.kind.bytes(self.hs) as u64
    }
}

/// Where a row of a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowAt {
    /// Which page table of the batch.
    pub sequence: u32,
    /// Position in its sequence, from 0.
    pub position: u32,
}

/// What the rows of a step are; the same for all layers.
#[derive(Clone, Copy, Debug)]
pub struct BatchPlan<'a> {
    /// One entry for each of the N rows. No two rows are at the same position of the same sequence.
    pub rows: &'a [RowAt],
    /// For each sequence the pages of its positions: position p lies in page `tables[sequence][p / page_len]`. A page that
    /// several sequences share must not be written by a row of this batch.
    pub tables: &'a [&'a [u32]],
    /// Positions of a page.
    pub page_len: usize,
    /// Angle per position of each pair of a head, in radians: R/2 numbers for the first R ≤ HS elements of every head. Empty
    /// without rotary positions.
    pub frequencies: &'a [f32],
}

/// Fills bytes with whole rows of a matrix as they lie in a file, from a row on; from any thread.
pub type ReadRows<'a, E> = dyn Fn(usize, &mut [u8]) -> Result<(), E> + Sync + 'a;

/// Bytes that are read at once where a backend says nothing else, about.
const FILL_BYTES: usize = 4 << 20;

/// Inference: what generation needs beyond the forward half of [`OpsTrain`].
pub trait OpsInfer: OpsTrain {
    /// Keys and values of one layer of one sequence, for positions 0 .. capacity.
    type Kv: Send + Debug;
    /// A matrix (OC, C) that is only read, packed for products when it is loaded.
    type Weight: Send + Sync + Debug;
    /// Pages of keys and values of one layer, for many sequences.
    type KvPages: Send + Sync + Debug;
    /// A [`BatchPlan`] on the device, with the angles of its rows.
    type Batch: Send + Sync + Debug;
    /// What [`OpsInfer::repeat`] keeps of a model's steps.
    type Recorded: Default + Send + Debug;

    /// Format in which models keep the activations of a step, except the residual stream and logits, which are f32.
    fn step_dtype(&self) -> Dtype {
        Dtype::F32
    }

    /// An empty cache for `capacity` positions of width `c`.
    fn kv(&self, capacity: usize, c: usize) -> Result<Self::Kv, OpsError>;
    /// Appends the k and v of `qkv` (n,3C) at positions pos0 .. pos0+n, then attends from each of the n queries to
    /// every position up to its own.   out: (n,C).   WRITES out. A prompt gives the same bits in one piece or many.
    fn attention_cached(
        &self,
        out: &mut Self::Buf,
        kv: &mut Self::Kv,
        qkv: &Self::Buf,
        pos0: usize,
        n: usize,
        nh: usize,
        hs: usize,
    );

    // ---- weights ------------------------------------------------------------------------------------------------
    /// Room for a matrix of `rows × cols` weights, all of whose rows [`OpsInfer::weight_rows`] must fill before use.
    fn weight(&self, format: WeightFormat, rows: usize, cols: usize, what: &str) -> Result<Self::Weight, OpsError>;
    /// Packs the rows `first ..` from `bytes` as they lie in a file: whole rows of the weight's format, any number of them in
    /// any order of calls, so that a tensor never lies in memory twice. Panics if the rows do not fit.
    #[track_caller]
    fn weight_rows(&self, w: &mut Self::Weight, first: usize, bytes: &[u8]);
    /// Packs all `rows` rows of `row_bytes` bytes each. `read` may be asked from several threads, in any order; what is
    /// packed when it fails is not defined.
    fn weight_fill<E: Send>(
        &self,
        w: &mut Self::Weight,
        rows: usize,
        row_bytes: usize,
        read: &ReadRows<'_, E>,
    ) -> Result<(), E> {
        let step = (FILL_BYTES / row_bytes.max(1)).max(1);
        let mut bytes = Vec::new();
        for first in (0..rows).step_by(step) {
            bytes.resize(step.min(rows - first) * row_bytes, 0);
            read(first, &mut bytes)?;
            self.weight_rows(w, first, &bytes);
        }
        Ok(())
    }
    /// Bytes that the packed weight takes.
    fn weight_bytes(&self, w: &Self::Weight) -> u64;
    /// `out[n,:] (=, +=) w[ids[n],:]`, dequantised exactly, for the first `n` ids.   out: (N,C)  w: (V,C).
    #[track_caller]
    fn lookup(&self, out: &mut Self::Buf, ids: &Self::Ids, w: &Self::Weight, n: usize, store: Store);
    /// `out[n,:] (=, +=) [x·w₁ᵀ + b₁ | x·w₂ᵀ + b₂ | …]` for the first `n` rows: layers that read the same input write side
    /// by side (q, k and v; gate and up).   out: (N, Σ OC)  x: (N,C)  w: (OC,C)  b: (OC) or none.
    ///
    /// With quantised weights a backend may round each row of x to 8-bit integers by blocks of at most 256 elements.
    #[track_caller]
    fn linear(&self, out: &mut Self::Buf, x: &Self::Buf, n: usize, layers: &[Linear<'_, Self>], store: Store);

    // ---- rows of a batch ----------------------------------------------------------------------------------------
    /// Uploads a plan. Panics if a page table is too short for a row.
    #[track_caller]
    fn batch(&self, plan: BatchPlan<'_>) -> Result<Self::Batch, OpsError>;
    /// Rows that a model computes in a step of one token for each of `n` sequences: at least `n`. A backend that repeats steps
    /// ([`OpsInfer::repeat`]) names one of few sizes; what the rows behind `n` come to means nothing.
    fn decode_rows(&self, n: usize) -> usize {
        n
    }
    /// Uploads a plan of one token for each sequence, for operations on [`OpsInfer::decode_rows`] rows.
    #[track_caller]
    fn decode_batch(&self, plan: BatchPlan<'_>) -> Result<Self::Batch, OpsError> {
        self.batch(plan)
    }
    /// Runs `work`: the operations of a step with a batch of [`OpsInfer::decode_batch`]. A backend may record what they start
    /// and start that again in a later step, without `work`. So for one `recorded`, `work` must name the same operations, on
    /// the same arrays and as many rows, and must not move anything between host and device.
    fn repeat(&self, _recorded: &mut Self::Recorded, _batch: &Self::Batch, work: &mut dyn FnMut()) {
        work();
    }
    /// `out[i,:] = x[rows[i],:]`: the rows whose logits are wanted.   out: (rows.len(),C)  x: (N,C).   WRITES out.
    #[track_caller]
    fn select_rows(&self, out: &mut Self::Buf, x: &Self::Buf, rows: &[u32], c: usize);
    /// Turns the heads of q and k by each row's angles, in place; v stays. Pair i of a head at position p turns by
    /// a = p·frequencies\[i\]: (x, y) ← (x·cos a − y·sin a, y·cos a + x·sin a) (Su et al., arXiv 2104.09864). The product is
    /// rounded to f32 as in `transformers`, cosine and sine are exact to f32.   qkv: (N,(NH+2·NKV)·HS).   WRITES q and k.
    #[track_caller]
    fn rope_rows(&self, qkv: &mut Self::Buf, batch: &Self::Batch, pairs: RopePairs, dims: HeadDims);

    /// Draws a token from each named row of `logits` (N, v), whose edited logits it may change; none from a backend that leaves
    /// drawing to its caller. A row whose first logit is not a number has no token.
    fn draw(&self, _logits: &mut Self::Buf, _v: usize, _draws: &[(usize, &Draw)]) -> Option<Vec<Option<u32>>> {
        None
    }

    /// The first `len` elements of `buf` where they lie; none if they are not in f32 in the host's memory.
    #[track_caller]
    fn view<'a>(&self, _buf: &'a Self::Buf, _len: usize) -> Option<&'a [f32]> {
        None
    }

    /// How far products with weights in BF16 may be off, relative to the largest result: by what activations lose that keep 16 bits.
    /// A backend that rounds them further says by how much.
    fn bf16_rounding(&self) -> f64 {
        1.0 / 65536.0
    }

    /// Runs `job(0) … job(tasks - 1)`, each once, on those of the host's threads that the backend keeps, between two operations.
    fn share(&self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(job);
    }

    // ---- paged attention ----------------------------------------------------------------------------------------
    /// The kinds of cache that [`OpsInfer::kv_pages`] has.
    fn kv_kinds() -> &'static [KvKind] {
        &KvKind::ALL
    }
    /// Pages for one layer. Their content is not defined until it is written.
    #[track_caller]
    fn kv_pages(&self, dims: KvPagesDims) -> Result<Self::KvPages, OpsError>;
    /// Copies the keys and values of page `from` over page `to`: how a sequence goes on from a page that it shares.
    #[track_caller]
    fn copy_page(&self, pages: &mut Self::KvPages, from: u32, to: u32);
    /// First the keys and values of every row are rounded to the cache's type ([`KvKind::round`]) and written at the row's
    /// position; then each row's queries attend to all positions of its sequence up to its own:
    /// out = Σ_s softmax_s(q·k_s / sqrt(HS)) v_s for each head.
    /// out: (N,NH·HS)  qkv: (N,(NH+2·NKV)·HS).   WRITES out and the pages.
    #[track_caller]
    fn attention_paged(
        &self,
        out: &mut Self::Buf,
        pages: &mut Self::KvPages,
        qkv: &Self::Buf,
        batch: &Self::Batch,
        dims: HeadDims,
    );
}
