//! The backend: the contract, operation by operation, as launches on a card.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use corella_ops::cpu::Cpu;
use corella_ops::shapes::{self, Length};
use corella_ops::{
    AdamW, AttentionDims, Choices, ClassifierDims, Dtype, EmbeddingDims, EncoderDims, GluDims, MatmulDims, NormDims,
    Normed, OpsError, OpsTrain, ParamPart,
};

use crate::array::{Array, Buf, from_bytes, to_bytes};
use crate::beside::Left;
use crate::driver::{Address, Driver, Launch, Memory};
use crate::error::CudaError;
use crate::geometry::{self, MOST_HS};
use crate::ids::Ids;
use crate::infer::Angles;
use crate::paper::Paper;
use crate::param::Param;
use crate::spare::Spare;

/// The CUDA backend.
///
/// Calls return when their kernels are queued. A card that fails in the middle (its memory is lost then, and with it the run)
/// ends the program with a message; what can be wrong before, is an error of [`crate::Card::open`].
pub struct Cuda {
    driver: Arc<dyn Driver>,
    scratch: Mutex<HashMap<&'static str, Memory>>,
    /// How often scratch memory has moved.
    moves: AtomicU64,
    spare: Arc<Spare>,
    left: Left,
    angles: Angles,
    sampler: Arc<Cpu>,
    batch_invariant: bool,
    records: bool,
    /// Most logits of a chunk of the classifier.
    chunk_logits: usize,
    /// Nothing is kept on the card: it is one on paper.
    on_paper: bool,
}

/// What a kernel can take as an argument.
pub(crate) trait Argument {
    /// Where the value is.
    fn pointer(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }
}

impl Argument for Array {}
impl Argument for Address {}
impl Argument for u32 {}
impl Argument for f32 {}

/// The result of a call on the card.
#[track_caller]
pub(crate) fn done<T>(result: Result<T, CudaError>) -> T {
    result.unwrap_or_else(|error| panic!("the card failed: {error}"))
}

/// An allocation's failure as the contract states it. It may also be the first call that hears of a failure before it: then the
/// card is lost.
pub(crate) fn no_memory(bytes: u64, what: &str) -> impl FnOnce(CudaError) -> OpsError {
    move |error| match error.is_out_of_memory() {
        true => OpsError::OutOfMemory { device: "cuda", bytes, what: what.to_owned() },
        false => done(Err(error)),
    }
}

impl Cuda {
    /// On a card; texts under way are sampled on the processor.
    pub fn new(driver: impl Driver, sampler: Cpu) -> Cuda {
        Cuda::on(Arc::new(driver), Arc::new(sampler))
    }

    fn on(driver: Arc<dyn Driver>, sampler: Arc<Cpu>) -> Cuda {
        Cuda {
            chunk_logits: crate::classifier::chunk_logits(driver.total_memory()),
            driver,
            scratch: Mutex::default(),
            moves: AtomicU64::new(0),
            spare: Arc::default(),
            left: Left::default(),
            angles: Angles::default(),
            sampler,
            batch_invariant: false,
            records: true,
            on_paper: false,
        }
    }

    /// A backend on paper, for plans: models on it take memory, and neither keep numbers nor compute any.
    pub fn of_paper(paper: &Paper, sampler: Cpu) -> Cuda {
        Cuda { on_paper: true, ..Cuda::on(Arc::new(paper.clone()), Arc::new(sampler)) }
    }

    /// The same backend on paper, and the paper.
    pub fn on_paper(&self) -> (Cuda, Paper) {
        let paper = Paper::like(&*self.driver);
        let copy = Cuda::on(Arc::new(paper.clone()), self.sampler.clone());
        let (batch_invariant, chunk_logits) = (self.batch_invariant, self.chunk_logits);
        (Cuda { on_paper: true, batch_invariant, chunk_logits, ..copy }, paper)
    }

    pub(crate) fn chunk_logits(&self) -> usize {
        self.chunk_logits
    }

