//! The contract: every computation of training and inference, at the grain of a layer.
//!
//! Conventions. `B` sequences of `T` tokens make `N = B·T` rows; `C` is the width, `OC` an output width, `V` the
//! vocabulary, `NH` heads of size `HS = C / NH`. Arrays are row-major; a weight matrix is `(OC, C)` as in a torch
//! `Linear`. `d` in front of a name is the gradient of the loss with respect to it. "writes" means the old content of
//! the output is ignored; "adds" means the result is added to it. Gradients of parameters always add, so that
//! micro-batches accumulate; gradients of activations say which.
//!
//! Activations are f32 or bf16 ([`Dtype`]), in any mix, and rounded when they are stored. Row statistics (mean, rstd, lse,
//! losses) and outputs that are added to are f32. Parameters have f32 masters, gradients and moments; products read their
//! values in the format that the parameter was made with, and take the other operand in the same format, rounding it first
//! if it is wider.
//!
//! Two rules make results repeatable: a sum over the inner dimension runs in one order that depends on the shape
//! only, never on the number of rows or threads; and no operation reads memory that its caller did not write.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

pub use crate::contract_infer::OpsInfer;

/// What an operation can fail with. Shape mistakes are programming errors and panic at the caller's line instead.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The device cannot hold an allocation of this size.
    #[error("{device} cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// Which device refused.
        device: &'static str,
        /// Size asked for.
        bytes: u64,
        /// What it was for.
        what: String,
    },
    /// A kernel path was forced that this machine cannot run.
    #[error("kernel path `{asked}` cannot run here; available: {available}")]
    UnknownPath {
        /// Name that was asked for.
        asked: String,
        /// Names that would work.
        available: String,
    },
    /// A kind of cache that the backend does not have.
    #[error("{device} keeps keys and values as {known}, not as {asked}")]
    UnknownKvKind {
        /// Which device refused.
        device: &'static str,
        /// Kind that was asked for.
        asked: &'static str,
        /// Kinds that would work.
        known: String,
    },
    /// Heads are larger than the backend's kernels hold.
    #[error("{device} computes attention with heads of up to {allowed} numbers, and the model's have {found}")]
    HeadTooLarge {
        /// Which device refused.
        device: &'static str,
        /// Numbers of a head of the model.
        found: usize,
        /// Most that would work.
        allowed: usize,
    },
    /// A row of weights is not a whole number of the format's blocks.
    #[error("{what}: rows of {cols} weights cannot be {format}, whose blocks hold {block}")]
    RaggedRow {
        /// Which tensor.
        what: String,
        /// Weights of a row.
        cols: usize,
        /// Name of the format.
        format: &'static str,
        /// Weights of a block.
        block: usize,
    },
}

/// See [`OpsTrain::choices`].
pub type Choices = BTreeMap<String, String>;

/// A number format in memory. Sums are formed in f32, whatever the format of what is added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 single precision.
    #[default]
    F32,
    /// bfloat16: the exponent of f32 with eight bits of precision.
    Bf16,
}

impl Dtype {
    /// Both.
    pub const ALL: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

    /// Name in flags, plans and reports.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }
}

/// Which of the arrays that belong to one trained tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamPart {
    /// The f32 master values.
    Value,
    /// The gradient.
    Grad,
    /// AdamW's first moment.
    M,
    /// AdamW's second moment.
    V,
}

/// Shape of an embedding lookup.
#[derive(Clone, Copy, Debug)]
pub struct EncoderDims {
    /// Sequences.
    pub b: usize,
    /// Tokens per sequence.
    pub t: usize,
    /// Width.
    pub c: usize,
    /// Rows of `wte`.
    pub v: usize,
    /// Position of the first token of every sequence (0 in training).
    pub pos0: usize,
}

/// Shape of a normalisation over the last dimension.
#[derive(Clone, Copy, Debug)]
pub struct NormDims {
    /// Rows.
    pub n: usize,
    /// Width.
    pub c: usize,
    /// Added to the variance; 1e-5 in GPT-2.
    pub eps: f32,
}

