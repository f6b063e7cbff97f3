//! Several runs beside each other.

use serde::Serialize;

use super::chart::{Chart, Look, Scale, Series, escape};
use super::page::shell;
use super::record::Record;
use crate::console::duration;

/// A run in a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Name of its folder.
    pub name: String,
    /// Updates made.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Mean training loss of the last tenth.
    pub loss: Option<f64>,
    /// Lowest validation loss.
    pub best_val_loss: Option<f64>,
    /// Last validation loss.
    pub val_loss: Option<f64>,
    /// Median tokens per second.
    pub tokens_per_second: Option<f64>,
    /// Seconds in training.
    pub seconds: f64,
    /// The last validation in bits per byte of text; `None` in logs of earlier versions.
    pub bits_per_byte: Option<f64>,
    /// Tokens until the validation loss was as low as the highest final one of the runs compared; `None` for never, and where the
    /// vocabularies differ.
    pub tokens_to_common_loss: Option<f64>,
    /// The same of bits per byte, where all runs have them.
    pub tokens_to_common_bits_per_byte: Option<f64>,
}

/// Whether losses per token of these runs can be compared: a token is as much text only in one and the same vocabulary.
pub fn one_vocabulary(records: &[Record]) -> bool {
    records.len() < 2 || {
        let vocabularies: Vec<String> = records.iter().map(Record::vocabulary).collect();
        vocabularies.windows(2).all(|pair| pair[0] == pair[1])
    }
}

/// What is said of runs whose vocabularies differ.
pub const OTHER_VOCABULARY: &str =
    "the runs have different vocabularies: their losses per token cannot be compared, bits per byte can";

/// The figures of each run, in the order given.
pub fn summaries(records: &[Record]) -> Vec<Summary> {
    let highest = |finals: Vec<f64>| finals.into_iter().max_by(f64::total_cmp);
    let losses = records.iter().filter_map(|r| r.validations().last()).map(|v| v.1).collect();
    let common = if one_vocabulary(records) { highest(losses) } else { None };
    let bits: Option<Vec<f64>> = records.iter().map(|r| r.bits_per_byte().last().map(|v| v.1)).collect();
    let common_bits = bits.and_then(highest);
    records.iter().map(|record| summary(record, common, common_bits)).collect()
}

fn summary(record: &Record, common: Option<f64>, common_bits: Option<f64>) -> Summary {
    let losses: Vec<f64> = record.updates().filter_map(|row| row.loss).collect();
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    let mut speeds: Vec<f64> = record.updates().filter_map(|row| row.tokens_per_second).collect();
    speeds.sort_by(f64::total_cmp);
    let last = record.updates().last();
    let (losses, bits) = (record.validations(), record.bits_per_byte());
    Summary {
        name: record.name(),
        step: last.map_or(0, |row| row.step),
        tokens: last.map_or(0, |row| row.tokens_seen),
        loss: (!tail.is_empty()).then(|| tail.iter().sum::<f64>() / tail.len() as f64),
        best_val_loss: record.totals.best,
        val_loss: record.validations().map(|v| v.1).last(),
        tokens_per_second: speeds.get(speeds.len() / 2).copied(),
        seconds: record.seconds(),
        bits_per_byte: record.bits_per_byte().map(|v| v.1).last(),
        tokens_to_common_loss: common.and_then(|common| tokens_until(losses, common)),
        tokens_to_common_bits_per_byte: common_bits.and_then(|common| tokens_until(bits, common)),
    }
}

/// Tokens until a curve was as low.
fn tokens_until(mut curve: impl Iterator<Item = (f64, f64)>, level: f64) -> Option<f64> {
    curve.find(|(_, value)| *value <= level).map(|(tokens, _)| tokens)
}

/// The differences between the plans, key by key: (key, value of each run).
pub fn differences(records: &[Record]) -> Vec<(String, Vec<String>)> {
    let flat = |record: &Record| -> Vec<(String, String)> {
        let value = toml::Value::try_from(&record.plan).ok();
        let mut pairs = Vec::new();
        for (section, keys) in value.as_ref().and_then(toml::Value::as_table).into_iter().flatten() {
            for (key, value) in keys.as_table().into_iter().flatten() {
                pairs.push((format!("{section}.{key}"), value.to_string()));
            }
        }
        pairs
    };
    let plans: Vec<Vec<(String, String)>> = records.iter().map(flat).collect();
    let mut keys: Vec<String> = Vec::new();
    plans.iter().flatten().for_each(|(key, _)| {
        if !keys.contains(key) {
            keys.push(key.clone())
        }
    });
    let value = |plan: &Vec<(String, String)>, key: &str| {
        plan.iter().find(|(k, _)| k == key).map_or("–".to_owned(), |(_, v)| v.clone())
    };
    let rows = keys.into_iter().map(|key| (plans.iter().map(|plan| value(plan, &key)).collect::<Vec<_>>(), key));
    rows.filter(|(values, _)| values.windows(2).any(|w| w[0] != w[1])).map(|(values, key)| (key, values)).collect()
}