    /// Whether numbers that are written to it are kept.
    pub(crate) fn keeps(&self) -> bool {
        !self.on_paper
    }

    /// The same with results of inference that do not depend on what else is in a step: kernels of one order for any number
    /// of rows, instead of the fastest for each.
    pub fn with_batch_invariance(self) -> Cuda {
        Cuda { batch_invariant: true, ..self }
    }

    /// The same without recordings: every step starts its kernels one by one.
    pub fn with_plain_launches(self) -> Cuda {
        Cuda { records: false, ..self }
    }

    /// Whether steps that come again are recorded.
    pub(crate) fn records(&self) -> bool {
        self.records
    }

    /// Memory of steps that have ended.
    pub(crate) fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    /// Rotary angles of positions that steps have had.
    pub(crate) fn angles(&self) -> &Angles {
        &self.angles
    }

    /// Changes whenever scratch memory that recorded launches may name has been released.
    pub(crate) fn scratch_moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    pub(crate) fn batch_invariant(&self) -> bool {
        self.batch_invariant
    }

    pub(crate) fn shared_driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// What the last operation left for the next one.
    pub(crate) fn left(&self) -> &Left {
        &self.left
    }

    /// Starts a kernel with the arguments of its signature, in their order; an empty grid starts none.
    #[track_caller]
    pub(crate) fn run(&self, entry: &str, shape: Launch, arguments: &[&dyn Argument]) {
        if shape.grid.contains(&0) {
            return;
        }
        self.left.forget();
        let pointers: Vec<*const c_void> = arguments.iter().map(|argument| argument.pointer()).collect();
        // SAFETY: each caller passes what the kernel's signature names, which the tests on the emulated card call in every
        // operation, with memory that `Buf`, `Param`, `Ids` and `scratch` keep, and whose length `corella_ops::shapes` has checked.
        done(unsafe { self.driver.launch(entry, shape, &pointers) });
    }

    /// Memory that the operation that asks for it may use until the next one asks for the same name. It grows in the first
    /// step and then stays.
    #[track_caller]
    pub(crate) fn scratch(&self, name: &'static str, bytes: usize) -> Address {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = scratch.get(name).filter(|memory| memory.bytes >= bytes) {
            return memory.at;
        }
        if scratch.remove(name).is_some() {
            self.moves.fetch_add(1, Ordering::Relaxed);
        }
        scratch.entry(name).or_insert(done(Memory::zeros(&self.driver, bytes))).at
    }
}

impl OpsTrain for Cuda {
    type Buf = Buf;
    type Ids = Ids;
    type Param = Param;
    type Sampler = Cpu;

    fn sampler(self: &Arc<Self>) -> Arc<Cpu> {
        self.sampler.clone()
    }

    fn name(&self) -> String {
        let order = if self.batch_invariant { " batch-invariant" } else { "" };
        format!("cuda {}{order}", self.driver.name())
    }

    fn choices(&self) -> Choices {
        self.driver.choices()
    }

    fn take_choices(&self, choices: &Choices) {
        self.driver.take_choices(choices);
    }

    fn check_heads(&self, hs: usize) -> Result<(), OpsError> {
        let refused = OpsError::HeadTooLarge { device: "cuda", found: hs, allowed: MOST_HS };
        if hs > MOST_HS { Err(refused) } else { Ok(()) }
    }

    fn buf(&self, len: usize, dtype: Dtype, what: &str) -> Result<Buf, OpsError> {
        // It may lie where another array was.
        self.left.forget();
        let bytes = len * dtype.bytes();
        let memory = Memory::zeros(&self.driver, bytes).map_err(no_memory(bytes as u64, what))?;
        Ok(Buf { memory, len, dtype })
    }

    fn ids(&self, len: usize) -> Result<Ids, OpsError> {
        Ids::new(&self.driver, len).map_err(no_memory(12 * len as u64, "token ids"))
    }

