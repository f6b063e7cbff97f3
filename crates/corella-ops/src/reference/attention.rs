//! Attention as its formula: all scores, softmax, weighted sum.

use super::infer::Kv;
use crate::contract::AttentionDims;

/// Softmax of scaled scores of one query against keys 0 ..= t, and the log of its denominator.
fn probabilities(q: &[f64], key: impl Fn(usize) -> f64, t: usize, hs: usize, q_at: usize) -> (Vec<f64>, f64) {
    let scale = 1.0 / (hs as f64).sqrt();
    let scores: Vec<f64> =
        (0..=t).map(|s| (0..hs).map(|i| q[q_at + i] * key(s * hs + i)).sum::<f64>() * scale).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + scores.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    (scores.iter().map(|x| (x - lse).exp()).collect(), lse)
}

/// Index in qkv of what query head `head` uses of part 0 (q), 1 (k) or 2 (v) at a position.
fn at(d: AttentionDims, part: usize, b: usize, t: usize, head: usize) -> usize {
    let first = [0, d.nh, d.nh + d.nkv][part];
    let head = if part == 0 { head } else { head / d.group() };
    (b * d.t + t) * d.qkv() + (first + head) * d.hs
}

/// See [`crate::OpsTrain::attention`].
pub fn forward(out: &mut [f64], lse: &mut [f64], qkv: &[f64], d: AttentionDims) {
    let c = d.nh * d.hs;
    for (b, head, t) in heads_and_positions(d) {
        let key = |i: usize| qkv[at(d, 1, b, i / d.hs, head) + i % d.hs];
        let (p, log_sum) = probabilities(qkv, key, t, d.hs, at(d, 0, b, t, head));
        lse[(b * d.nh + head) * d.t + t] = log_sum;
        for i in 0..d.hs {
            out[(b * d.t + t) * c + head * d.hs + i] =
                p.iter().enumerate().map(|(s, p)| p * qkv[at(d, 2, b, s, head) + i]).sum();
        }
    }
}

/// See [`crate::OpsTrain::attention_grad`]. With `p` the probabilities: dv_s += p_s·dout, dp_s = dout·v_s, and through
/// the softmax dscore_s = p_s·(dp_s − Σ p·dp).
pub fn backward(dqkv: &mut [f64], dout: &[f64], qkv: &[f64], lse: &[f64], d: AttentionDims) {
    let (c, scale) = (d.nh * d.hs, 1.0 / (d.hs as f64).sqrt());
    dqkv[..d.b * d.t * d.qkv()].fill(0.0);
    for (b, head, t) in heads_and_positions(d) {
        let (q, k, v) = (at(d, 0, b, t, head), |s| at(d, 1, b, s, head), |s| at(d, 2, b, s, head));
        let dout = &dout[(b * d.t + t) * c + head * d.hs..][..d.hs];
        let log_sum = lse[(b * d.nh + head) * d.t + t];
        let p: Vec<f64> = (0..=t)
            .map(|s| (scale * (0..d.hs).map(|i| qkv[q + i] * qkv[k(s) + i]).sum::<f64>() - log_sum).exp())
            .collect();
        let dp: Vec<f64> = (0..=t).map(|s| (0..d.hs).map(|i| dout[i] * qkv[v(s) + i]).sum()).collect();
        let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        for s in 0..=t {
            let dscore = p[s] * (dp[s] - mean) * scale;
            for i in 0..d.hs {
                dqkv[q + i] += dscore * qkv[k(s) + i];
                dqkv[k(s) + i] += dscore * qkv[q + i];
                dqkv[v(s) + i] += p[s] * dout[i];
            }
        }
    }
}

fn heads_and_positions(d: AttentionDims) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..d.b).flat_map(move |b| (0..d.nh).flat_map(move |head| (0..d.t).map(move |t| (b, head, t))))
}

/// See [`crate::OpsInfer::attention_cached`].
pub fn cached(out: &mut [f64], kv: &mut Kv, qkv: &[f64], pos0: usize, n: usize, nh: usize, hs: usize) {
    let c = kv.c;
    for row in 0..n {
        let at = (pos0 + row) * c;
        kv.k[at..at + c].copy_from_slice(&qkv[row * 3 * c + c..][..c]);
        kv.v[at..at + c].copy_from_slice(&qkv[row * 3 * c + 2 * c..][..c]);
    }
    for row in 0..n {
        for head in 0..nh {
            let key = |i: usize| kv.k[i / hs * c + head * hs + i % hs];
            let (p, _) = probabilities(qkv, key, pos0 + row, hs, row * 3 * c + head * hs);
            for i in 0..hs {
                out[row * c + head * hs + i] = p.iter().enumerate().map(|(s, p)| p * kv.v[s * c + head * hs + i]).sum();
            }
        }
    }
}
