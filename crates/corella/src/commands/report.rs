//! `corella report`: the page of a run, or runs beside each other.

use std::path::PathBuf;

use clap::Args;
use corella_train::console::grouped;
use corella_train::folder;
use corella_train::report::{
    self, OTHER_VOCABULARY, Record, Summary, comparison, differences, one_vocabulary, standing, summaries,
};

use crate::cli::Common;
use crate::error::{Failure, Result};
use crate::inputs::no_card;
use crate::output::deliver;

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Run folders: one for its report.html, several for a comparison
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// The page to write [default: report.html in the run folder, comparison.html for several]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &ReportArgs, common: &Common) -> Result<()> {
    no_card(common)?;
    let open = |dir: &PathBuf| {
        if !folder::is_run(dir) {
            return Err(Failure::new(format!("{} is not a run folder: it holds no {}", dir.display(), folder::PLAN))
                .hint("name a folder that `corella train` wrote"));
        }
        let record = Record::open(dir)?;
        record.unreadable.iter().for_each(|what| eprintln!("warning: {what}"));
        if record.has_lost_its_log() {
            let log = dir.join(folder::LOG);
            return Err(Failure::new(format!(
                "{} has no row that can be read, but the run has checkpoints",
                log.display()
            ))
            .hint("bring a copy of it back; no page was written"));
        }
        Ok(record)
    };
    let records: Vec<Record> = args.runs.iter().map(open).collect::<Result<_>>()?;
    let page = match (&records[..], &args.out) {
        ([one], None) => report::write(&one.dir)?,
        ([one], Some(out)) => {
            report::replace(out, &report::page(one)?)?;
            out.clone()
        }
        (several, out) => {
            let out = out.clone().unwrap_or_else(|| PathBuf::from("comparison.html"));
            report::replace(&out, &comparison(several))?;
            out
        }
    };
    let found = summaries(&records);
    let differ = if records.len() > 1 { differences(&records) } else { Vec::new() };
    if common.json {
        let tracks: Vec<_> = records.iter().map(standing).collect::<std::result::Result<_, _>>()?;
        return deliver(
            serde_json::json!({"runs": found, "tracks": tracks, "one_vocabulary": one_vocabulary(&records), "differences": differ, "page": page}),
        );
    }
    let mut lines = Vec::new();
    if !one_vocabulary(&records) {
        lines.push(format!("warning: {OTHER_VOCABULARY}"));
    }
    for (record, summary) in records.iter().zip(&found) {
        lines.push(line(summary));
        lines.extend(standing(record)?.map(|standing| format!("    {standing}")));
    }
    lines.extend(differ.into_iter().map(|(key, values)| format!("{key}: {}", values.join(" | "))));
    lines.push(format!("wrote {}", page.display()));
    deliver(lines.join("\n"))
}

fn line(s: &Summary) -> String {
    let show = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.4}"));
    format!(
        "{}: {} updates, {} tokens, loss {}, validation {} (lowest {}), {} bits per byte, {:.0} tokens/s, {}",
        s.name,
        grouped(s.step),
        grouped(s.tokens),
        show(s.loss),
        show(s.val_loss),
        show(s.best_val_loss),
        show(s.bits_per_byte),
        s.tokens_per_second.unwrap_or(0.0),
        corella_train::console::duration(s.seconds)
    )
}