    fn param(&self, rows: usize, cols: usize, trained: bool, dtype: Dtype, what: &str) -> Result<Param, OpsError> {
        let bytes = Param::bytes(rows, cols, trained, dtype);
        Param::new(&self.driver, rows, cols, trained, dtype).map_err(no_memory(bytes, what))
    }

    fn write(&self, buf: &mut Buf, values: &[f32]) {
        shapes::elements("write", &[buf], values.len());
        self.left.forget();
        done(self.driver.upload(buf.memory.at, &to_bytes(values, buf.dtype)));
    }

    fn read(&self, buf: &Buf, out: &mut [f32]) {
        shapes::elements("read", &[buf], out.len());
        let mut bytes = vec![0; buf.dtype.bytes() * out.len()];
        done(self.driver.download(buf.memory.at, &mut bytes));
        from_bytes(&bytes, buf.dtype, out);
    }

    fn clear(&self, buf: &mut Buf, len: usize) {
        shapes::elements("clear", &[buf], len);
        self.left.forget();
        done(self.driver.clear(buf.memory.at, buf.dtype.bytes() * len));
    }

    fn sum(&self, buf: &Buf, len: usize) -> f64 {
        let mut numbers = vec![0.0; len];
        self.read(buf, &mut numbers);
        numbers.into_iter().map(f64::from).sum()
    }

    fn write_ids(&self, ids: &mut Ids, values: &[u32]) {
        done(ids.write(&*self.driver, values));
    }

    fn param_write(&self, p: &mut Param, part: ParamPart, values: &[f32]) {
        shapes::param(p, values.len());
        if self.keeps() {
            done(p.write(&*self.driver, part, values));
        }
    }

    fn param_read(&self, p: &Param, part: ParamPart, out: &mut [f32]) {
        shapes::param(p, out.len());
        done(p.read(&*self.driver, part, out));
    }

    fn zero_grad(&self, p: &mut Param) {
        p.zero_grad();
    }

    fn encoder(&self, out: &mut Buf, ids: &Ids, wte: &Param, wpe: &Param, dims: EncoderDims) {
        shapes::encoder(out, ids, wte, wpe, dims);
        self.lookup(out, ids, wte, Some(wpe), dims);
    }

    fn encoder_grad(&self, wte: &mut Param, wpe: &mut Param, dout: &Buf, ids: &Ids, dims: EncoderDims) {
        shapes::encoder(dout, ids, wte, wpe, dims);
        self.token_grad(wte, dout, ids, dims.b * dims.t, dims.c);
        self.position_grad(wpe, dout, dims);
    }

    fn embedding(&self, out: &mut Buf, ids: &Ids, wte: &Param, dims: EmbeddingDims) {
        shapes::embedding(out, ids, dims);
        let rows = EncoderDims { b: 1, t: dims.n, c: dims.c, v: 0, pos0: 0 };
        self.lookup(out, ids, wte, None, rows);
    }

    fn embedding_grad(&self, wte: &mut Param, dout: &Buf, ids: &Ids, dims: EmbeddingDims) {
        shapes::embedding(dout, ids, dims);
        self.token_grad(wte, dout, ids, dims.n, dims.c);
    }

    fn layernorm(&self, out: &mut Buf, mean: &mut Buf, rstd: &mut Buf, x: &Buf, w: &Param, b: &Param, dims: NormDims) {
        shapes::norm("layernorm", &[out, x], &[mean, rstd], &[w, b], dims);
        self.norm(out, Some((mean, b)), rstd, x, None, w, dims);
    }

    fn layernorm_grad(
        &self,
        dx: &mut Buf,
        w: &mut Param,
        b: &mut Param,
        dout: &Buf,
        x: &Buf,
        mean: &Buf,
        rstd: &Buf,
        dims: NormDims,
    ) {
        shapes::norm("layernorm", &[dx, dout, x], &[mean, rstd], &[w, b], dims);
        self.norm_grad(dx, w, Some((b, mean)), dout, x, rstd, dims);
    }

