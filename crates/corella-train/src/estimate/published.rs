//! Training runs that others published: what the plan is checked against, and what its report compares with.

use corella_model::Dtype;
use serde::Deserialize;

use super::EstimateError;
use super::card::{Machine, card};
use super::workload::{Formula, Workload};

/// What a run is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Hours from the recorded utilisation.
    Hours,
    /// The same, where the source rounds.
    Approximate,
    /// Hours × price.
    Price,
    /// Comparison only.
    Context,
    /// More than the cards can do.
    Impossible,
}

/// A published run; what is not known is `None`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRun {
    /// Name.
    pub id: String,
    /// Card.
    pub card: String,
    /// Cards.
    pub cards: u32,
    /// Wall-clock hours.
    pub hours: f64,
    /// Range, where one was published.
    pub hours_min: Option<f64>,
    /// See `hours_min`.
    pub hours_max: Option<f64>,
    /// All parameters.
    pub params: Option<u64>,
    /// Parameters that the formula counts.
    pub matmul_params: Option<u64>,
    /// Blocks.
    pub layers: Option<u64>,
    /// Width.
    pub channels: Option<u64>,
    /// Context.
    pub seq_len: Option<u64>,
    /// Σ over layers of min(window, T).
    pub span: Option<u64>,
    /// Logits.
    pub vocab_size: Option<u64>,
    /// Partly in fp8.
    #[serde(default)]
    pub fp8: bool,
    /// Tokens.
    pub tokens: Option<u64>,
    /// Tokens of an update.
    pub tokens_per_step: Option<u64>,
    /// Utilisation by `formula`.
    pub mfu: Option<f64>,
    /// How operations were counted.
    pub formula: Option<Formula>,
    /// Dollars per hour of the machine.
    pub price_per_hour: Option<f64>,
    /// Dollars.
    pub dollars: Option<f64>,
    /// What it is good for.
    pub check: Check,
    /// Where it was published.
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    run: Vec<PublishedRun>,
}

/// All published runs.
pub fn published_runs() -> Result<Vec<PublishedRun>, EstimateError> {
    let table: Table = toml::from_str(include_str!("../../data/published.toml"))
        .map_err(|source| EstimateError::Table { what: "published.toml".to_owned(), source: Box::new(source) })?;
    Ok(table.run)
}

impl PublishedRun {
    /// The run as a workload, where shape and tokens are known.
    pub fn workload(&self) -> Option<Workload> {
        let tokens_per_step = self.tokens_per_step.unwrap_or(524_288);
        // Published runs gave every card its part.
        let sequences_per_step = self.seq_len.map_or(u64::from(self.cards), |t| tokens_per_step / t.max(1));
        Some(Workload {
            params: self.params?,
            matmul_params: self.matmul_params?,
            layers: self.layers?,
            channels: self.channels?,
            span: self.span?,
            vocab_size: self.vocab_size?,
            tokens: self.tokens?,
            tokens_per_step,
            sequences_per_step,
            dtype: Dtype::Bf16,
            fp8: self.fp8,
            recompute: false,
            formula: self.formula.unwrap_or(Formula::Causal),
        })
    }

    /// Its machine, where the card is in the table.
    pub fn machine(&self) -> Option<Machine> {
        Some(Machine::Cards { card: card(&self.card).ok()?, count: self.cards })
    }
}

