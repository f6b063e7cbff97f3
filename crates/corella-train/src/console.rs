//! The line that each update prints.

use std::io::Write;

use crate::calendar::moment;
use crate::step_report::StepReport;

/// `step   12/1000 | loss 7.123456 (+0.12z) | norm 1.2345 (-0.55z) | lr 3.00e-4 | 812.33 ms | 42.6% mfu | 5043 tok/s | 1.2% | eta 13m02s (14:05 UTC)`
///
/// The numbers in brackets are standard deviations above the recent mean, once there are enough updates to tell. Where the
/// device's peak is not known, operations per second stand in the place of the utilisation. With a price per hour, the bill
/// so far follows.
pub fn line(report: &StepReport, steps: u64, flops_per_token: f64, price_per_hour: Option<f64>) -> String {
    let width = steps.to_string().len();
    let rate = match report.mfu {
        Some(mfu) => format!("{:.1}% mfu", 100.0 * mfu),
        None => format!("{:.1} GFLOP/s", flops_per_token * report.update.tokens_per_second / 1e9),
    };
    let mut line = format!(
        "step {:width$}/{steps} | loss {:.6}{} | norm {:.4}{} | lr {:.2e} | {:.2} ms | {rate} | {:.0} tok/s | {:.1}% | eta {} ({})",
        report.update.step,
        report.update.loss,
        score(report.update.z_loss),
        report.update.norm,
        score(report.update.z_norm),
        report.update.lr,
        report.update.ms,
        report.update.tokens_per_second,
        100.0 * report.update.step as f64 / steps as f64,
        duration(report.eta),
        moment(report.time + report.eta, report.time),
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
    if let Some(skip) = report.update.skipped {
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

/// `1.40 kWh`, or `0.6 Wh` of little.
pub fn energy(kwh: f64) -> String {
    if kwh < 0.1 { format!("{:.1} Wh", 1000.0 * kwh) } else { format!("{kwh:.2} kWh") }
}

/// A number with commas.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `$672.00`, `$1,234,567.89`.
pub fn money(dollars: f64) -> String {
    let cents = format!("{:.2}", dollars.abs());
    let (whole, part) = cents.split_once('.').unwrap_or((&cents, "00"));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    format!("{}${whole}.{part}", if dollars < 0.0 { "-" } else { "" })
}

/// Days of a year, for times that are told in years.
const YEAR: u64 = 365;

/// `9s`, `13m02s`, `4h05m`, `12d03h`, `58y182d`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round().max(0.0) as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ if s / 86400 < YEAR => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
        _ => format!("{}y{:03}d", grouped(s / 86400 / YEAR), s / 86400 % YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Standing, Verdict};
    use crate::{Skip, StepParts, Update};

    #[test]
    fn the_line_shows_what_the_update_did() {
        let update = Update {
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
        };
        let report = StepReport {
            update,
            mfu: None,
            epochs: 0.5,
            val_loss: Some(6.5),
            val_bits_per_byte: Some(2.5),
            standing: Some(Standing {
                verdict: Verdict::Behind,
                curve: "a curve".to_owned(),
                above: 0.2,
                expected: 6.3,
                band: 0.1,
            }),
            scores: [("piqa/acc".to_owned(), 0.5)].into(),
            elapsed: 6.0,
            eta: 494.0,
            time: 50_000.0,
        };
        assert_eq!(
            line(&report, 1000, 25e6, Some(24.0)),
            "step   12/1000 | loss 7.123456 (+0.12z) | norm 1.2345 | lr 3.00e-4 | 500.00 ms | 102.4 GFLOP/s | 4096 tok/s | 1.2% | eta 8m14s (14:01 UTC) | $0.0400 | val 6.500000 behind (+0.200) | piqa/acc 0.5000 | SKIPPED: norm spike"
        );
        let known = line(&StepReport { mfu: Some(0.4257), ..report }, 1000, 25e6, None);
        assert!(known.contains("| 500.00 ms | 42.6% mfu | 4096 tok/s | 1.2% |"), "{known}");
    }

    #[test]
    fn large_numbers_are_told_in_groups_and_long_times_in_years() {
        assert_eq!([grouped(7), grouped(1000), grouped(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([money(0.004), money(672.0), money(76_279_141_696.41)], ["$0.00", "$672.00", "$76,279,141,696.41"]);
        assert_eq!([duration(59.0), duration(364.0 * 86400.0)], ["59s", "364d00h"]);
        assert_eq!(duration(21_352.0 * 86400.0 + 11.0 * 3600.0), "58y182d");
    }

    #[test]
    fn little_energy_is_told_in_watt_hours() {
        assert_eq!([energy(0.00055), energy(1.4), energy(244.8)], ["0.6 Wh", "1.40 kWh", "244.80 kWh"]);
    }
}
