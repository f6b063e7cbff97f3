//! Generation: tokens in, the logits that follow out, with keys and values kept between calls.

use std::sync::Arc;

use corella_ops::{Dtype, EncoderDims, MatmulDims, NormDims, OpsError, OpsInfer, ParamPart};

use super::config::Gpt2Config;
use super::forward::EPS;
use super::params::{Tensor, WPE, WTE, at, last_norm};
use crate::ModelError;
use crate::params::ModelConfig;
use crate::source::Source;
use crate::text_model::TextModel;

/// Tokens of a prompt that pass through the model together. Any number gives the same bits.
const CHUNK: usize = 64;

/// What a sequence leaves behind: keys, values, position; and the working space.
struct Decoding<B: OpsInfer> {
    kv: Vec<B::Kv>,
    position: usize,
    ids: B::Ids,
    /// Residual stream before and inside a block, norm output and a projection's output (CHUNK, C).
    x: B::Buf,
    x2: B::Buf,
    norm: B::Buf,
    narrow: B::Buf,
    /// (CHUNK, 3C), (CHUNK, 4C) twice.
    qkv: B::Buf,
    fch: B::Buf,
    fch_gelu: B::Buf,
    /// Norm statistics, not needed further.
    mean: B::Buf,
    rstd: B::Buf,
    /// One row of logits, on the device and on the host (V).
    logits: B::Buf,
    host: Vec<f32>,
}

impl<B: OpsInfer> Decoding<B> {
    fn new(ops: &B, config: &Gpt2Config) -> Result<Self, OpsError> {
        let c = config.n_embd();
        Ok(Decoding {
            kv: (0..config.n_layer()).map(|_| ops.kv(config.seq_len(), c)).collect::<Result<_, _>>()?,
            position: 0,
            ids: ops.ids(CHUNK)?,
            x: ops.buf(CHUNK * c, Dtype::F32, "residual")?,
            x2: ops.buf(CHUNK * c, Dtype::F32, "residual")?,
            norm: ops.buf(CHUNK * c, Dtype::F32, "norm")?,
            narrow: ops.buf(CHUNK * c, Dtype::F32, "projection")?,
            qkv: ops.buf(CHUNK * 3 * c, Dtype::F32, "qkv")?,
            fch: ops.buf(CHUNK * 4 * c, Dtype::F32, "fch")?,
            fch_gelu: ops.buf(CHUNK * 4 * c, Dtype::F32, "fch_gelu")?,
            mean: ops.buf(CHUNK, Dtype::F32, "mean")?,
            rstd: ops.buf(CHUNK, Dtype::F32, "rstd")?,
            logits: ops.buf(config.vocab_size(), Dtype::F32, "logits")?,
            host: vec![0.0; config.vocab_size()],
        })
    }

    fn feed(&mut self, ops: &B, config: &Gpt2Config, p: &[B::Param], tokens: &[u32]) -> &[f32] {
        assert!(!tokens.is_empty(), "nothing to feed");
        assert!(self.position + tokens.len() <= config.seq_len(), "context overflow");
        assert!(tokens.iter().all(|id| (*id as usize) < config.vocab_size()), "token id outside the vocabulary");
        for chunk in tokens.chunks(CHUNK) {
            self.blocks(ops, config, p, chunk);
            self.position += chunk.len();
        }
        self.last_logits(ops, config, p, (tokens.len() - 1) % CHUNK);
        ops.read(&self.logits, &mut self.host);
        &self.host
    }