#[cfg(test)]
mod tests {
    use super::super::speed::{FP8_GAIN, mfu_at, seconds_per_token};
    use super::super::{Card, EstimateError, bill};
    use super::*;

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        if n % 2 == 1 { values[n / 2] } else { (values[n / 2 - 1] + values[n / 2]) / 2.0 }
    }

    fn peak(machine: &Machine) -> f64 {
        machine.peak_flops(Dtype::Bf16).expect("a peak")
    }

    #[test]
    fn recorded_utilisation_gives_the_recorded_hours_and_dollars_within_3_percent() {
        let mut checked = 0;
        for run in published_runs().expect("readable") {
            let (Some(work), Some(machine), Some(mfu)) = (run.workload(), run.machine(), run.mfu) else { continue };
            let bill = bill(&work, &machine, Some(mfu), run.price_per_hour).expect("possible");
            assert!((bill.hours / run.hours - 1.0).abs() < 0.03, "{}: {} hours", run.id, bill.hours);
            if let (Some(dollars), Some(published)) = (bill.dollars, run.dollars) {
                assert!((dollars / published - 1.0).abs() < 0.03, "{}: {dollars} dollars", run.id);
            }
            checked += 1;
        }
        assert_eq!(checked, 15, "all that state a utilisation, but for the A10, whose peak is disputed");
    }

    #[test]
    fn prices_give_the_published_dollars() {
        for run in published_runs().expect("readable") {
            if let (Some(price), Some(dollars)) = (run.price_per_hour, run.dollars) {
                assert!((run.hours * price / dollars - 1.0).abs() < 0.005, "{}", run.id);
            }
        }
    }

    #[test]
    fn a_claim_above_the_peak_is_refused() {
        let run = published_runs().expect("readable").into_iter().find(|r| r.check == Check::Impossible).expect("one");
        let (work, machine) = (run.workload().expect("a shape"), run.machine().expect("a card"));
        let claimed = work.flops() as f64 / peak(&machine) / run.hours / 3600.0;
        assert!(matches!(bill(&work, &machine, Some(claimed), None), Err(EstimateError::BadMfu(mfu)) if mfu > 1.0));
    }

    /// The share that a run itself shows: what is left for its products after everything else.
    fn shown_share(run: &PublishedRun) -> Option<f64> {
        let work = run.workload()?;
        let (products, rest) = seconds_per_token(&work, &card(&run.card).ok()?, run.cards)?;
        let total = run.hours * 3600.0 * f64::from(run.cards) / work.tokens as f64;
        Some(products / (total - rest))
    }

    /// Runs that a prediction can be held against.
    fn predictable() -> Vec<PublishedRun> {
        let runs = published_runs().expect("readable").into_iter();
        runs.filter(|r| r.check != Check::Impossible && r.workload().is_some() && r.machine().is_some()).collect()
    }

    /// The fit without run `left_out`: the median share of the other runs on the card (or of its `share_of`), and the
    /// median gain of the other fp8 runs.
    fn fit(runs: &[PublishedRun], of: &Card, left_out: Option<&str>) -> (f64, f64) {
        let used = |r: &&PublishedRun| Some(r.id.as_str()) != left_out;
        let owner = |card: &Card| card.share_of.clone().unwrap_or(card.name.clone());
        let share = |of: &Card| {
            let same = |r: &&PublishedRun| card(&r.card).is_ok_and(|card| owner(&card) == owner(of));
            let shown = runs.iter().filter(used).filter(same).filter(|r| !r.fp8).filter_map(shown_share).collect();
            median(shown)
        };
        let gains = runs.iter().filter(used).filter(|r| r.fp8);
        let gains = gains.filter_map(|r| Some(shown_share(r)? / share(&card(&r.card).ok()?))).collect();
        (share(of), median(gains))
    }

    #[test]
    fn the_shares_of_the_table_are_the_fit() {
        let runs = predictable();
        for name in ["A100-80 SXM", "H100 SXM", "RTX 4090"] {
            let card = card(name).expect("known");
            let (share, gain) = fit(&runs, &card, None);
            assert!((share - card.share).abs() < 0.005, "{name}: {share}");
            assert!((gain - FP8_GAIN).abs() < 0.02, "fp8: {gain}");
        }
    }

    #[test]
    fn predicted_hours_are_within_15_percent_in_the_median_each_run_left_out_of_its_own_fit() {
        let runs = predictable();
        let (mut errors, mut table) = (Vec::new(), String::new());
        for run in &runs {
            let (work, machine) = (run.workload().expect("a shape"), run.machine().expect("a card"));
            let card = card(&run.card).expect("known");
            let (share, gain) = fit(&runs, &card, Some(&run.id));
            let mfu = mfu_at(&work, &card, run.cards, share, gain).expect("a peak");
            let hours = work.flops() as f64 / peak(&machine) / mfu / 3600.0;
            let error = hours / run.hours - 1.0;
            let percent = |error: f64| format!("{:+.1} %", 100.0 * error);
            let by_mfu = |mfu| bill(&work, &machine, Some(mfu), None).expect("possible").hours / run.hours - 1.0;
            let (recorded, predicted) = (run.mfu.map_or("–".to_owned(), |m| percent(by_mfu(m))), percent(error));
            table += &format!("| {} | {:.2} | {recorded} | {hours:.2} | {predicted} |\n", run.id, run.hours);
            errors.push(error.abs());
        }
        let median = median(errors);
        println!("{table}median {:.1} %", 100.0 * median);
        assert!(median < 0.15, "{median}\n{table}");
        let doc = include_str!("../../../../docs/plan.md");
        for line in table.lines() {
            assert!(doc.contains(line), "docs/plan.md lacks: {line}");
        }
    }
}
