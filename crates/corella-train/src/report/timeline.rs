//! What a run wrote, as a table by update.

use super::chart::escape;
use crate::folder::SAMPLES;
use crate::log::Sample;

/// Most updates whose samples are on a page.
const MOST: usize = 24;

/// The table, under its title; nothing of a run without samples. Every prompt of an update that is shown is shown.
pub fn timeline(samples: &[Sample]) -> String {
    let mut steps: Vec<u64> = samples.iter().map(|sample| sample.step).collect();
    steps.dedup();
    if steps.is_empty() {
        return String::new();
    }
    let shown: Vec<u64> = chosen(steps.len()).into_iter().map(|i| steps[i]).collect();
    let row = |s: &Sample| {
        let (prompt, text) = (escape(&s.prompt), escape(&s.text));
        format!(r#"<tr><td class="n">{}</td><td class="sample"><em>{prompt}</em>{text}</td></tr>"#, s.step)
    };
    let rows: String = samples.iter().filter(|s| shown.binary_search(&s.step).is_ok()).map(row).collect();
    let rest = match steps.len() - shown.len() {
        0 => String::new(),
        _ => format!(r#"<p class="state">{} of {} times; all are in {SAMPLES}</p>"#, shown.len(), steps.len()),
    };
    format!(r#"<h2>What it wrote, by update</h2>{rest}<table>{rows}</table>"#)
}

/// At most [`MOST`] of `n` places, the first and the last among them, each as many times further from the start than the one
/// before as the next: a run's texts change most at its beginning.
fn chosen(n: usize) -> Vec<usize> {
    let most = MOST.min(n);
    let mut places: Vec<usize> = Vec::with_capacity(most);
    let mut at = 0; // Counted from 1.
    for left in (0..most).rev() {
        // What is left, in equal factors; next to each other where these are less than a place.
        let factor = if at == 0 || left == 0 { 1.0 } else { (n as f64 / at as f64).powf(1.0 / (left + 1) as f64) };
        let next = if left == 0 { n } else { (at as f64 * factor).round() as usize };
        at = next.max(at + 1);
        places.push(at - 1);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(steps: u64, every: u64, prompts: &[&str]) -> Vec<Sample> {
        let at =
            |step| prompts.iter().map(move |p| Sample { step, prompt: (*p).to_owned(), text: "x".into(), seed: 1 });
        (0..=steps / every).flat_map(|i| at(i * every)).collect()
    }

    #[test]
    fn the_stages_of_a_long_run_are_on_the_page() {
        // 32,000 updates with a sample every 20, as in the lesson: noise, then near update 420, then the end.
        let of: Vec<u64> = chosen(1601).into_iter().map(|i| 20 * i as u64).collect();
        assert_eq!(of.len(), 24);
        assert_eq!((&of[..5], of[23]), (&[0, 20, 40, 60, 80][..], 32_000));
        assert!(of.iter().any(|step| (350..=500).contains(step)), "{of:?}");
        assert!(of.windows(2).all(|w| w[0] < w[1]), "{of:?}");
        for n in 1..300 {
            let few = chosen(n);
            assert_eq!((few.len(), few[0], few[few.len() - 1]), (n.min(24), 0, n - 1));
            assert!(few.windows(2).all(|w| w[0] < w[1]), "{n}: {few:?}");
        }
    }

    #[test]
    fn an_update_is_shown_with_all_of_its_prompts() {
        let page = timeline(&samples(1000, 10, &["first", "second"]));
        let rows = |prompt: &str| page.matches(&format!("<em>{prompt}</em>")).count();
        assert_eq!((rows("first"), rows("second")), (24, 24));
        assert!(page.contains("24 of 101 times"), "{page}");
        assert_eq!(timeline(&[]), "");
    }
}
