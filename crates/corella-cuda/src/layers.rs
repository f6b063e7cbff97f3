//! Lookups, norms, rotary positions and what looks at each element alone.

use corella_ops::{AttentionDims, Dtype, EncoderDims, GluDims, NormDims};

use crate::array::{Array, Buf};
use crate::backend::{Argument, Cuda, done};
use crate::beside::Beside;
use crate::driver::Address;
use crate::geometry::{self, chunk_rows, column_chunks};
use crate::ids::Ids;
use crate::param::{GradPlace, Param};

/// Scratch memory of a gradient in the format of products.
pub(crate) const LOW_GRADIENT: &str = "gradient of a product";

impl Cuda {
    /// out[n,:] = wte[ids[n],:] (+ wpe[pos0 + n % t,:]).   out: (B·T,C).
    #[track_caller]
    pub(crate) fn lookup(&self, out: &mut Buf, ids: &Ids, wte: &Param, wpe: Option<&Param>, d: EncoderDims) {
        let n = d.b * d.t;
        let positions = wpe.map_or(0, Param::value);
        let (t, c, pos0) = (d.t as u32, d.c as u64, d.pos0 as u32);
        let arguments: [&dyn Argument; 7] = [&out.array(), &ids.at(), &wte.value(), &positions, &t, &c, &pos0];
        self.run("encoder", geometry::block_per_row(n), &arguments);
    }

    /// dwte[ids[n],:] += dout[n,:].
    #[track_caller]
    pub(crate) fn token_grad(&self, wte: &mut Param, dout: &Buf, ids: &Ids, n: usize, c: usize) {
        assert_eq!(n, ids.len, "ids and rows of their gradients");
        let dwte = done(wte.grad_part(self.driver()));
        let groups = ids.groups as u32;
        let (ids_at, [order, starts]) = (ids.at(), ids.order());
        let arguments: [&dyn Argument; 7] = [&dwte, &dout.array(), &ids_at, &order, &starts, &groups, &(c as u64)];
        self.run("embedding_grad", geometry::columns(c, ids.groups), &arguments);
    }

    /// dwpe[pos0 + t,:] += Σ_b dout[b,t,:].
    #[track_caller]
    pub(crate) fn position_grad(&self, wpe: &mut Param, dout: &Buf, d: EncoderDims) {
        let dwpe = done(wpe.grad_part(self.driver()));
        let (b, t, c, pos0) = (d.b as u32, d.t as u32, d.c as u64, d.pos0 as u32);
        let arguments: [&dyn Argument; 6] = [&dwpe, &dout.array(), &b, &t, &c, &pos0];
        self.run("position_grad", geometry::columns(d.c, d.t), &arguments);
    }

    /// Layernorm, where mean and bias are given, or rmsnorm, of a, or of sum = a + b.
    #[track_caller]
    pub(crate) fn norm(
        &self,
        out: &mut Buf,
        centred: Option<(&mut Buf, &Param)>,
        rstd: &mut Buf,
        a: &Buf,
        added: Option<(&mut Buf, &Buf)>,
        w: &Param,
        d: NormDims,
    ) {
        let (mean, bias) = centred.map_or((0, 0), |(mean, b)| (mean.f32(), b.value()));
        let (sum, b) = added.map_or((Array::NONE, Array::NONE), |(sum, b)| (sum.array(), b.array()));
        let (n, c) = (d.n as u64, d.c as u64);
        let (rstd, w, out, a) = (rstd.f32(), w.value(), out.array(), a.array());
        if let Some(shape) = geometry::norm_packets(d.n, d.c) {
            let no_bias: Address = 0;
            let arguments: [&dyn Argument; 12] =
                [&out, &mean, &rstd, &sum, &a, &b, &no_bias, &w, &bias, &n, &c, &d.eps];
            return self.run("norm_packets", shape, &arguments);
        }
        let arguments: [&dyn Argument; 11] = [&out, &mean, &rstd, &sum, &a, &b, &w, &bias, &n, &c, &d.eps];
        let (shape, wide) = geometry::norm_rows(d.n, d.c);
        self.run(if wide { "norm_rows_wide" } else { "norm_rows" }, shape, &arguments);
    }