/// Shape of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct MatmulDims {
    /// Rows of x.
    pub n: usize,
    /// Inner width.
    pub c: usize,
    /// Output width.
    pub oc: usize,
}

/// Shape of a lookup of token embeddings alone.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingDims {
    /// Rows: tokens of all sequences.
    pub n: usize,
    /// Width.
    pub c: usize,
}

/// Shape of causal self-attention, with grouped queries where `nkv` < `nh` (Ainslie et al., arXiv 2305.13245).
#[derive(Clone, Copy, Debug)]
pub struct AttentionDims {
    /// Sequences.
    pub b: usize,
    /// Tokens per sequence.
    pub t: usize,
    /// Heads of queries.
    pub nh: usize,
    /// Heads of keys and values; divides `nh`. Query head h reads key head h / (nh / nkv).
    pub nkv: usize,
    /// Size of a head.
    pub hs: usize,
}

impl AttentionDims {
    /// NH·HS, the width of q and of the output.
    pub fn c(&self) -> usize {
        self.nh * self.hs
    }

    /// (NH + 2·NKV)·HS, the width of q, k and v side by side.
    pub fn qkv(&self) -> usize {
        (self.nh + 2 * self.nkv) * self.hs
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.nh / self.nkv
    }
}

/// Shape of a gated linear unit.
#[derive(Clone, Copy, Debug)]
pub struct GluDims {
    /// Rows.
    pub n: usize,
    /// Width of the gate, and of what it lets through.
    pub f: usize,
}

/// Where a layernorm's results go.
#[derive(Debug)]
pub struct Normed<'a, Buf> {
    /// (N,C).
    pub out: &'a mut Buf,
    /// (N).
    pub mean: &'a mut Buf,
    /// (N).
    pub rstd: &'a mut Buf,
}

/// Shape of the classifier: the output head, softmax and cross-entropy in one.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierDims {
    /// Rows.
    pub n: usize,
    /// Width.
    pub c: usize,
    /// Vocabulary: rows of `wte` that can be predicted.
    pub v: usize,
}

/// One AdamW update (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate of this update.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay; 0 for biases and norms.
    pub weight_decay: f32,
    /// Multiplies every gradient first (the clipping factor).
    pub grad_scale: f32,
    /// Number of this update, from 1.
    pub step: u64,
}

/// The table of [`OpsTrain::rope`] for positions 0 .. `positions`: (positions, 2·frequencies.len()). The frequencies are
/// the model's (theta^(−2i/HS), scaled as its family does). The angle is the product position · frequency in f32, as in
/// `transformers`; its cosine and sine are exact to f32.
pub fn rope_table(frequencies: &[f32], positions: usize) -> Vec<f32> {
    let angle = |t: usize, f: &f32| f64::from(t as f32 * f);
    (0..positions)
        .flat_map(|t| {
            let cos = frequencies.iter().map(move |f| angle(t, f).cos() as f32);
            cos.chain(frequencies.iter().map(move |f| angle(t, f).sin() as f32))
        })
        .collect()
}