    /// One chunk through every block.
    fn blocks(&mut self, ops: &B, config: &Gpt2Config, p: &[B::Param], tokens: &[u32]) {
        use Tensor::*;
        let (n, c) = (tokens.len(), config.n_embd());
        let norm = NormDims { n, c, eps: EPS };
        let linear = |c, oc| MatmulDims { n, c, oc };
        ops.write_ids(&mut self.ids, tokens);
        let dims = EncoderDims { b: 1, t: n, c, v: config.vocab_size(), pos0: self.position };
        ops.encoder(&mut self.x, &self.ids, &p[WTE], &p[WPE], dims);
        for (layer, kv) in self.kv.iter_mut().enumerate() {
            let w = |which| &p[at(layer, which)];
            ops.layernorm(&mut self.norm, &mut self.mean, &mut self.rstd, &self.x, w(Ln1W), w(Ln1B), norm);
            ops.matmul(&mut self.qkv, &self.norm, w(QkvW), Some(w(QkvB)), linear(c, 3 * c));
            let (nh, hs) = (config.n_head(), config.head_size());
            ops.attention_cached(&mut self.norm, kv, &self.qkv, self.position, n, nh, hs);
            ops.matmul(&mut self.narrow, &self.norm, w(AttProjW), Some(w(AttProjB)), linear(c, c));
            let statistics = (w(Ln2W), w(Ln2B));
            ops.residual_layernorm(
                &mut self.x2,
                &mut self.norm,
                &mut self.mean,
                &mut self.rstd,
                &self.x,
                &self.narrow,
                statistics,
                norm,
            );
            ops.matmul_gelu(&mut self.fch_gelu, &mut self.fch, &self.norm, w(FcW), w(FcB), linear(c, 4 * c));
            ops.matmul(&mut self.narrow, &self.fch_gelu, w(FcProjW), Some(w(FcProjB)), linear(4 * c, c));
            ops.residual(&mut self.x, &self.x2, &self.narrow, n * c);
        }
    }

    /// Norm and output head of row `row` of the last chunk.
    fn last_logits(&mut self, ops: &B, config: &Gpt2Config, p: &[B::Param], row: usize) {
        let (c, norm) = (config.n_embd(), last_norm(config));
        let mut rows = vec![0.0; (row + 1) * c];
        ops.read(&self.x, &mut rows);
        ops.write(&mut self.narrow, &rows[row * c..]);
        let one = NormDims { n: 1, c, eps: EPS };
        ops.layernorm(&mut self.norm, &mut self.mean, &mut self.rstd, &self.narrow, &p[norm], &p[norm + 1], one);
        let head = MatmulDims { n: 1, c, oc: config.vocab_size() };
        ops.matmul(&mut self.logits, &self.norm, &p[config.head()], None, head);
    }
}

/// A GPT-2 that continues one text with keys and values in f32, where nothing is rounded on the way: what the trainer
/// samples and evaluates with.
pub struct Gpt2Exact<B: OpsInfer> {
    ops: Arc<B>,
    config: Gpt2Config,
    params: Vec<B::Param>,
    state: Decoding<B>,
}

impl<B: OpsInfer> Gpt2Exact<B> {
    /// Uploads the weights.
    pub fn new(ops: impl Into<Arc<B>>, source: &dyn Source<Gpt2Config>) -> Result<Self, ModelError> {
        let (ops, config) = (ops.into(), source.config().clone());
        ops.check_heads(config.head_size())?;
        let mut params = Vec::new();
        for (row, spec) in config.table().iter().enumerate() {
            let mut param = ops.param(spec.rows(), spec.cols, false, Dtype::F32, &spec.name)?;
            ops.param_write(&mut param, ParamPart::Value, &source.values(row)?);
            params.push(param);
        }
        let state = Decoding::new(&*ops, &config)?;
        Ok(Gpt2Exact { ops, config, params, state })
    }
}

impl<B: OpsInfer> TextModel for Gpt2Exact<B> {
    fn context_len(&self) -> usize {
        self.config.seq_len()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    fn reset(&mut self) {
        self.state.position = 0;
    }

    fn rewind(&mut self, position: usize) {
        assert!(position <= self.state.position, "no more than was fed can be forgotten");
        self.state.position = position;
    }

    fn position(&self) -> usize {
        self.state.position
    }

    fn feed(&mut self, tokens: &[u32]) -> &[f32] {
        self.state.feed(&*self.ops, &self.config, &self.params, tokens)
    }
}
