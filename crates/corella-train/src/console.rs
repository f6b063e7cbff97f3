//! The line that each update prints.

use std::io::Write;

use crate::step::StepReport;

/// `step   12/1000 | loss 7.123456 (+0.12z) | norm 1.2345 (-0.55z) | lr 3.00e-4 | 812.33 ms | 123.4 GFLOP/s | 5043 tok/s | 1.2% | eta 13m02s`
///
/// The numbers in brackets are standard deviations above the recent mean, once there are enough updates to tell. With a
/// price per hour, the bill so far follows.
pub fn line(
    report: &StepReport,
    steps: u64,
    flops_per_token: f64,
    seconds_per_step: f64,
    price_per_hour: Option<f64>,
) -> String {
    let width = steps.to_string().len();
    let mut line = format!(
        "step {:width$}/{steps} | loss {:.6}{} | norm {:.4}{} | lr {:.2e} | {:.2} ms | {:.1} GFLOP/s | {:.0} tok/s | {:.1}% | eta {}",
        report.step,
        report.loss,
        score(report.z_loss),
        report.norm,
        score(report.z_norm),
        report.lr,
        report.ms,
        flops_per_token * report.tokens_per_second / 1e9,
        report.tokens_per_second,
        100.0 * report.step as f64 / steps as f64,
        duration((steps.saturating_sub(report.step)) as f64 * seconds_per_step),
    );
    if let Some(price) = price_per_hour {
        line += &format!(" | ${:.4}", price * report.elapsed / 3600.0);
    }
    if let Some(loss) = report.val_loss {
        line += &format!(" | val {loss:.6}");
        if let Some(standing) = &report.standing {
            line += &format!(" {} ({:+.3})", standing.verdict.word(), standing.above);
        }
    }
    for (name, score) in &report.scores {
        line += &format!(" | {name} {score:.4}");
    }
    if let Some(skip) = report.skipped {
        line += &format!(" | SKIPPED: {}", skip.name());
    }
    line
}

fn score(z: Option<f64>) -> String {
    z.map(|z| format!(" ({z:+.2}z)")).unwrap_or_default()
}

/// Prints a warning. Where nobody takes it (a terminal whose connection broke), the run goes on.
pub fn warn(what: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {what}");
}

/// `9s`, `13m02s`, `4h05m`, `12d03h`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round().max(0.0) as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Standing, Verdict};
    use crate::{Skip, StepParts};

    #[test]
    fn the_line_shows_what_the_update_did() {
        let report = StepReport {
            step: 12,
            loss: 7.1234561,
            lr: 3e-4,
            norm: 1.23454,
            ms: 500.0,
            tokens_per_second: 4096.0,
            tokens_seen: 24576,
            epoch: 0,
            parts: StepParts::default(),
            z_loss: Some(0.123),
            z_norm: None,
            skipped: Some(Skip::NormSpike),
            val_loss: Some(6.5),
            standing: Some(Standing {
                verdict: Verdict::Behind,
                curve: "a curve".to_owned(),
                above: 0.2,
                expected: 6.3,
                band: 0.1,
            }),
            scores: [("piqa/acc".to_owned(), 0.5)].into(),
            elapsed: 6.0,
            time: 0.0,
        };
        assert_eq!(
            line(&report, 1000, 25e6, 0.5, Some(24.0)),
            "step   12/1000 | loss 7.123456 (+0.12z) | norm 1.2345 | lr 3.00e-4 | 500.00 ms | 102.4 GFLOP/s | 4096 tok/s | 1.2% | eta 8m14s | $0.0400 | val 6.500000 behind (+0.200) | piqa/acc 0.5000 | SKIPPED: norm spike"
        );
    }
}