/// A value of a plan in the table; a number stays in one line, however narrow the window.
fn cell(value: &str) -> String {
    let class = if value.parse::<f64>().is_ok() { r#" class="number""# } else { "" };
    format!("<td{class}>{}</td>", escape(value))
}

/// A page that compares runs.
pub fn comparison(records: &[Record]) -> String {
    let series = |of: &dyn Fn(&Record) -> Vec<(f64, f64)>, look| -> Vec<Series> {
        let lines = records.iter().enumerate();
        lines.map(|(i, r)| Series { name: r.name(), points: of(r), look, colour: i }).collect()
    };
    let chart = |title: &str, x_name, series, scale| Chart {
        title: title.to_owned(),
        x_name,
        series,
        levels: Vec::new(),
        scale,
        wide: false,
    };
    let by_time = |r: &Record| r.rows.iter().filter_map(|row| Some((row.elapsed / 60.0, row.val_loss?))).collect();
    let training = |r: &Record| r.updates().filter_map(|row| Some((row.tokens_seen as f64, row.loss?))).collect();
    let norm = |r: &Record| r.updates().filter_map(|row| Some((row.step as f64, row.norm?))).collect();
    let speed = |r: &Record| r.updates().filter_map(|row| Some((row.step as f64, row.tokens_per_second?))).collect();
    let bits = |r: &Record| r.bits_per_byte().collect();
    let bits_by_time =
        |r: &Record| r.rows.iter().filter_map(|row| Some((row.elapsed / 60.0, row.val_bits_per_byte?))).collect();
    let one_vocabulary = one_vocabulary(records);
    // Of other vocabularies only what is of the same text stands in one chart.
    let (by_tokens, by_minutes, training) = match one_vocabulary {
        true => (
            chart(
                "Validation loss by tokens",
                "tokens",
                series(&|r| r.validations().collect(), Look::Strong),
                Scale::Factors,
            ),
            chart("Validation loss by time", "minutes", series(&by_time, Look::Strong), Scale::Factors),
            chart("Training loss", "tokens", series(&training, Look::Faint), Scale::Factors),
        ),
        false => (
            chart("Validation, bits per byte by tokens", "tokens", series(&bits, Look::Strong), Scale::Factors),
            chart("Validation, bits per byte by time", "minutes", series(&bits_by_time, Look::Strong), Scale::Factors),
            chart("Training loss, not comparable", "tokens", series(&training, Look::Faint), Scale::Factors),
        ),
    };
    let charts = [
        Chart { wide: true, ..by_tokens },
        by_minutes,
        training,
        chart("Gradient norm", "updates", series(&norm, Look::Faint), Scale::FromZero),
        chart("Tokens per second", "updates", series(&speed, Look::Faint), Scale::FromZero),
    ];
    let show = |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
    let rows: String = summaries(records)
        .iter()
        .map(|s| {
            format!(
                r#"<tr><td>{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td></tr>"#,
                escape(&s.name),
                s.step,
                s.tokens,
                show(s.loss, 4),
                show(s.val_loss, 4),
                show(s.best_val_loss, 4),
                show(s.bits_per_byte, 4),
                show(s.tokens_per_second, 0),
                duration(s.seconds)
            )
        })
        .collect();
    let different: String = differences(records)
        .iter()
        .map(|(key, values)| {
            format!("<tr><th>{}</th>{}</tr>", escape(key), values.iter().map(|v| cell(v)).collect::<String>())
        })
        .collect();
    let warning =
        if one_vocabulary { String::new() } else { format!(r#" · <span class="bad">{OTHER_VOCABULARY}</span>"#) };
    let names: Vec<String> = records.iter().map(Record::name).collect();
    let body = format!(
        r#"<h1>{}</h1><p class="state">runs beside each other{warning}</p><div class="scroll"><table class="figures"><tr><th>run</th><th class="n">updates</th><th class="n">tokens</th><th class="n">loss (last tenth)</th><th class="n">validation</th><th class="n">lowest</th><th class="n">bits per byte</th><th class="n">tokens/s</th><th class="n">time</th></tr>{rows}</table></div><div class="charts">{}</div><h2>What differs in the plans</h2><div class="scroll"><table class="plans">{different}</table></div>"#,
        escape(&names.join(" · ")),
        charts.iter().map(Chart::html).collect::<String>()
    );
    shell(&names.join(" and "), &body)
}
