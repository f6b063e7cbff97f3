//! Work on a card: whole updates of models with random weights, and what generation there is compared with.

use corella_model::gpt2::Gpt2Train;
use corella_model::{Dtype, Recompute, Weights};
use corella_ops::cases::{Expected, inference_differences};
use serde::Serialize;

use super::train::{Shape, shapes, update};
use super::{CeilingsOut, formats};
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

/// A card by its datasheet; not a number where the table of cards does not have it.
pub struct Datasheet {
    /// Device, kernels and number formats.
    pub backend: String,
    /// Products in bf16.
    pub bf16_gflops: f64,
    /// Memory bandwidth.
    pub read_gbs: f64,
}

impl Datasheet {
    /// Of the card that `--device` stands for, once every operation of generation agrees with the reference there; none for
    /// the processor.
    pub fn of(common: &Common) -> Result<Option<Datasheet>> {
        let device = TrainDevice::choose(common)?;
        let TrainDevice::Cuda(cuda, _) = &device else { return Ok(None) };
        for dtype in Dtype::ALL {
            if let Some(wrong) = inference_differences(&**cuda, dtype)?.first() {
                return Err(Failure::new(format!("not timed, because it is wrong in {}: {wrong}", dtype.name())));
            }
        }
        let card = device.machine(Dtype::Bf16).map(|(machine, _)| machine.card);
        Ok(Some(Datasheet {
            backend: device.name(),
            bf16_gflops: card.as_ref().map_or(f64::NAN, |card| 1e3 * card.tflops),
            read_gbs: card.as_ref().map_or(f64::NAN, |card| 1e3 * card.bandwidth_tb_s),
        }))
    }

    /// As the document states them.
    pub fn ceilings(&self) -> CeilingsOut {
        let (bf16_gflops, read_gbs) = (Some(self.bf16_gflops), self.read_gbs);
        CeilingsOut { f32_gflops: f64::NAN, bf16_gflops, int8_gops: None, read_gbs }
    }
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
