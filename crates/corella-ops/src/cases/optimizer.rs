//! Cases of the gradient's norm and AdamW.

use super::{Arrays, Case, MARGIN, MARK, On, Outputs};
use crate::contract::{AdamW, OpsError, OpsTrain, ParamPart};

pub fn cases<B: OpsTrain>() -> Vec<Case<B>> {
    let hyper = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale: 0.5, step: 1 };
    let later = AdamW { step: 1000, weight_decay: 0.0, ..hyper };
    let mut cases = Vec::new();
    for (rows, cols) in [(1, 1), (3, 37), (40, 1025)] {
        for h in [hyper, later] {
            let name = format!("adamw {rows}×{cols} step {}", h.step);
            cases.push(Case::new(name, move |ops: &On<B>| adamw(ops, rows, cols, h)));
        }
    }
    cases
}

/// Two updates from moments that are already there.
fn adamw<B: OpsTrain>(ops: &On<B>, rows: usize, cols: usize, h: AdamW) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, cols);
    let len = rows * cols;
    let mut p = a.param(rows, cols)?;
    ops.param_write(&mut p, ParamPart::M, &a.random.normals(len));
    let squares: Vec<f32> = a.random.normals(len).iter().map(|x| x * x).collect();
    ops.param_write(&mut p, ParamPart::V, &squares);
    ops.adamw(&mut p, h);
    ops.adamw(&mut p, AdamW { step: h.step + 1, ..h });
    let mut norm = vec![ops.grad_square_sum(&p) as f32];
    norm.extend([MARK; MARGIN]);
    let parts = [ParamPart::Value, ParamPart::M, ParamPart::V, ParamPart::Grad];
    let mut outputs: Outputs =
        parts.into_iter().zip(["value", "m", "v", "grad"]).map(|(part, name)| (name, a.part(&p, part, len))).collect();
    outputs.push(("square sum", norm));
    Ok(outputs)
}
