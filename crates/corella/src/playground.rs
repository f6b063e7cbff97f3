//! What the playground shows of a run folder beside its model: demonstrations from the tiny internet with the measured
//! figures, and where text comes from.

use std::collections::BTreeSet;
use std::path::Path;

use corella_server::{Extras, Transcript, assistant_page};
use corella_text::tiny_internet::{World, facts, probes};
use corella_train::folder;
use serde_json::{Value, json};

use crate::commands::trace::Traced;
use crate::inputs::{TINY_INTERNET, WORLD_SEED, tiny_pages};
use crate::tour::{OPENING, Reading};

/// Everything that goes with `model`, where it is a run folder.
pub fn extras(model: &Path) -> Extras {
    let Some(plan) = folder::plan(model) else { return Extras::default() };
    let tiny = plan.data.path == TINY_INTERNET;
    let measured = std::fs::read_to_string(model.join("tour.json")).ok().and_then(|t| serde_json::from_str(&t).ok());
    let demos = tiny.then(|| demos(plan.train.seed, &measured.unwrap_or(Value::Null)));
    Extras { demos, tracer: Some(Box::new(Traced::new(model, plan))), ..Extras::default() }
}

/// The lecture's demonstrations with pages, facts and words of the tiny internet. `measured` is tour.json.
fn demos(seed: u64, measured: &Value) -> Value {
    let world = World::new(WORLD_SEED);
    let corpus = tiny_pages(&world, seed);
    let list = facts(&world, &corpus);
    let probes = probes(&world, &list);
    let found = &measured["phenomena"];
    let ratio = |v: &Value| Some(format!("{} of {}", v[0].as_u64()?, v[1].as_u64()?));
    let short = Reading::of(measured).and_then(Reading::too_little).map(|s| format!(" {s}")).unwrap_or_default();
    let note =
        |text: Option<String>| text.map_or(Value::Null, |t| json!(format!("Measured on this model: {t}.{short}")));
    let planted = list.planted.iter().max_by_key(|p| p.presentations);
    let (article, times) = planted.map_or(("", 0), |p| (p.text.as_str(), p.presentations));
    let recited = found["recited_of_40"][times.to_string()]
        .as_array()
        .map(|runs| (runs.iter().filter(|n| **n == json!(40)).count(), runs.len()));
    let given: String = article.split_inclusive(' ').take(12).collect();
    // The best known comes first.
    let town = world.towns.first().map_or("", |town| &town.name);
    let known = probes.recall.first();
    let unknown = probes.recall.iter().find(|r| r.mentions == 0);
    let few = probes.few_shot.iter().find(|f| f.examples == 10);
    let mut lines: Vec<&str> = few.map_or(Vec::new(), |f| f.prompt.lines().collect());
    let word = lines.pop().unwrap_or_default().trim_end_matches(':');
    let pairs: Vec<Vec<&str>> = lines.iter().map(|l| l.splitn(2, ": ").collect()).collect();
    let question = probes.explanations.first().map_or("", |q| &q.question);
    let page = if probes.assistant.is_empty() {
        assistant_page(&Transcript::default(), &[])
    } else {
        probes.assistant.clone()
    };
    let recall_32 = ratio(&found["recall_by_mentions"]["32"]);
    json!([
        {
            "id": "continue", "kind": "plain", "title": "It continues",
            "text": "A question is only a beginning. Three samples of one prompt differ, because every token is drawn from a distribution.",
            "measured": note(ratio(&found["grammatical_sentences"]).map(|r| format!("{r} sentences of its stories follow the grammar of the pages it read"))),
            "prompts": [
                {"label": "2 + 2, three times", "prompt": "What is 2 + 2?", "settings": {"samples": 3, "max_tokens": 40}},
                {"label": "A story, three times", "prompt": OPENING, "settings": {"samples": 3, "max_tokens": 60, "temperature": 0.8}}
            ]
        },
        {
            "id": "list", "kind": "plain", "title": "It knows what was mentioned often",
            "text": "Facts that many pages state come back; rare ones are guessed. Colour by surprise to see where it is unsure.",
            "measured": note(recall_32.map(|r| format!("{r} facts right that 32 to 63 pages state"))),
            "prompts": [
                {"label": "A top-ten list", "prompt": format!("Here is my top 10 list of the best sights to see in {town}:\n\n1."), "settings": {"max_tokens": 120, "colour": "probability"}},
                {"label": "A well-known animal", "prompt": known.map_or("", |r| &r.prompt), "settings": {"max_tokens": 8, "temperature": 0, "colour": "probability"}},
                {"label": "One that no page describes", "prompt": unknown.map_or("", |r| &r.prompt), "settings": {"max_tokens": 8, "samples": 4, "colour": "probability"}}
            ]
        },
        {
            "id": "recite", "kind": "plain", "title": "It recites",
            "text": format!("This article stands in the corpus {times} times. {} The panel ‘Source’ shows where it comes from.", comes_back(recited)),
            "measured": note(recited.map(|(n, of)| format!("{n} of {of} articles that stand there {times} times recited for 40 tokens"))),
            "prompts": [{"label": "Recite", "prompt": given.trim_end(), "reference": article, "settings": {"temperature": 0, "max_tokens": 80, "colour": "trace"}}]
        },
        {
            "id": "universes", "kind": "plain", "title": "It dreams parallel universes",
            "text": "Asked for what it was never told, it makes something up, another thing each time. The words that the universes do not share are marked.",
            "measured": note(different(&found["universes"]).map(|(n, of)| format!("{n} different answers in {of} universes"))),
            "prompts": [{"label": "Four universes", "prompt": unknown.map_or("", |r| &r.prompt), "settings": {"samples": 4, "max_tokens": 12, "colour": "entropy"}}]
        },
        {
            "id": "fewshot", "kind": "fewshot", "title": "It learns from examples in the prompt",
            "text": "It read lists of words in three invented languages. The examples tell it which one is meant.",
            "measured": note(ratio(&found["few_shot_by_examples"]["3"]).map(|r| format!("{r} words right with three examples"))),
            "pairs": pairs, "question": word, "settings": {"max_tokens": 8, "temperature": 0, "stop": "\\n"}
        },
        {
            "id": "assistant", "kind": "assistant", "title": "A transcript makes it an assistant",
            "text": "Its pages hold conversations with an assistant, as the web does. Without the stop it dreams the next question too; without the page, the bare question only leads to more text.",
            "measured": note(ratio(&found["assistant"]["explanations"]).zip(ratio(&found["dreamt_next_turn"])).map(|(right, dreamt)| {
                format!("{right} explanations right; not stopped, {dreamt} answers went on with a human turn of its own")
            })),
            "prompt": page, "question": question, "stop": "\\nHuman:", "settings": {"max_tokens": 100, "temperature": 0.5}
        },
        corella_server::recap()
    ])
}

/// What to expect of an article that stands in the corpus most often, by how many of these were recited.
fn comes_back(recited: Option<(usize, usize)>) -> &'static str {
    match recited {
        Some((0, _)) => "A model that has read enough gives it back word for word; this one does not.",
        Some((n, of)) if n == of => "It comes back word for word.",
        _ => "What was read so often can come back word for word.",
    }
}

/// Of the question that no page answers: how many different answers there were, and how many answers.
fn different(universes: &Value) -> Option<(usize, usize)> {
    let asked = universes.as_array()?.iter().find(|u| u["mentions"] == json!(0))?;
    let answers: Vec<&str> = asked["answers"].as_array()?.iter().filter_map(Value::as_str).collect();
    Some((answers.iter().collect::<BTreeSet<_>>().len(), answers.len()))
}
