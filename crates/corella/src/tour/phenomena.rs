//! What the trained model does, measured: recitation, recall, few-shot, assistant, the dreamt next turn.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use corella_infer::SampleParams;
use corella_model::TextModel;
use corella_text::tiny_internet::{FactList, FewShot, Grammar, Planted, Probes, Question, Recall};
use corella_text::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::printable::for_output;
use crate::training::hooks::continue_text;

/// Tokens of a planted article that are given, and that are compared.
const GIVEN: usize = 20;
const COMPARED: usize = 40;
/// Facts asked for in each range of mentions.
const ASKED: usize = 60;

/// How the stories that are shown and judged begin.
pub const OPENING: &str = "Once upon a time there was a";
/// Stories whose sentences are judged.
const JUDGED: u64 = 20;
/// Universes that are looked into.
const UNIVERSES: u64 = 8;

/// Asks everything, prints it if `show`, and returns the figures.
pub fn measure(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    list: &FactList,
    probes: &Probes,
    grammar: &Grammar,
    show: bool,
) -> Value {
    let mut asked = Asked { model, tokenizer };
    let say = |text: String| {
        if show {
            println!("{}", for_output(&text));
        }
    };

    say("\n── Sentences of its own ──────────────────────────────────────".to_owned());
    let sentences = (0..JUDGED).map(|i| grammar.judge(&asked.text(OPENING, 120, 0.8, i)));
    let (right, of) = sentences.fold((0, 0), |(a, b), (right, of)| (a + right, b + of));
    say(format!("{right} of {of} sentences of {JUDGED} stories follow the grammar that the pages were written with"));
    let grammatical = (right, of);

    say("\n── Reciting articles, by how often they stand in the corpus ──".to_owned());
    say("in the corpus   first wrong token of the 40 that follow, in each of three articles".to_owned());
    let recited = recitation(&mut asked, &list.planted);
    for (presentations, runs) in &recited {
        let text: Vec<String> =
            runs.iter().map(|n| if *n == COMPARED { "none".to_owned() } else { (n + 1).to_string() }).collect();
        say(format!("{presentations:13}   {}", text.join(", ")));
    }

    say("\n── Facts, by how many pages of the corpus state them ─────────".to_owned());
    let recall = recall(&mut asked, &probes.recall);
    for (least, (right, of)) in &recall {
        say(format!("stated by {:16} {right:2} of {of:2} right (a guess: 1 in 8)", pages(*least)));
    }

    say("\n── Words of a language, from examples in its prompt ──────────".to_owned());
    let few = few_shot(&mut asked, &probes.few_shot);
    for (examples, (right, of)) in &few {
        say(format!("{examples:2} examples: {right:2} of {of} words in the right language"));
    }

    say("\n── An assistant, from a transcript in its prompt ─────────────".to_owned());
    let explained = answered(&mut asked, &probes.assistant, &probes.explanations);
    let facts = answered(&mut asked, &probes.assistant, &probes.facts);
    say(format!(
        "explanations: {} of {} right; facts: {} of {}",
        explained,
        probes.explanations.len(),
        facts,
        probes.facts.len()
    ));
    say("(The corpus has pages with Human and Assistant; so has the web.)".to_owned());

    say("\n── The next question, dreamt where it is not stopped ─────────".to_owned());
    let all: Vec<&Question> = probes.explanations.iter().chain(&probes.facts).collect();
    let mut dreamt = 0;
    let mut example = String::new();
    for (i, q) in all.iter().enumerate() {
        let text = asked.text(&probes.assistant.replace("{}", &q.question), 100, 0.8, i as u64);
        if let Some(at) = text.find("\nHuman:") {
            dreamt += 1;
            example = text[at + 1..].lines().next().unwrap_or_default().to_owned();
        }
    }
    say(format!("{dreamt} of {} answers went on with a human turn of its own, such as: {example}", all.len()));

    say("\n── The bare question ─────────────────────────────────────────".to_owned());
    let bare = asked.text("Why is the sky blue?", 40, 0.8, 1);
    say(format!("Why is the sky blue?▸{}", bare.replace('\n', " ⏎ ")));

    say("\n── What it was told and what it was not: parallel universes ──".to_owned());
    let famous = probes.recall.iter().max_by_key(|r| r.mentions);
    let unknown = probes.recall.iter().find(|r| r.mentions == 0);
    let mut universes = Vec::new();
    for probe in famous.into_iter().chain(unknown) {
        let answers: Vec<String> = (0..UNIVERSES)
            .map(|i| asked.first_line(&probe.prompt, 6, 1.0, i).trim_end_matches('.').to_owned())
            .collect();
        let asked_for = probe.prompt.lines().next().unwrap_or_default().trim_start_matches("Question: ");
        say(format!("{asked_for} ({} pages say)  {}", probe.mentions, answers.join(" | ")));
        universes.push(json!({"prompt": probe.prompt, "mentions": probe.mentions, "answers": answers}));
    }
    json!({
        "grammatical_sentences": grammatical,
        "recited_of_40": recited,
        "recall_by_mentions": recall,
        "few_shot_by_examples": few,
        "assistant": {"explanations": [explained, probes.explanations.len()], "facts": [facts, probes.facts.len()]},
        "dreamt_next_turn": [dreamt, all.len()],
        "bare": bare,
        "universes": universes,
    })
}

