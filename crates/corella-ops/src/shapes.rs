//! What every operation asks of its operands, stated once: each backend asks here first, so that a mistake of a caller has one
//! message, at the caller's line, wherever it runs. Arrays may be longer than needed, as buffers are made for the largest step.

use crate::contract::{AttentionDims, ClassifierDims, EmbeddingDims, EncoderDims, GluDims, MatmulDims, NormDims};
use crate::contract_infer::{BatchPlan, HeadDims, KvPagesDims};

/// Something that holds numbers: activations, ids, a parameter.
pub trait Length {
    /// How many.
    fn length(&self) -> usize;
}

impl Length for Vec<u32> {
    fn length(&self) -> usize {
        self.len()
    }
}

type Operand<'a> = &'a dyn Length;

/// Panics at the caller's line unless every operand holds as many numbers as an operation touches.
#[track_caller]
fn holds(operation: &str, operands: &[(&str, Operand<'_>, usize)]) {
    for (name, operand, needed) in operands {
        let has = operand.length();
        assert!(has >= *needed, "{operation}: {name} holds {has} numbers, and {needed} are needed");
    }
}

/// Of lookups with positions, or their gradients: an array (B,T,C), ids and both tables.
#[track_caller]
pub fn encoder(rows: Operand<'_>, ids: Operand<'_>, wte: Operand<'_>, wpe: Operand<'_>, d: EncoderDims) {
    let n = d.b * d.t;
    let last = d.pos0 + if n > 0 { d.t } else { 0 };
    holds("encoder", &[("out", rows, n * d.c), ("ids", ids, n), ("wte", wte, d.v * d.c), ("wpe", wpe, last * d.c)]);
}

/// Of a lookup or its gradient: an array (N,C) and ids.
#[track_caller]
pub fn embedding(rows: Operand<'_>, ids: Operand<'_>, d: EmbeddingDims) {
    holds("embedding", &[("out", rows, d.n * d.c), ("ids", ids, d.n)]);
}

/// Of a norm or its gradient: arrays (N,C), statistics (N), and parameters (C).
#[track_caller]
pub fn norm(operation: &str, rows: &[Operand<'_>], statistics: &[Operand<'_>], params: &[Operand<'_>], d: NormDims) {
    rows.iter().for_each(|rows| holds(operation, &[("an array (N,C)", *rows, d.n * d.c)]));
    statistics.iter().for_each(|numbers| holds(operation, &[("statistics (N)", *numbers, d.n)]));
    params.iter().for_each(|param| holds(operation, &[("a parameter (C)", *param, d.c)]));
}

/// Of a linear layer or its gradient: arrays of its input (N,C), of its output (N,OC), weights and bias.
#[track_caller]
pub fn matmul(inputs: &[Operand<'_>], outputs: &[Operand<'_>], w: Operand<'_>, b: Option<Operand<'_>>, d: MatmulDims) {
    inputs.iter().for_each(|rows| holds("matmul", &[("an array (N,C)", *rows, d.n * d.c)]));
    outputs.iter().for_each(|rows| holds("matmul", &[("an array (N,OC)", *rows, d.n * d.oc)]));
    let (weights, biases) = (w.length(), b.map(Length::length));
    assert!(weights == d.oc * d.c, "matmul: {weights} weights in w, and {} are needed", d.oc * d.c);
    assert!(biases.is_none_or(|biases| biases == d.oc), "matmul: {biases:?} numbers in b, and {} are needed", d.oc);
}

/// Of rotary positions of training: qkv, or its gradient, and the table of angles.
#[track_caller]
pub fn rope(qkv: Operand<'_>, table: Operand<'_>, d: AttentionDims) {
    assert!(d.hs.is_multiple_of(2), "rope: heads of {}, which is odd", d.hs);
    holds("rope", &[("qkv", qkv, d.b * d.t * d.qkv()), ("table", table, d.t * d.hs)]);
}

/// Of attention or its gradient: arrays like qkv, arrays like the output, and the softmax's denominators.
#[track_caller]
pub fn attention(qkv: &[Operand<'_>], outputs: &[Operand<'_>], lse: Operand<'_>, d: AttentionDims) {
    let rows = d.b * d.t;
    assert!(d.nkv > 0 && d.nh.is_multiple_of(d.nkv), "attention: {} heads of queries, {} of keys", d.nh, d.nkv);
    qkv.iter().for_each(|qkv| holds("attention", &[("qkv", *qkv, rows * d.qkv())]));
    outputs.iter().for_each(|out| holds("attention", &[("out", *out, rows * d.c())]));
    holds("attention", &[("lse", lse, rows * d.nh)]);
}

/// Of what looks at each element alone.
#[track_caller]
pub fn elements(operation: &str, arrays: &[Operand<'_>], len: usize) {
    arrays.iter().for_each(|array| holds(operation, &[("an array", *array, len)]));
}

/// Of SwiGLU or its gradient: arrays like gate and up, and the output.
#[track_caller]
pub fn swiglu(gate_up: &[Operand<'_>], out: Operand<'_>, d: GluDims) {
    gate_up.iter().for_each(|both| holds("swiglu", &[("gate and up", *both, 2 * d.n * d.f)]));
    holds("swiglu", &[("out", out, d.n * d.f)]);
}

/// Of the classifier, with the gradient of x where that is asked for.
#[track_caller]
pub fn classifier(
    losses: Operand<'_>,
    rows: &[Operand<'_>],
    wte: Operand<'_>,
    targets: Operand<'_>,
    d: ClassifierDims,
) {
    holds("classifier", &[("losses", losses, d.n), ("wte", wte, d.v * d.c), ("targets", targets, d.n)]);
    rows.iter().for_each(|rows| holds("classifier", &[("x", *rows, d.n * d.c)]));
}

/// Of a parameter that is copied from the host or to it.
#[track_caller]
pub fn param(p: Operand<'_>, values: usize) {
    assert!(values == p.length(), "{values} values for a parameter of {}", p.length());
}

/// Of rows that are packed into a weight (rows, …), from `first` on; `row_bytes` is a row of the file.
#[track_caller]
pub fn weight_rows(rows: usize, row_bytes: usize, first: usize, bytes: usize) {
    assert!(bytes.is_multiple_of(row_bytes.max(1)), "{bytes} bytes are no whole rows of {row_bytes}");
    let count = bytes / row_bytes.max(1);
    assert!(first <= rows && count <= rows - first, "rows {first} to {} of a weight of {rows}", first + count);
}

/// Of layers (OC, C) that read the same input: C, Σ OC and the sizes of the biases must fit. Returns C and Σ OC.
#[track_caller]
pub fn linear(
    out: Operand<'_>,
    x: Operand<'_>,
    n: usize,
    layers: impl Iterator<Item = ([usize; 2], Option<usize>)> + Clone,
) -> [usize; 2] {
    let c = layers.clone().next().map_or(0, |([_, c], _)| c);
    let width = layers.clone().map(|([oc, _], _)| oc).sum::<usize>();
    for ([oc, inner], bias) in layers {
        assert!(inner == c, "linear: a layer reads {inner} numbers where another reads {c}");
        assert!(bias.is_none_or(|bias| bias == oc), "linear: {bias:?} numbers in a bias of {oc}");
    }
    holds("linear", &[("x", x, n * c), ("out", out, n * width)]);
    [c, width]
}

/// Of the pages that a plan names: each row's position lies in one.
#[track_caller]
pub fn batch(plan: &BatchPlan<'_>) {
    for row in plan.rows {
        let pages = plan.tables.get(row.sequence as usize).map_or(0, |table| table.len());
        assert!(pages * plan.page_len > row.position as usize, "{row:?} lies behind its {pages} pages");
    }
}

/// Of rows that are picked.
#[track_caller]
pub fn select_rows(out: Operand<'_>, x: Operand<'_>, rows: &[u32], c: usize) {
    let last = rows.iter().max().map_or(0, |row| *row as usize + 1);
    holds("select_rows", &[("x", x, last * c), ("out", out, rows.len() * c)]);
}

/// Of rotary positions: pairs of a head that turn.
#[track_caller]
pub fn rope_rows(qkv: Operand<'_>, rows: usize, pairs: usize, d: HeadDims) {
    assert!(2 * pairs <= d.hs, "rope: {pairs} pairs in a head of {}", d.hs);
    holds("rope", &[("qkv", qkv, rows * d.qkv())]);
}

/// Of a cache.
#[track_caller]
pub fn kv_pages(d: KvPagesDims) {
    let whole = d.page_len > 0 && d.page_len.is_multiple_of(KvPagesDims::GROUP);
    assert!(whole, "a page of {} positions, which are no whole {}", d.page_len, KvPagesDims::GROUP);
}

/// Of pages that are copied.
#[track_caller]
pub fn copy_page(d: KvPagesDims, from: usize, to: usize) {
    assert!(from.max(to) < d.pages, "page {from} over page {to} of {}", d.pages);
}

/// Of attention over a cache `cache` by a batch of so many rows and pages of `page_len`.
#[track_caller]
pub fn attention_paged(
    out: Operand<'_>,
    qkv: Operand<'_>,
    cache: KvPagesDims,
    (rows, page_len): (usize, usize),
    d: HeadDims,
) {
    assert!(d.nkv > 0 && d.nh.is_multiple_of(d.nkv), "attention: {} heads of queries, {} of keys", d.nh, d.nkv);
    let (found, asked) = ((cache.nkv, cache.hs, cache.page_len), (d.nkv, d.hs, page_len));
    assert!(
        found == asked,
        "attention: heads, their size and a page are {found:?} in the cache, {asked:?} in the step"
    );
    holds("attention", &[("out", out, rows * d.nh * d.hs), ("qkv", qkv, rows * d.qkv())]);
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn message(body: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let why = catch_unwind(body).expect_err("a shape that does not fit");
        why.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let d = MatmulDims { n: 2, c: 3, oc: 4 };
        let [x, out, w] = [6, 8, 12].map(|len| vec![0u32; len]);
        matmul(&[&x], &[&out], &w, None, d);
        assert_eq!(
            message(|| matmul(&[&vec![0; 5]], &[], &vec![0; 12], None, d)),
            "matmul: an array (N,C) holds 5 numbers, and 6 are needed"
        );
        assert_eq!(message(|| matmul(&[], &[], &vec![0; 13], None, d)), "matmul: 13 weights in w, and 12 are needed");
        assert_eq!(message(|| weight_rows(10, 4, 9, 8)), "rows 9 to 11 of a weight of 10");
        assert_eq!(message(|| weight_rows(10, 4, 0, 7)), "7 bytes are no whole rows of 4");
    }
}