    /// Gradients of the above without the sum.   ADDS to dx, dw and, where given, db. Where one kernel does it all, dx in the format of
    /// products and the sums of its rows are left for the next operation.
    #[track_caller]
    pub(crate) fn norm_grad(
        &self,
        dx: &mut Buf,
        w: &mut Param,
        centred: Option<(&mut Param, &Buf)>,
        dout: &Buf,
        x: &Buf,
        rstd: &Buf,
        d: NormDims,
    ) {
        let len = d.n * d.c;
        if len == 0 {
            return;
        }
        let (bias, mean) = match centred {
            Some((b, mean)) => (Some(b), mean.f32()),
            None => (None, 0),
        };
        let (formats, dout_at, x_at) = ((dout.dtype, x.dtype), dout.memory.at, x.memory.at);
        let (dx, dout, x) = (dx.f32(), dout.array(), x.array());
        let (rstd, n, c) = (rstd.f32(), d.n as u64, d.c as u64);
        let low = formats == (Dtype::Bf16, Dtype::F32);
        if let Some(g) = geometry::norm_packets_grad(d.n, d.c).filter(|_| low) {
            let arrays = if bias.is_some() { 3 } else { 1 };
            let partial = self.scratch("column sums of a norm", 4 * arrays * g.chunks * d.c);
            let dtype = w.dtype();
            let image = if dtype == Dtype::F32 { 0 } else { self.scratch(LOW_GRADIENT, len * dtype.bytes()) };
            let arguments: [&dyn Argument; 11] =
                [&dx, &image, &partial, &dout_at, &x_at, &w.value(), &mean, &rstd, &n, &c, &(g.chunk as u32)];
            self.run("norm_packets_grad", g.launch, &arguments);
            let sums = bias.is_some().then(|| (partial + (8 * g.chunks * d.c) as u64, g.chunks));
            self.add_chunks(w.grad_whole(), bias.map(Param::grad_whole), partial, g.chunks, d.c);
            let image = (image != 0).then_some((dtype, image));
            return self.left().leave(Beside { of: dx, n: d.n, c: d.c, image, sums });
        }
        let arguments: [&dyn Argument; 8] = [&dx, &dout, &x, &w.value(), &mean, &rstd, &n, &c];
        let (shape, wide) = geometry::norm_rows(d.n, d.c);
        self.run(if wide { "norm_grad_wide" } else { "norm_grad" }, shape, &arguments);

        let (shape, chunks) = column_chunks(d.n, d.c);
        let arrays = if bias.is_some() { 2 } else { 1 };
        let dw = self.scratch("column sums of a norm", 4 * arrays * chunks * d.c);
        let db = if bias.is_some() { dw + (4 * chunks * d.c) as u64 } else { 0 };
        let chunk = chunk_rows(d.n) as u32;
        let arguments: [&dyn Argument; 9] = [&dw, &db, &dout, &x, &mean, &rstd, &n, &c, &chunk];
        self.run("norm_column_sums", shape, &arguments);
        self.add_chunks(w.grad_whole(), bias.map(Param::grad_whole), dw, chunks, d.c);
    }

    /// to (=, +=) Σ_n x[n,:], from the sums that are there, or from x.
    #[track_caller]
    pub(crate) fn column_sums(&self, to: GradPlace, sums: Option<(Address, usize)>, x: &Buf, n: usize, c: usize) {
        if let Some((partial, chunks)) = sums {
            return self.add_chunks(to, None, partial, chunks, c);
        }
        let (shape, chunks) = column_chunks(n, c);
        let partial = self.scratch("column sums of biases", 4 * chunks * c);
        let arguments: [&dyn Argument; 5] = [&partial, &x.array(), &(n as u64), &(c as u64), &(chunk_rows(n) as u32)];
        self.run("column_sums", shape, &arguments);
        self.add_chunks(to, None, partial, chunks, c);
    }

    /// Gradients from the sums of their chunks (chunks,c), the second's behind the first's.
    fn add_chunks(&self, first: GradPlace, second: Option<GradPlace>, partial: Address, chunks: usize, c: usize) {
        let arrays = if second.is_some() { 2 } else { 1 };
        let second = second.unwrap_or(first);
        let [first_adds, second_adds] = [first, second].map(|to| u32::from(to.adds));
        let arguments: [&dyn Argument; 7] =
            [&first.at, &first_adds, &second.at, &second_adds, &partial, &(chunks as u32), &(c as u64)];
        self.run("add_chunks", geometry::chunk_sums(c, arrays), &arguments);
    }