/// The model with its tokenizer.
struct Asked<'a> {
    model: &'a mut dyn TextModel,
    tokenizer: &'a Tokenizer,
}

impl Asked<'_> {
    fn text(&mut self, prompt: &str, max_tokens: usize, temperature: f32, sample: u64) -> String {
        let params = SampleParams { temperature, seed: 42, ..SampleParams::default() };
        continue_text(self.model, self.tokenizer, prompt, max_tokens, params, sample, &AtomicBool::new(false))
    }

    /// The first line of a continuation.
    fn first_line(&mut self, prompt: &str, max_tokens: usize, temperature: f32, sample: u64) -> String {
        let text = self.text(prompt, max_tokens, temperature, sample);
        text.trim_start().lines().next().unwrap_or_default().to_owned()
    }

    /// The first line of the likeliest continuation.
    fn line(&mut self, prompt: &str, max_tokens: usize) -> String {
        self.first_line(prompt, max_tokens, 0.0, 0)
    }
}

/// For each count of presentations, how many tokens of each article come right before the first wrong one.
fn recitation(asked: &mut Asked<'_>, planted: &[Planted]) -> BTreeMap<usize, Vec<usize>> {
    let mut runs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for article in planted {
        let ids = asked.tokenizer.encode(&article.text);
        let (given, expected) = ids.split_at(GIVEN.min(ids.len()));
        let prompt = asked.tokenizer.decode(given);
        let got = asked.text(&prompt, COMPARED, 0.0, 0);
        let got = asked.tokenizer.encode(&got);
        let right = got.iter().zip(expected).take(COMPARED).take_while(|(a, b)| a == b).count();
        runs.entry(article.presentations).or_default().push(right);
    }
    runs
}

/// From so many mentions on facts are counted together.
const MANY: usize = 64;

/// The range of mentions that begins with `least`.
fn pages(least: usize) -> String {
    match least {
        0 => "no page".to_owned(),
        1 => "1 page".to_owned(),
        MANY.. => format!("{least} or more pages"),
        _ => format!("{least}–{} pages", 2 * least - 1),
    }
}

/// For each range of mentions (by its least), right answers and questions.
fn recall(asked: &mut Asked<'_>, probes: &[Recall]) -> BTreeMap<usize, (usize, usize)> {
    let mut ranges: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for probe in probes {
        let least = probe.mentions.checked_ilog2().map_or(0, |power| (1 << power).min(MANY));
        let range = ranges.entry(least).or_default();
        if range.1 < ASKED {
            range.1 += 1;
            range.0 += usize::from(asked.line(&probe.prompt, 4).starts_with(&probe.answer));
        }
    }
    ranges
}

/// For each number of examples, right words and words.
fn few_shot(asked: &mut Asked<'_>, probes: &[FewShot]) -> BTreeMap<usize, (usize, usize)> {
    let mut counts: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for probe in probes {
        let count = counts.entry(probe.examples).or_default();
        count.1 += 1;
        count.0 += usize::from(asked.line(&probe.prompt, 8) == probe.answer);
    }
    counts
}

fn answered(asked: &mut Asked<'_>, page: &str, questions: &[Question]) -> usize {
    let right = |q: &&Question| {
        let text = asked.text(&page.replace("{}", &q.question), 70, 0.0, 0);
        text.split("\nHuman:").next().is_some_and(|answer| answer.contains(&q.answer))
    };
    questions.iter().filter(right).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_mentions_are_named_as_ranges() {
        let names = [0, 1, 2, 4, 32, 64].map(pages);
        assert_eq!(names, ["no page", "1 page", "2–3 pages", "4–7 pages", "32–63 pages", "64 or more pages"]);
    }
}