/// Training: the operations forward and backward, in pairs.
pub trait OpsTrain: Send + Sync + 'static {
    /// An array of activations on the device.
    type Buf: Send + Sync + Debug;
    /// An array of token ids on the device.
    type Ids: Send + Sync + Debug;
    /// A trained tensor: master values, gradient, AdamW moments, and whatever packed images of the values the
    /// backend keeps for its matrix products (rewritten by [`OpsTrain::adamw`] and [`OpsTrain::param_write`]).
    type Param: Send + Sync + Debug;
    /// The backend that continues text from weights under training: this one, where it also infers.
    type Sampler: OpsInfer;

    /// See [`OpsTrain::Sampler`].
    fn sampler(self: &Arc<Self>) -> Arc<Self::Sampler>;

    /// Name of device and kernel path, e.g. `cpu avx2`, recorded with every result.
    fn name(&self) -> String;

    /// What this backend has chosen by measuring, by the name of each choice, none where it measures nothing: a run that goes on
    /// with [`OpsTrain::take_choices`] adds up in the same order.
    fn choices(&self) -> Choices {
        Choices::new()
    }

    /// Takes choices over from an earlier run, before the first operation. Those of another machine are left aside.
    fn take_choices(&self, _choices: &Choices) {}

    /// Refuses heads that are too large for the operations of attention: asked before anything is allocated for a model.
    fn check_heads(&self, _hs: usize) -> Result<(), OpsError> {
        Ok(())
    }

    // ---- memory -------------------------------------------------------------------------------------------------
    /// `len` zeros.
    fn buf(&self, len: usize, dtype: Dtype, what: &str) -> Result<Self::Buf, OpsError>;
    /// `len` token ids, all 0.
    fn ids(&self, len: usize) -> Result<Self::Ids, OpsError>;
    /// A parameter of `rows × cols` zeros (a vector has one row); gradient and moments only if `trained`. Products read
    /// matrices in format `dtype`; vectors, lookups and the optimizer read the f32 master.
    fn param(&self, rows: usize, cols: usize, trained: bool, dtype: Dtype, what: &str)
    -> Result<Self::Param, OpsError>;
    /// Copies host values to the front of `buf`.
    #[track_caller]
    fn write(&self, buf: &mut Self::Buf, values: &[f32]);
    /// Copies the front of `buf` to the host.
    #[track_caller]
    fn read(&self, buf: &Self::Buf, out: &mut [f32]);
    /// The first `len` elements = 0.
    fn clear(&self, buf: &mut Self::Buf, len: usize) {
        self.write(buf, &vec![0.0; len]);
    }
    /// Σ of the first `len` elements, added up in f64 in their order.
    fn sum(&self, buf: &Self::Buf, len: usize) -> f64;
    /// Copies token ids to the front of `ids`.
    fn write_ids(&self, ids: &mut Self::Ids, values: &[u32]);
    /// Replaces one part of a parameter. Panics if the length differs or the part does not exist.
    #[track_caller]
    fn param_write(&self, p: &mut Self::Param, part: ParamPart, values: &[f32]);
    /// Copies one part of a parameter to the host.
    #[track_caller]
    fn param_read(&self, p: &Self::Param, part: ParamPart, out: &mut [f32]);
    /// Gradient = 0.
    fn zero_grad(&self, p: &mut Self::Param);

    // ---- layers -------------------------------------------------------------------------------------------------
    /// `out[b,t,:] = wte[ids[b,t],:] + wpe[pos0+t,:]`.   out: (B,T,C)  wte: (V,C)  wpe: (maxT,C).   WRITES out.
    #[track_caller]
    fn encoder(&self, out: &mut Self::Buf, ids: &Self::Ids, wte: &Self::Param, wpe: &Self::Param, dims: EncoderDims);
    /// Gradient of the above.   ADDS to dwte, dwpe.
    #[track_caller]
    fn encoder_grad(
        &self,
        wte: &mut Self::Param,
        wpe: &mut Self::Param,
        dout: &Self::Buf,
        ids: &Self::Ids,
        dims: EncoderDims,
    );

    /// `out[n,:] = wte[ids[n],:]`.   out: (N,C)  wte: (V,C).   WRITES out.
    #[track_caller]
    fn embedding(&self, out: &mut Self::Buf, ids: &Self::Ids, wte: &Self::Param, dims: EmbeddingDims);
    /// Gradient of the above.   ADDS to dwte.
    #[track_caller]
    fn embedding_grad(&self, wte: &mut Self::Param, dout: &Self::Buf, ids: &Self::Ids, dims: EmbeddingDims);

    /// out = (x − mean) · rstd · w + b over C, rstd = 1/sqrt(var + eps).   out, x: (N,C)  mean, rstd: (N)  w, b: (C).
    /// WRITES out, mean, rstd.
    #[track_caller]
    fn layernorm(
        &self,
        out: &mut Self::Buf,
        mean: &mut Self::Buf,
        rstd: &mut Self::Buf,
        x: &Self::Buf,
        w: &Self::Param,
        b: &Self::Param,
        dims: NormDims,
    );
    /// Gradient of the above.   ADDS to dx, dw, db.
    #[track_caller]
    fn layernorm_grad(
        &self,
        dx: &mut Self::Buf,
        w: &mut Self::Param,
        b: &mut Self::Param,
        dout: &Self::Buf,
        x: &Self::Buf,
        mean: &Self::Buf,
        rstd: &Self::Buf,
        dims: NormDims,
    );

    /// out = x · rstd · w over C, rstd = 1/sqrt(mean(x²) + eps) (Zhang and Sennrich, arXiv 1910.07467).
    /// out, x: (N,C)  rstd: (N)  w: (C).   WRITES out, rstd.
    #[track_caller]
    fn rmsnorm(&self, out: &mut Self::Buf, rstd: &mut Self::Buf, x: &Self::Buf, w: &Self::Param, dims: NormDims);
    /// Gradient of the above.   ADDS to dx, dw.
    #[track_caller]
    fn rmsnorm_grad(
        &self,
        dx: &mut Self::Buf,
        w: &mut Self::Param,
        dout: &Self::Buf,
        x: &Self::Buf,
        rstd: &Self::Buf,
        dims: NormDims,
    );

    /// out = x · wᵀ + b.   out: (N,OC)  x: (N,C)  w: (OC,C)  b: (OC) or none.   WRITES out.
    #[track_caller]
    fn matmul(&self, out: &mut Self::Buf, x: &Self::Buf, w: &Self::Param, b: Option<&Self::Param>, dims: MatmulDims);
    /// dx = dout · w;  dw += doutᵀ · x;  db += Σ_n dout.   WRITES dx, ADDS to dw, db.
    #[track_caller]
    fn matmul_grad(
        &self,
        dx: &mut Self::Buf,
        w: &mut Self::Param,
        b: Option<&mut Self::Param>,
        dout: &Self::Buf,
        x: &Self::Buf,
        dims: MatmulDims,
    );

    /// Rotary positions (Su et al., arXiv 2104.09864) on the heads of q and k in place; v stays. With i < HS/2, the pair
    /// (x_i, x_{i+HS/2}) of a head at position t turns by an angle: x_i ← x_i·cos − x_{i+HS/2}·sin,
    /// x_{i+HS/2} ← x_{i+HS/2}·cos + x_i·sin.
    /// qkv: (B,T,(NH+2·NKV)·HS)  table: (≥T,HS) in f32, each row HS/2 cosines, then HS/2 sines (see [`rope_table`]); HS even.
    /// WRITES q and k of qkv.
    #[track_caller]
    fn rope(&self, qkv: &mut Self::Buf, table: &Self::Buf, dims: AttentionDims);
    /// Gradient of the above in place: the heads of dq and dk turn back.   WRITES dq and dk of dqkv.
    #[track_caller]
    fn rope_grad(&self, dqkv: &mut Self::Buf, table: &Self::Buf, dims: AttentionDims);

    /// Causal attention with online softmax: for each head, out_t = Σ_{s≤t} softmax_s(q_t·k_s / sqrt(HS)) v_s.
    /// out: (B,T,NH·HS)  lse: (B,NH,T), the log of the softmax's denominator, kept for backward
    /// qkv: (B,T,(NH+2·NKV)·HS) with q, k, v side by side, heads inside each.   WRITES out, lse.
    #[track_caller]
    fn attention(&self, out: &mut Self::Buf, lse: &mut Self::Buf, qkv: &Self::Buf, dims: AttentionDims);
    /// Gradient of the above; the probabilities are computed again from qkv and lse.   WRITES dqkv.
    #[track_caller]
    fn attention_grad(
        &self,
        dqkv: &mut Self::Buf,
        dout: &Self::Buf,
        out: &Self::Buf,
        qkv: &Self::Buf,
        lse: &Self::Buf,
        dims: AttentionDims,
    );

    /// out = ½x(1 + tanh(√(2/π)(x + 0.044715x³))) over the first `len` elements.   WRITES out.
    #[track_caller]
    fn gelu(&self, out: &mut Self::Buf, x: &Self::Buf, len: usize);
    /// dx ← gelu'(x) · dx in place, for the first `len` elements (dx holds dout before).   WRITES dx.
    #[track_caller]
    fn gelu_grad(&self, dx: &mut Self::Buf, x: &Self::Buf, len: usize);

    /// out = silu(gate) · up, silu(x) = x/(1 + e^−x) (SwiGLU; Shazeer, arXiv 2002.05202).
    /// out: (N,F)  gate_up: (N,2F), gate and up side by side.   WRITES out.
    #[track_caller]
    fn swiglu(&self, out: &mut Self::Buf, gate_up: &Self::Buf, dims: GluDims);
    /// Gradient of the above.   dgate_up: (N,2F)  dout: (N,F).   WRITES dgate_up.
    #[track_caller]
    fn swiglu_grad(&self, dgate_up: &mut Self::Buf, dout: &Self::Buf, gate_up: &Self::Buf, dims: GluDims);

    /// pre = x·wᵀ + b, out = gelu(pre): the first half of the MLP.   pre, out: (N,OC).   WRITES pre, out.
    /// The default body is the composition, and the oracle of a fused one.
    #[track_caller]
    fn matmul_gelu(
        &self,
        out: &mut Self::Buf,
        pre: &mut Self::Buf,
        x: &Self::Buf,
        w: &Self::Param,
        b: &Self::Param,
        dims: MatmulDims,
    ) {
        self.matmul(pre, x, w, Some(b), dims);
        self.gelu(out, pre, dims.n * dims.oc);
    }

    /// The way back through the second half of the MLP, out = gelu(pre)·wᵀ + b: act = gelu(pre), computed again;
    /// dpre = (dout·w) ∘ gelu'(pre);  dw += doutᵀ·act;  db += Σ_n dout.   pre, dpre, act: (N,C)  dout: (N,OC).
    /// WRITES dpre, act, ADDS to dw, db. The default body is the composition, and the oracle of a fused one.
    #[track_caller]
    fn gelu_matmul_grad(
        &self,
        dpre: &mut Self::Buf,
        act: &mut Self::Buf,
        w: &mut Self::Param,
        b: &mut Self::Param,
        dout: &Self::Buf,
        pre: &Self::Buf,
        dims: MatmulDims,
    ) {
        self.gelu(act, pre, dims.n * dims.c);
        self.matmul_grad(dpre, w, Some(b), dout, act, dims);
        self.gelu_grad(dpre, pre, dims.n * dims.c);
    }

    /// out = residual + x·wᵀ + b: a projection back into the residual stream.   out, residual: (N,OC).   WRITES out.
    /// The default body is the composition, and the oracle of a fused one.
    #[track_caller]
    fn matmul_residual(
        &self,
        out: &mut Self::Buf,
        residual: &Self::Buf,
        x: &Self::Buf,
        w: &Self::Param,
        b: &Self::Param,
        dims: MatmulDims,
    ) {
        self.matmul(out, x, w, Some(b), dims);
        self.accumulate(out, residual, dims.n * dims.oc);
    }

    /// sum = residual + x·wᵀ + b, out = layernorm(sum): a projection back into the residual stream, and the norm that follows.
    /// sum, out, residual: (N,OC)  x: (N,C).   WRITES sum, out, mean, rstd. The default body is the composition, and the oracle of a
    /// fused one.
    #[track_caller]
    fn matmul_residual_layernorm(
        &self,
        sum: &mut Self::Buf,
        out: Normed<'_, Self::Buf>,
        residual: &Self::Buf,
        x: &Self::Buf,
        linear: (&Self::Param, &Self::Param),
        norm: (&Self::Param, &Self::Param),
        dims: MatmulDims,
        eps: f32,
    ) {
        self.matmul_residual(sum, residual, x, linear.0, linear.1, dims);
        let d = NormDims { n: dims.n, c: dims.oc, eps };
        self.layernorm(out.out, out.mean, out.rstd, sum, norm.0, norm.1, d);
    }

    /// out += x over the first `len` elements.   ADDS to out (which may be bf16 here).
    #[track_caller]
    fn accumulate(&self, out: &mut Self::Buf, x: &Self::Buf, len: usize);

    /// out = a + b over the first `len` elements.   WRITES out.
    #[track_caller]
    fn residual(&self, out: &mut Self::Buf, a: &Self::Buf, b: &Self::Buf, len: usize);

    /// sum = a + b, out = layernorm(sum): a residual addition and the norm that follows.   sum, out: (N,C).
    /// WRITES sum, out, mean, rstd. The default body is the composition, and the oracle of a fused one.
    #[track_caller]
    fn residual_layernorm(
        &self,
        sum: &mut Self::Buf,
        out: &mut Self::Buf,
        mean: &mut Self::Buf,
        rstd: &mut Self::Buf,
        a: &Self::Buf,
        b: &Self::Buf,
        norm: (&Self::Param, &Self::Param),
        dims: NormDims,
    ) {
        self.residual(sum, a, b, dims.n * dims.c);
        self.layernorm(out, mean, rstd, sum, norm.0, norm.1, dims);
    }

    /// sum = a + b, out = rmsnorm(sum).   sum, out: (N,C).
    /// WRITES sum, out, rstd. The default body is the composition, and the oracle of a fused one.
    #[track_caller]
    fn residual_rmsnorm(
        &self,
        sum: &mut Self::Buf,
        out: &mut Self::Buf,
        rstd: &mut Self::Buf,
        a: &Self::Buf,
        b: &Self::Buf,
        w: &Self::Param,
        dims: NormDims,
    ) {
        self.residual(sum, a, b, dims.n * dims.c);
        self.rmsnorm(out, rstd, sum, w, dims);
    }

    /// Row losses `−log softmax(x·wteᵀ)[target]`, without ever holding all logits.
    /// losses: (N)  x: (N,C)  wte: (≥V,C); rows from V on are padding and are never predicted.   WRITES losses.
    #[track_caller]
    fn classifier(
        &self,
        losses: &mut Self::Buf,
        x: &Self::Buf,
        wte: &Self::Param,
        targets: &Self::Ids,
        dims: ClassifierDims,
    );
    /// As [`OpsTrain::classifier`], and in the same pass the gradient of `scale · Σ losses`:
    /// dx = dlogits·wte, dwte += dlogitsᵀ·x.   WRITES losses, dx, ADDS to dwte.
    #[track_caller]
    fn classifier_grad(
        &self,
        losses: &mut Self::Buf,
        dx: &mut Self::Buf,
        x: &Self::Buf,
        wte: &mut Self::Param,
        targets: &Self::Ids,
        scale: f32,
        dims: ClassifierDims,
    );

    // ---- optimizer ----------------------------------------------------------------------------------------------
    /// Σ g² over one parameter's gradient, in f64.
    fn grad_square_sum(&self, p: &Self::Param) -> f64;
    /// [`OpsTrain::grad_square_sum`] of all parameters, added up in their order.
    fn grad_square_sums(&self, params: &[Self::Param]) -> f64 {
        params.iter().map(|p| self.grad_square_sum(p)).sum()
    }
    /// g ← grad_scale·g;  m ← β1·m + (1−β1)·g;  v ← β2·v + (1−β2)·g²;
    /// p ← p − lr·( (m/(1−β1^step)) / (sqrt(v/(1−β2^step)) + eps) + weight_decay·p ).   The gradient is left as it was.
    fn adamw(&self, p: &mut Self::Param, hyper: AdamW);
    /// [`OpsTrain::adamw`] of all parameters, each with its own weight decay in place of `hyper`'s.
    fn adamw_all(&self, params: &mut [Self::Param], hyper: AdamW, weight_decays: &[f32]) {
        assert_eq!(params.len(), weight_decays.len(), "parameters and their weight decays");
        for (p, &weight_decay) in params.iter_mut().zip(weight_decays) {
            self.adamw(p, AdamW { weight_decay, ..hyper });
        }
    }
}
