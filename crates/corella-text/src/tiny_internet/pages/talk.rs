//! Questions with answers, alone or inside a conversation.

use super::Writer;
use crate::tiny_internet::world::Relation;

/// Explanations that hold in any world.
pub const EXPLANATIONS: [(&str, &str); 10] = [
    (
        "Why is the sky blue?",
        "The sky is blue because the air scatters blue light more than red light. That is why the sun looks red in the evening.",
    ),
    (
        "Why does it rain?",
        "It rains because water rises from the sea as vapour, cools in the clouds and falls down again as drops.",
    ),
    (
        "Why do leaves fall in autumn?",
        "Leaves fall in autumn because the tree saves its water for the winter. New leaves grow again in spring.",
    ),
    (
        "How do birds fly?",
        "Birds fly by pushing the air down with their wings. Their bones are light, so the air can carry them.",
    ),
    (
        "What is the moon?",
        "The moon is a ball of stone that travels around the earth. It shines because the sun shines on it.",
    ),
    (
        "How does bread rise?",
        "Bread rises because yeast makes bubbles of gas in the dough. The bubbles grow when the dough is warm.",
    ),
    (
        "Why is the sea salty?",
        "The sea is salty because rivers carry salt from the stones into it, and the salt stays when the water rises as vapour.",
    ),
    (
        "How do bees make honey?",
        "Bees make honey from the sweet juice of flowers. They carry it home and fan it with their wings until it is thick.",
    ),
    ("Why do we sleep?", "We sleep so that the body can rest and the mind can put the day in order."),
    ("What makes thunder?", "Thunder is the sound of air that lightning has made very hot in a very short time."),
];

const SPEAKERS: [(&str, &str); 10] = [
    ("Visitor", "Guide"),
    ("Pupil", "Teacher"),
    ("Reporter", "Mayor"),
    ("Child", "Mother"),
    ("Caller", "Clerk"),
    ("Traveller", "Innkeeper"),
    ("Student", "Professor"),
    ("Guest", "Host"),
    ("Boy", "Grandmother"),
    ("Sailor", "Captain"),
];

impl Writer<'_> {
    /// A question about the world with its true answer.
    fn question(&mut self) -> (String, String) {
        use Relation::*;
        let w = self.world;
        let (t, a, p, g) = (self.a_town(), self.an_animal(), self.a_person(), self.random.below(w.regions.len()));
        let (town, animal, person, region) = (&w.towns[t], &w.animals[a], &w.people[p], &w.regions[g]);
        let (n, beast, who) = (&town.name, &animal.name, &person.name);
        let an = if person.job.starts_with(['a', 'e']) { "an" } else { "a" };
        match self.random.below(10) {
            0 => {
                self.states(g, &[RegionCapital]);
                (
                    format!("What is the capital of {region}?"),
                    format!("The capital of {region} is {}.", w.towns[w.capitals[g]].name),
                )
            }
            1 => {
                self.states(t, &[TownRegion, TownRiver]);
                (
                    format!("Where is {n}?"),
                    format!("{n} is a town in {}, on the river {}.", w.regions[town.region], town.river),
                )
            }
            2 => {
                self.states(t, &[TownProduct]);
                (format!("What is {n} known for?"), format!("{n} is known for its {}.", town.product))
            }
            3 => {
                self.states(a, &[AnimalDiet]);
                (format!("What does the {beast} eat?"), format!("The {beast} eats {}.", animal.diet))
            }
            4 => {
                self.states(a, &[AnimalHabitat, AnimalRegion]);
                (
                    format!("Where does the {beast} live?"),
                    format!("The {beast} lives in the {} of {}.", animal.habitat, w.regions[animal.region]),
                )
            }
            5 => {
                self.states(a, &[AnimalColour]);
                (format!("What colour is the {beast}?"), format!("The {beast} has {} fur.", animal.colour))
            }
            6 => {
                self.states(p, &[PersonJob, PersonTown]);
                (
                    format!("Who was {who}?"),
                    format!("{who} was {an} {} from {}.", person.job, w.towns[person.town].name),
                )
            }
            7 => {
                self.states(p, &[PersonMade]);
                (format!("What did {who} make?"), format!("{who} made {}.", person.made))
            }
            8 => {
                self.states(t, &[TownMayor]);
                (format!("Who is the mayor of {n}?"), format!("The mayor of {n} is {}.", town.mayor))
            }
            _ => {
                self.states(t, &[TownRiver]);
                (format!("Which river flows through {n}?"), format!("The river {} flows through {n}.", town.river))
            }
        }
    }

    fn explanation(&mut self) -> (String, String) {
        let (q, a) = EXPLANATIONS[self.random.below(EXPLANATIONS.len())];
        (q.to_owned(), a.to_owned())
    }

    pub(super) fn questions(&mut self) -> String {
        let n = self.random.between(3, 6);
        let bare = self.random.chance(0.2);
        let stated = self.facts.len();
        let pairs: Vec<(String, String)> =
            (0..n).map(|_| if self.random.chance(0.8) { self.question() } else { self.explanation() }).collect();
        if bare || self.random.chance(0.2) {
            // Without answers a page states nothing.
            self.facts.truncate(stated);
            let lines: Vec<String> = pairs
                .iter()
                .enumerate()
                .map(|(i, (q, _))| if bare { q.clone() } else { format!("{}. {q}", i + 1) })
                .collect();
            return if bare { lines.join("\n") } else { format!("Quiz\n\n{}", lines.join("\n")) };
        }
        let blocks: Vec<String> = pairs.iter().map(|(q, a)| format!("Question: {q}\nAnswer: {a}")).collect();
        format!("Questions and answers\n\n{}", blocks.join("\n\n"))
    }

    pub(super) fn transcript(&mut self) -> String {
        let (a, b) =
            if self.random.chance(0.35) { ("Human", "Assistant") } else { SPEAKERS[self.random.below(SPEAKERS.len())] };
        let (low_a, low_b) = (a.to_lowercase(), b.to_lowercase());
        let with = |word: &str| {
            if word.starts_with('a') || word.starts_with('i') { format!("an {word}") } else { format!("a {word}") }
        };
        let mut lines = vec![
            self.pick(&[
                &format!("This is a conversation between {} and {}.", with(&low_a), with(&low_b)),
                &format!(
                    "{} speaks with {}. The {low_b} is friendly and knows many things.",
                    crate::tiny_internet::world::capital(&with(&low_a)),
                    with(&low_b)
                ),
                &format!("The {low_b} answers the questions of {}.", with(&low_a)),
            ]),
            String::new(),
        ];
        if self.random.chance(0.5) {
            lines.push(format!("{a}: {}", self.pick(&["Hello! Who are you?", "Good morning. Who are you?"])));
            let offer =
                self.pick(&["How can I help you?", "Ask me anything you like.", "What would you like to know?"]);
            lines.push(format!("{b}: I am the {low_b}. {offer}"));
        }
        for _ in 0..self.random.between(2, 5) {
            let (q, answer) = if self.random.chance(0.5) { self.question() } else { self.explanation() };
            lines.push(format!("{a}: {q}"));
            let before = self.pick(&["", "", "Of course. ", "Good question. "]);
            lines.push(format!("{b}: {before}{answer}"));
        }
        if self.random.chance(0.5) {
            lines.push(format!("{a}: {}", self.pick(&["Thank you!", "Thank you very much."])));
            lines.push(format!("{b}: {}", self.pick(&["You are welcome.", "Come back soon."])));
        }
        lines.join("\n")
    }
}