    fn rmsnorm(&self, out: &mut Buf, rstd: &mut Buf, x: &Buf, w: &Param, dims: NormDims) {
        shapes::norm("rmsnorm", &[out, x], &[rstd], &[w], dims);
        self.norm(out, None, rstd, x, None, w, dims);
    }

    fn rmsnorm_grad(&self, dx: &mut Buf, w: &mut Param, dout: &Buf, x: &Buf, rstd: &Buf, dims: NormDims) {
        shapes::norm("rmsnorm", &[dx, dout, x], &[rstd], &[w], dims);
        self.norm_grad(dx, w, None, dout, x, rstd, dims);
    }

    fn residual_layernorm(
        &self,
        sum: &mut Buf,
        out: &mut Buf,
        mean: &mut Buf,
        rstd: &mut Buf,
        a: &Buf,
        b: &Buf,
        norm: (&Param, &Param),
        dims: NormDims,
    ) {
        shapes::norm("layernorm", &[sum, out, a, b], &[mean, rstd], &[norm.0, norm.1], dims);
        self.norm(out, Some((mean, norm.1)), rstd, a, Some((sum, b)), norm.0, dims);
    }

    fn residual_rmsnorm(
        &self,
        sum: &mut Buf,
        out: &mut Buf,
        rstd: &mut Buf,
        a: &Buf,
        b: &Buf,
        w: &Param,
        dims: NormDims,
    ) {
        shapes::norm("rmsnorm", &[sum, out, a, b], &[rstd], &[w], dims);
        self.norm(out, None, rstd, a, Some((sum, b)), w, dims);
    }

    fn matmul(&self, out: &mut Buf, x: &Buf, w: &Param, b: Option<&Param>, dims: MatmulDims) {
        shapes::matmul(&[x], &[out], w, b.map(|b| b as &dyn Length), dims);
        self.linear(out, x, w, b, dims);
    }

    fn matmul_grad(&self, dx: &mut Buf, w: &mut Param, b: Option<&mut Param>, dout: &Buf, x: &Buf, dims: MatmulDims) {
        shapes::matmul(&[dx, x], &[dout], w, b.as_deref().map(|b| b as &dyn Length), dims);
        self.linear_grad(dx, w, b, dout, x, dims);
    }

    fn matmul_gelu(&self, out: &mut Buf, pre: &mut Buf, x: &Buf, w: &Param, b: &Param, dims: MatmulDims) {
        shapes::matmul(&[x], &[out, pre], w, Some(b), dims);
        self.linear_gelu(out, pre, x, w, b, dims);
    }

    fn gelu_matmul_grad(
        &self,
        dpre: &mut Buf,
        act: &mut Buf,
        w: &mut Param,
        b: &mut Param,
        dout: &Buf,
        pre: &Buf,
        dims: MatmulDims,
    ) {
        shapes::matmul(&[dpre, act, pre], &[dout], w, Some(b), dims);
        self.linear_gelu_grad(dpre, act, w, b, dout, pre, dims);
    }

    fn matmul_residual(&self, out: &mut Buf, residual: &Buf, x: &Buf, w: &Param, b: &Param, dims: MatmulDims) {
        shapes::matmul(&[x], &[out, residual], w, Some(b), dims);
        self.linear_residual(out, residual, x, w, b, dims);
    }

    fn matmul_residual_layernorm(
        &self,
        sum: &mut Buf,
        out: Normed<'_, Buf>,
        residual: &Buf,
        x: &Buf,
        linear: (&Param, &Param),
        norm: (&Param, &Param),
        dims: MatmulDims,
        eps: f32,
    ) {
        let d = NormDims { n: dims.n, c: dims.oc, eps };
        let Some(shape) = geometry::norm_packets(d.n, d.c) else {
            self.matmul_residual(sum, residual, x, linear.0, linear.1, dims);
            return self.layernorm(out.out, out.mean, out.rstd, sum, norm.0, norm.1, d);
        };
        shapes::matmul(&[x], &[sum, residual], linear.0, Some(linear.1), dims);
        shapes::norm("layernorm", &[sum, out.out], &[out.mean, out.rstd], &[norm.0, norm.1], d);
        self.linear_residual_norm(shape, sum, out, residual, x, linear, norm, dims, eps);
    }

