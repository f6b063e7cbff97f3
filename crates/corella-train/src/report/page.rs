//! report.html: one run on one page that needs nothing else, no network, no other file.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::axis::number;
use super::chart::{Chart, Look, Scale, Series, escape};
use super::levels;
use super::record::Record;
use super::reference::{Curve, Standing, Verdict, curves};
use super::timeline::timeline;
use crate::TrainError;
use crate::calendar::moment;
use crate::console::{duration, energy};
use crate::heartbeat::{Heartbeat, RunState};

/// The part of the scale that a chart of HellaSwag has at least: chance, and the models that it is drawn beside.
const HELLASWAG: (f64, f64) = (0.24, 0.56);

/// The page of a run.
pub fn page(record: &Record) -> Result<String, TrainError> {
    let curves: Vec<Curve> = curves()?.into_iter().filter(|curve| curve.is_of(&record.plan)).collect();
    let mut body = format!("<h1>{}</h1>{}", escape(&record.name()), state(record, &curves));
    body += &tiles(record);
    let mut charts = vec![loss(record, &curves)?, learning_rate(record), norm(record), throughput(record)];
    charts.extend(scores(record)?);
    let _ = write!(body, r#"<div class="charts">{}</div>"#, charts.iter().map(Chart::html).collect::<String>());
    body += &parts(record);
    body += &timeline(&record.samples);
    body += &details(record);
    Ok(shell(&record.name(), &body))
}

/// A page around a body.
pub fn shell(title: &str, body: &str) -> String {
    format!(
        r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{}</title><style>{}</style></head><body>{body}<script>{}</script></body></html>"#,
        escape(title),
        include_str!("page.css"),
        include_str!("page.js")
    )
}

/// How the newest validation loss stands beside the curve that judges this shape.
pub fn standing(record: &Record, curves: &[Curve]) -> Option<Standing> {
    let (tokens, loss) = record.validations().last()?;
    curves.iter().filter(|curve| curve.judges(&record.plan)).find_map(|curve| curve.standing(tokens, loss))
}

fn state(record: &Record, curves: &[Curve]) -> String {
    let beat = record.heartbeat.as_ref();
    let state = match beat.map(|b| b.state) {
        Some(RunState::Finished) => "finished",
        Some(RunState::Stopped) => "stopped",
        Some(RunState::Failed) => "failed",
        Some(_) => "going on when this page was written",
        None => "not begun",
    };
    let mut text = format!("{} · {state}", escape(&record.plan.model.name));
    if let Some(trouble) = beat.and_then(|b| b.trouble.as_ref()) {
        let _ = write!(text, r#" · <span class="bad">{}</span>"#, escape(trouble));
    }
    match standing(record, curves) {
        Some(s) => {
            let class = if s.verdict == Verdict::Behind { "bad" } else { "good" };
            let _ = write!(text, r#" · <span class="{class}">{}</span>"#, escape(&s.to_string()));
        }
        None => text += " · no reference curve for this model, vocabulary and data",
    }
    format!(r#"<p class="state">{text}</p>"#)
}

fn is_going_on(beat: &Heartbeat) -> bool {
    !matches!(beat.state, RunState::Finished | RunState::Stopped | RunState::Failed)
}

/// `412 ms`, or `2.75 s`.
fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

fn tiles(record: &Record) -> String {
    let last = record.updates().last();
    let steps = record.plan.train.steps;
    let val = record.validations().last();
    let totals = &record.totals;
    let best = totals.best;
    let dollars = record.plan.cost.price_per_hour.map(|price| price * record.seconds() / 3600.0);
    let skipped = totals.skipped;
    let updates = format!("of {steps} updates");
    let epochs = last.and_then(|row| row.epochs);
    let beat = record.heartbeat.as_ref();
    let left = beat.filter(|b| is_going_on(b)).and_then(|b| Some((b.eta_seconds?, b.time)));
    let used = beat.and_then(|b| b.usage.energy_kwh);
    let (times, mfu) = (totals.ms, totals.mfu);
    let tiles = [
        (&*updates, last.map(|row| row.step.to_string())),
        ("tokens seen", last.map(|row| number(row.tokens_seen as f64))),
        ("of the data read", epochs.filter(|n| *n < 1.0).map(|n| format!("{:.1} %", 100.0 * n))),
        ("times through the data", epochs.filter(|n| *n >= 1.0).map(|n| format!("{n:.2}"))),
        ("last loss", last.and_then(|row| row.loss).map(|loss| format!("{loss:.4}"))),
        ("validation loss", val.map(|(_, loss)| format!("{loss:.4}"))),
        ("lowest validation loss", best.map(|loss| format!("{loss:.4}"))),
        ("time in training", last.map(|row| duration(row.elapsed))),
        ("time left", left.map(|(seconds, _)| duration(seconds))),
        ("end expected", left.map(|(seconds, now)| moment(now + seconds, now))),
        ("time of an update", times.map(|spread| milliseconds(spread.median))),
        ("of the device's peak (MFU)", mfu.map(|spread| format!("{:.1} %", 100.0 * spread.median))),
        ("GPU-hours", beat.and_then(|b| b.usage.gpu_hours).map(|hours| format!("{hours:.2}"))),
        (if record.plan.cost.watts.is_some() { "energy" } else { "energy, at most" }, used.map(energy)),
        ("bill", dollars.map(|dollars| format!("${dollars:.2}"))),
        ("updates left out", (skipped > 0).then(|| skipped.to_string())),
    ];
    let shown = tiles.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let html: String =
        shown.map(|(name, value)| format!(r#"<div class="tile"><b>{value}</b><span>{name}</span></div>"#)).collect();
    format!(r#"<div class="tiles">{html}</div>"#)
}

fn line(name: &str, points: Vec<(f64, f64)>, look: Look, colour: usize) -> Series {
    Series { name: name.to_owned(), points, look, colour }
}

/// A value of each update by step.
fn by_step(record: &Record, of: impl Fn(&super::record::Row) -> Option<f64>) -> Vec<(f64, f64)> {
    record.updates().filter_map(|row| Some((row.step as f64, of(row)?))).collect()
}

fn loss(record: &Record, curves: &[Curve]) -> Result<Chart, TrainError> {
    let training = record.updates().filter_map(|row| Some((row.tokens_seen as f64, row.loss?))).collect();
    let mut series = vec![
        line("training", training, Look::Faint, 0),
        line("validation", record.validations().collect(), Look::Strong, 1),
    ];
    // No further than the run itself is planned to go.
    let end = (record.plan.train.steps * record.plan.train.batch_tokens as u64) as f64;
    for curve in curves {
        let mut points: Vec<(f64, f64)> = curve.points.iter().copied().filter(|(tokens, _)| *tokens <= end).collect();
        if let Some(last) = curve.at(end).filter(|_| points.last().is_none_or(|p| p.0 < end)) {
            points.push((end, last));
        }
        // A band holds for the shape that it was measured with.
        let band = if curve.judges(&record.plan) { curve.band } else { 0.0 };
        series.push(line(&format!("reference: {}", curve.name), points, Look::Reference(band), 2));
    }
    let vocab = record.plan.model.vocab_size as f64;
    let mut levels = vec![(format!("a guess among {vocab} tokens"), vocab.ln())];
    levels.extend(levels::losses(&record.plan)?);
    let title = "Loss in nats per token".to_owned();
    Ok(Chart { title, x_name: "tokens", series, levels, scale: Scale::Factors, wide: true })
}

fn chart(title: &str, series: Vec<Series>, scale: Scale) -> Chart {
    Chart { title: title.to_owned(), x_name: "updates", series, levels: Vec::new(), scale, wide: false }
}

fn learning_rate(record: &Record) -> Chart {
    chart("Learning rate", vec![line("rate", by_step(record, |row| row.lr), Look::Strong, 0)], Scale::FromZero)
}

fn norm(record: &Record) -> Chart {
    let skipped = by_step(record, |row| row.skipped.as_ref().and(row.norm));
    let series = vec![
        line("before clipping", by_step(record, |row| row.norm), Look::Faint, 0),
        line("left out", skipped, Look::Dots, 1),
    ];
    Chart {
        levels: vec![("clipped above".to_owned(), record.plan.train.clip)],
        ..chart("Gradient norm", series, Scale::FromZero)
    }
}

fn throughput(record: &Record) -> Chart {
    chart(
        "Tokens per second",
        vec![line("tokens/s", by_step(record, |row| row.tokens_per_second), Look::Faint, 0)],
        Scale::FromZero,
    )
}

/// Scores by task: HellaSwag beside what known models have, the others together.
fn scores(record: &Record) -> Result<[Chart; 2], TrainError> {
    let names: BTreeSet<&String> = record.rows.iter().flat_map(|row| row.scores.keys()).collect();
    let of = |(i, name): (usize, &&String)| {
        let points = record.rows.iter().filter_map(|row| Some((row.step as f64, *row.scores.get(*name)?)));
        line(name, points.collect(), Look::Strong, i % 5)
    };
    let (known, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.starts_with("hellaswag/"));
    let lines = |names: &[&String]| names.iter().enumerate().map(of).collect();
    Ok([
        chart("Evaluations", lines(&others), Scale::Fitted),
        Chart {
            levels: levels::hellaswag()?,
            wide: true,
            ..chart("HellaSwag", lines(&known), Scale::Covering(HELLASWAG.0, HELLASWAG.1))
        },
    ])
}

/// Where the time went: of the updates by part, and what lay between them.
fn parts(record: &Record) -> String {
    let inside = record.totals.parts;
    // Validation, samples, checkpoints: in the run, but in no update.
    let between = (record.seconds() * 1e3 - inside.iter().sum::<f64>()).max(0.0);
    let all = inside.iter().sum::<f64>() + between;
    if all <= 0.0 {
        return String::new();
    }
    let names = [
        ("waiting for data", inside[0]),
        ("forward", inside[1]),
        ("backward", inside[2]),
        ("norm and AdamW", inside[3]),
        ("validation, samples, checkpoints", between),
    ];
    let (mut bar, mut legend) = (String::new(), String::new());
    for (colour, (name, ms)) in names.into_iter().enumerate() {
        let percent = 100.0 * ms / all;
        let _ = write!(bar, r#"<i class="c{colour}" style="width:{percent:.2}%" title="{name}"></i>"#);
        let _ = write!(legend, r#"<span class="key c{colour}">{name} {percent:.1} %</span>"#);
    }
    let spread = match (record.totals.ms, record.totals.longest) {
        (Some(s), Some(longest)) => format!(
            r#"<p class="state">Half of the updates take less than {}; nine in ten take {} to {}, the longest {}.</p>"#,
            milliseconds(s.median),
            milliseconds(s.low),
            milliseconds(s.high),
            milliseconds(longest)
        ),
        _ => String::new(),
    };
    format!(r#"<h2>Where the time goes</h2>{spread}<div class="legend">{legend}</div><div class="bar">{bar}</div>"#)
}

fn details(record: &Record) -> String {
    let plan = record.plan.to_toml().unwrap_or_default();
    let environment: String = record
        .environment
        .iter()
        .map(|(k, v)| format!("<tr><th>{}</th><td>{}</td></tr>", escape(k), escape(v)))
        .collect();
    let events: Vec<String> = record
        .events
        .iter()
        .filter(|e| e.event != "checkpoint")
        .map(|e| {
            format!(
                r#"<tr><td class="n">{}</td><td>{} {}</td><td class="n">{}</td></tr>"#,
                e.step,
                escape(&e.event),
                escape(&e.what),
                duration(e.elapsed)
            )
        })
        .collect();
    let skip = events.len().saturating_sub(60);
    format!(
        r#"<div class="two"><div><h2>Plan</h2><pre>{}</pre></div><div><h2>Environment</h2><table>{environment}</table><h2>Events</h2><table>{}</table></div></div>"#,
        escape(&plan),
        events[skip..].concat()
    )
}