    /// dx ← gelu'(pre)·dx and act = gelu(pre), all (N,C), with the sums of dx over its rows left for the bias that pre had.
    #[track_caller]
    pub(crate) fn gelu_back(&self, dx: &mut Buf, act: &mut Buf, pre: &Buf, n: usize, c: usize) -> Beside {
        let (shape, chunks) = column_chunks(n, c);
        let partial = self.scratch("column sums of activations", 4 * chunks * c);
        let of = dx.memory.at;
        let (dx, act, pre) = (dx.array(), act.array(), pre.array());
        let (rows, columns, chunk) = (n as u64, c as u64, chunk_rows(n) as u32);
        let arguments: [&dyn Argument; 7] = [&dx, &act, &pre, &partial, &rows, &columns, &chunk];
        self.run("gelu_back", shape, &arguments);
        Beside { of, n, c, image: None, sums: Some((partial, chunks)) }
    }

    /// Turns the heads of q and k by the table's angles, or back where `sign` is −1.
    #[track_caller]
    pub(crate) fn turn(&self, qkv: &mut Buf, table: &Buf, d: AttentionDims, sign: f32) {
        let rows = d.b * d.t;
        let (qkv, table) = (qkv.array(), table.f32());
        let (heads, t, hs) = ((d.nh + d.nkv) as u32, d.t as u32, d.hs as u32);
        let arguments: [&dyn Argument; 8] = [&qkv, &table, &(rows as u64), &t, &heads, &hs, &(d.qkv() as u64), &sign];
        self.run("rope", geometry::columns((d.nh + d.nkv) * d.hs / 2, rows), &arguments);
    }

    /// A kernel (out, inputs…, len).
    #[track_caller]
    pub(crate) fn elementwise(&self, entry: &str, out: &mut Buf, inputs: &[&Buf], len: usize) {
        let arrays: Vec<Array> = inputs.iter().map(|input| input.array()).collect();
        let (out, len_argument) = (out.array(), len as u64);
        let mut arguments: Vec<&dyn Argument> = vec![&out];
        arguments.extend(arrays.iter().map(|array| array as &dyn Argument));
        arguments.push(&len_argument);
        self.run(entry, geometry::elements(len), &arguments);
    }

    /// out += x.
    #[track_caller]
    pub(crate) fn add_to(&self, out: &mut Buf, x: &Buf, len: usize) {
        let (out, x) = (out.array(), x.array());
        self.run("add", geometry::elements(len), &[&out, &out, &x, &(len as u64)]);
    }

    /// A number format of an array in another, in scratch memory; the array itself where it has it already.
    #[track_caller]
    pub(crate) fn cast(&self, x: &Buf, len: usize, dtype: corella_ops::Dtype, name: &'static str) -> Address {
        if x.dtype == dtype {
            return x.memory.at;
        }
        let to = self.scratch(name, len * dtype.bytes());
        self.run("cast", geometry::elements(len), &[&Array::new(to, dtype), &x.array(), &(len as u64)]);
        to
    }

    /// out = silu(gate)·up.
    #[track_caller]
    pub(crate) fn gated(&self, out: &mut Buf, gate_up: &Buf, d: GluDims) {
        let (out, gate_up) = (out.array(), gate_up.array());
        self.run("swiglu", geometry::row_packets(d.n, d.f), &[&out, &gate_up, &(d.n as u64), &(d.f as u64)]);
    }

    /// Gradient of the above.
    #[track_caller]
    pub(crate) fn gated_grad(&self, dgate_up: &mut Buf, dout: &Buf, gate_up: &Buf, d: GluDims) {
        let (dgate_up, gate_up) = (dgate_up.array(), gate_up.array());
        let arguments: [&dyn Argument; 5] = [&dgate_up, &dout.array(), &gate_up, &(d.n as u64), &(d.f as u64)];
        self.run("swiglu_grad", geometry::row_packets(d.n, d.f), &arguments);
    }
}
