//! Questions to a trained model, each with what the pages say.

use std::collections::HashMap;

use super::facts::FactList;
use super::pages::EXPLANATIONS;
use super::random::Random;
use super::world::{Fact, Relation, World};

/// A fact asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Recall {
    /// Text to continue.
    pub prompt: String,
    /// How a true continuation begins.
    pub answer: String,
    /// Pages that state the fact.
    pub mentions: usize,
}

/// A word to translate from examples in the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct FewShot {
    /// Examples in the prompt.
    pub examples: usize,
    /// Lines `english: word`, the last without its word.
    pub prompt: String,
    /// The word.
    pub answer: String,
}

/// A question to the assistant.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The question.
    pub question: String,
    /// Text that a true answer contains.
    pub answer: String,
}

/// All questions.
#[derive(Clone, Debug)]
pub struct Probes {
    /// Facts on animals with one true answer of eight, those that no page states included, the best known animals first.
    pub recall: Vec<Recall>,
    /// Words to translate with 0, 1, 3 and 10 examples.
    pub few_shot: Vec<FewShot>,
    /// A page that makes an assistant; `{}` is the place of the question.
    pub assistant: String,
    /// Questions that explanations answer.
    pub explanations: Vec<Question>,
    /// Questions that facts answer.
    pub facts: Vec<Question>,
}

/// Numbers of examples that are tried.
pub const EXAMPLES: [usize; 4] = [0, 1, 3, 10];

/// Relations with eight possible objects each, so that a guess is right once in eight times.
const ASKED_OF_ANIMALS: [(Relation, &str); 3] = [
    (Relation::AnimalDiet, "Question: What does the {} eat?\nAnswer: The {} eats"),
    (Relation::AnimalHabitat, "Question: Where does the {} live?\nAnswer: The {} lives in the"),
    (Relation::AnimalColour, "Question: What colour is the {}?\nAnswer: The {} has"),
];

/// The questions that go with a corpus.
pub fn probes(world: &World, list: &FactList) -> Probes {
    let mentions: HashMap<Fact, usize> = list.facts.iter().map(|row| (row.fact, row.mentions)).collect();
    let recall =
        (0..world.animals.len()).flat_map(|subject| ASKED_OF_ANIMALS.iter().map(move |asked| (subject, asked)));
    let recall = recall.map(|(subject, (relation, prompt))| {
        let fact = Fact { relation: *relation, subject };
        Recall {
            prompt: prompt.replace("{}", world.subject(fact)),
            answer: world.object(fact),
            mentions: mentions.get(&fact).copied().unwrap_or(0),
        }
    });
    let assistant = "This is a conversation between a human and an assistant. The assistant is friendly and knows many things.\n\n\
        Human: Hello! Who are you?\nAssistant: I am the assistant. Ask me anything you like.\n\
        Human: Why does it rain?\nAssistant: It rains because water rises from the sea as vapour, cools in the clouds and falls down again as drops.\n\
        Human: {}\nAssistant:";
    let explained = EXPLANATIONS
        .iter()
        .filter(|(q, _)| !q.contains("rain"))
        .map(|(q, a)| Question { question: (*q).to_owned(), answer: a[a.len() - 30..].to_owned() });
    let animals = world
        .animals
        .iter()
        .take(5)
        .map(|a| Question { question: format!("What does the {} eat?", a.name), answer: format!("eats {}", a.diet) });
    let towns = world
        .towns
        .iter()
        .take(5)
        .map(|t| Question { question: format!("What is {} known for?", t.name), answer: t.product.to_owned() });
    Probes {
        recall: recall.collect(),
        few_shot: few_shot(world),
        assistant: assistant.to_owned(),
        explanations: explained.collect(),
        facts: animals.chain(towns).collect(),
    }
}

fn few_shot(world: &World) -> Vec<FewShot> {
    let r = &mut Random::new(4, 5);
    let mut probes = Vec::new();
    for language in &world.languages {
        let open: Vec<_> = language.words.iter().filter(|(e, _)| !world.held_out.contains(e)).collect();
        for (at, (english, word)) in open.iter().enumerate().step_by(4) {
            let others: Vec<usize> = r.sample(open.len(), open.len()).into_iter().filter(|i| *i != at).collect();
            for examples in EXAMPLES {
                let lines: String =
                    others.iter().take(examples).map(|i| format!("{}: {}\n", open[*i].0, open[*i].1)).collect();
                probes.push(FewShot { examples, prompt: format!("{lines}{english}:"), answer: word.clone() });
            }
        }
    }
    probes
}
