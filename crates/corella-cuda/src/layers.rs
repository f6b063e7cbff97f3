//! Lookups, norms, rotary positions and what looks at each element alone.

use corella_ops::{AttentionDims, EncoderDims, GluDims, NormDims};

use crate::array::{Array, Buf};
use crate::backend::{Argument, Cuda, done};
use crate::driver::Address;
use crate::geometry::{self, chunk_rows, column_chunks};
use crate::ids::Ids;
use crate::param::{GradPlace, Param};

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
        let arguments: [&dyn Argument; 11] = [&out, &mean, &rstd, &sum, &a, &b, &w, &bias, &n, &c, &d.eps];
        let (shape, wide) = geometry::norm_rows(d.n, d.c);
        self.run(if wide { "norm_rows_wide" } else { "norm_rows" }, shape, &arguments);
    }

    /// Gradients of the above without the sum.   ADDS to dx, dw and, where given, db.
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
        let (dx, dout, x) = (dx.f32(), dout.array(), x.array());
        let (rstd, n, c) = (rstd.f32(), d.n as u64, d.c as u64);
        let arguments: [&dyn Argument; 8] = [&dx, &dout, &x, &w.value(), &mean, &rstd, &n, &c];
        let (shape, wide) = geometry::norm_rows(d.n, d.c);
        self.run(if wide { "norm_grad_wide" } else { "norm_grad" }, shape, &arguments);

        let (shape, chunks) = column_chunks(d.n, d.c);
        let dw = self.scratch("column sums of weights", 4 * chunks * d.c);
        let db = if bias.is_some() { self.scratch("column sums of biases", 4 * chunks * d.c) } else { 0 };
        let chunk = chunk_rows(d.n) as u32;
        let arguments: [&dyn Argument; 9] = [&dw, &db, &dout, &x, &mean, &rstd, &n, &c, &chunk];
        self.run("norm_column_sums", shape, &arguments);
        self.add_chunks(w.grad_whole(), dw, chunks, d.c);
        if let Some(b) = bias {
            self.add_chunks(b.grad_whole(), db, chunks, d.c);
        }
    }

    /// to (=, +=) Σ_n x[n,:].
    #[track_caller]
    pub(crate) fn column_sums(&self, to: GradPlace, x: &Buf, n: usize, c: usize) {
        let (shape, chunks) = column_chunks(n, c);
        let partial = self.scratch("column sums of biases", 4 * chunks * c);
        let arguments: [&dyn Argument; 5] = [&partial, &x.array(), &(n as u64), &(c as u64), &(chunk_rows(n) as u32)];
        self.run("column_sums", shape, &arguments);
        self.add_chunks(to, partial, chunks, c);
    }

    fn add_chunks(&self, to: GradPlace, partial: Address, chunks: usize, c: usize) {
        let arguments: [&dyn Argument; 5] = [&to.at, &partial, &(chunks as u32), &(c as u64), &u32::from(to.adds)];
        self.run("add_chunks", geometry::chunk_sums(c), &arguments);
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