    fn rope(&self, qkv: &mut Buf, table: &Buf, dims: AttentionDims) {
        shapes::rope(qkv, table, dims);
        self.turn(qkv, table, dims, 1.0);
    }

    fn rope_grad(&self, dqkv: &mut Buf, table: &Buf, dims: AttentionDims) {
        shapes::rope(dqkv, table, dims);
        self.turn(dqkv, table, dims, -1.0);
    }

    fn attention(&self, out: &mut Buf, lse: &mut Buf, qkv: &Buf, dims: AttentionDims) {
        shapes::attention(&[qkv], &[out], lse, dims);
        self.attend(out, lse, qkv, dims);
    }

    fn attention_grad(&self, dqkv: &mut Buf, dout: &Buf, out: &Buf, qkv: &Buf, lse: &Buf, dims: AttentionDims) {
        shapes::attention(&[dqkv, qkv], &[dout, out], lse, dims);
        self.attend_grad(dqkv, dout, out, qkv, lse, dims);
    }

    fn gelu(&self, out: &mut Buf, x: &Buf, len: usize) {
        shapes::elements("gelu", &[out, x], len);
        self.elementwise("gelu", out, &[x], len);
    }

    fn gelu_grad(&self, dx: &mut Buf, x: &Buf, len: usize) {
        shapes::elements("gelu", &[dx, x], len);
        self.elementwise("gelu_grad", dx, &[x], len);
    }

    fn swiglu(&self, out: &mut Buf, gate_up: &Buf, dims: GluDims) {
        shapes::swiglu(&[gate_up], out, dims);
        self.gated(out, gate_up, dims);
    }

    fn swiglu_grad(&self, dgate_up: &mut Buf, dout: &Buf, gate_up: &Buf, dims: GluDims) {
        shapes::swiglu(&[dgate_up, gate_up], dout, dims);
        self.gated_grad(dgate_up, dout, gate_up, dims);
    }

    fn accumulate(&self, out: &mut Buf, x: &Buf, len: usize) {
        shapes::elements("accumulate", &[out, x], len);
        self.add_to(out, x, len);
    }

    fn residual(&self, out: &mut Buf, a: &Buf, b: &Buf, len: usize) {
        shapes::elements("residual", &[out, a, b], len);
        self.elementwise("add", out, &[a, b], len);
    }

    fn classifier(&self, losses: &mut Buf, x: &Buf, wte: &Param, targets: &Ids, dims: ClassifierDims) {
        shapes::classifier(losses, &[x], wte, targets, dims);
        self.classify(losses, x, wte, targets, dims);
    }

    fn classifier_grad(
        &self,
        losses: &mut Buf,
        dx: &mut Buf,
        x: &Buf,
        wte: &mut Param,
        targets: &Ids,
        scale: f32,
        dims: ClassifierDims,
    ) {
        shapes::classifier(losses, &[x, dx], wte, targets, dims);
        self.classify_grad(losses, dx, x, wte, targets, scale, dims);
    }

    fn grad_square_sum(&self, p: &Param) -> f64 {
        self.square_sum(std::slice::from_ref(p))
    }

    fn grad_square_sums(&self, params: &[Param]) -> f64 {
        self.square_sum(params)
    }

    fn adamw(&self, p: &mut Param, hyper: AdamW) {
        self.update(std::slice::from_mut(p), hyper, &[hyper.weight_decay]);
    }

    fn adamw_all(&self, params: &mut [Param], hyper: AdamW, weight_decays: &[f32]) {
        self.update(params, hyper, weight_decays);
    }
}
