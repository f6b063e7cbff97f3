//! Whole updates of models with random weights on a card.

use corella_model::gpt2::Gpt2Train;
use corella_model::{Dtype, Recompute, Weights};
use corella_ops::cases::Expected;
use serde::Serialize;

use super::formats;
use super::train::{Shape, shapes, update};
use crate::cli::{BenchArgs, Common};
use crate::device::TrainDevice;
use crate::error::{Failure, Result};

/// Updates before the first that counts: plans are made, memory is taken, the card warms up.
const WARM_UP: u64 = 3;

/// A model in a format.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    dtype: &'static str,
    b: usize,
    t: usize,
    /// Median of the updates.
    ms: f64,
    tokens_per_second: f64,
    tflops: f64,
    /// Part of the card's peak by its datasheet, in percent, where the card is known.
    mfu: Option<f64>,
    formula: &'static str,
}

/// The last line of the output.
#[derive(Serialize)]
struct Document {
    backend: String,
    peak_tflops: Option<f64>,
    results: Vec<Row>,
}

/// `bench train --device cuda`: every operation is checked against the reference first.
pub fn run(args: &BenchArgs, common: &Common) -> Result<()> {
    let device = TrainDevice::choose(common)?;
    let (backend, peak_tflops) = (device.name(), device.machine(Dtype::Bf16).map(|(machine, _)| machine.card.tflops));
    if let TrainDevice::Cuda(cuda, _) = &device {
        formats(args, |dtype| match Expected::new(dtype)?.training_differences(&**cuda)?.first() {
            Some(wrong) => Err(Failure::new(format!("not timed, because it is wrong in {}: {wrong}", dtype.name()))),
            None => Ok(()),
        })?;
    }
    drop(device);
    let mut results = Vec::new();
    for shape in shapes(args.model.as_deref())? {
        formats(args, |dtype| {
            let row = updates(&shape, args, dtype, peak_tflops, common)?;
            if !common.json {
                let mfu = row.mfu.map(|mfu| format!(", {mfu:.1} % of the peak")).unwrap_or_default();
                println!(
                    "{:12} {:5} B {} T {}: {:9.3} ms, {:.0} tokens/s, {:.1} TFLOP/s{mfu}",
                    row.name, row.dtype, row.b, row.t, row.ms, row.tokens_per_second, row.tflops
                );
            }
            results.push(row);
            Ok(())
        })?;
    }
    println!("{}", serde_json::to_string(&Document { backend, peak_tflops, results })?);
    Ok(())
}

fn updates(shape: &Shape, args: &BenchArgs, dtype: Dtype, peak: Option<f64>, common: &Common) -> Result<Row> {
    let mut batch = shape.batch;
    batch.b = args.micro_batch.unwrap_or(batch.b);
    let TrainDevice::Cuda(cuda, _) = TrainDevice::choose(common)? else {
        return Err(Failure::new("the card that was there is gone"));
    };
    let mut model = Gpt2Train::new(*cuda, &Weights::random(&shape.config, 1), batch, Recompute::None, dtype)?;
    let n = batch.b * batch.t;
    let ids = shape.ids(n);
    for step in 1..=WARM_UP {
        update(&mut model, &ids, step);
    }
    // The norm is read back before AdamW, so that each update waits for the one before.
    let mut seconds: Vec<f64> =
        (0..args.repeat as u64).map(|step| update(&mut model, &ids, WARM_UP + 1 + step)).collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let tflops = shape.operations(batch.t) * n as f64 / median / 1e12;
    Ok(Row {
        name: shape.name,
        dtype: dtype.name(),
        b: batch.b,
        t: batch.t,
        ms: median * 1e3,
        tokens_per_second: n as f64 / median,
        tflops,
        mfu: peak.map(|peak| 100.0 * tflops / peak),
        formula: "6·N + 6·L·C·T per token",
    })
}
