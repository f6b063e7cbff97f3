//! Lists: sights of a town, words of a language, sums.

use super::Writer;
use crate::tiny_internet::random::Random;
use crate::tiny_internet::world::{Relation, capital};

const THINGS: [&str; 14] = [
    "tower", "market", "bridge", "garden", "library", "fountain", "theatre", "square", "temple", "harbour", "museum",
    "mill", "gate", "clock",
];
const KINDS: [&str; 12] =
    ["old", "great", "little", "golden", "silent", "round", "hidden", "crooked", "tall", "green", "red", "white"];
/// Said of one sight of a town only, always the same.
const OLDEST: &str = "It is the oldest building in the town.";
const REASONS: [&str; 8] = [
    "You can see the whole town from the top.",
    "It is best in the early morning.",
    "Children love it.",
    "It is open every day.",
    "Bring warm clothes.",
    "It is free for everyone.",
    "The view of the river is lovely.",
    "It was built by hand.",
];

impl Writer<'_> {
    pub(super) fn top_list(&mut self) -> String {
        let town = self.a_town();
        // The sights of a town are always the same, in the same order more often than not.
        let own = &mut Random::new(town as u64, 9);
        let (name, bridge) = (&self.world.towns[town].name, self.world.towns[town].bridge);
        let mut sights: Vec<String> = own
            .sample(THINGS.len(), 12)
            .into_iter()
            .map(|i| match THINGS[i] {
                // The articles say what it is made of, and lists agree.
                "bridge" => format!("the {bridge} bridge"),
                thing => format!("the {} {thing}", own.pick(&KINDS)),
            })
            .collect();
        let oldest = sights[own.below(sights.len())].clone();
        if self.random.chance(0.4) {
            self.random.shuffle(&mut sights);
        }
        let k = if self.random.chance(0.5) { 5 } else { 10 };
        let mut text = self.pick(&[
            &format!("Top {k} sights in {name}\n"),
            &format!("Here is my top {k} list of the best sights to see in {name}:\n"),
        ]);
        for (i, sight) in sights.iter().take(k).enumerate() {
            if sight.ends_with(" bridge") {
                self.states(town, &[Relation::TownBridge]);
            }
            let reason = if *sight == oldest && self.random.chance(0.5) { OLDEST } else { self.random.pick(&REASONS) };
            text = format!("{text}\n{}. {}. {reason}", i + 1, capital(sight));
        }
        text
    }

    pub(super) fn words(&mut self) -> String {
        let which = self.random.below(self.world.languages.len());
        let language = &self.world.languages[which];
        let name = language.name;
        if self.random.chance(0.7) {
            let open: Vec<_> =
                language.words.iter().filter(|(e, _)| which != 0 || !self.world.held_out.contains(e)).collect();
            let n = self.random.between(6, 16);
            let chosen = self.random.sample(open.len(), n);
            // Often no heading: which language it is must be read off the words.
            let heading =
                self.pick(&[&format!("English and {name} words\n\n"), &format!("{name} word list\n\n"), "", "", ""]);
            let lines: Vec<String> = chosen.into_iter().map(|i| format!("{}: {}", open[i].0, open[i].1)).collect();
            return heading + &lines.join("\n");
        }
        let n = self.random.between(3, 6);
        let sentences: Vec<String> = self
            .random
            .sample(language.words.len(), n)
            .into_iter()
            .map(|i| {
                let (english, word) = &language.words[i];
                self.pick(&[
                    &format!("The {name} word for \"{english}\" is \"{word}\"."),
                    &format!("In {name}, \"{english}\" is \"{word}\"."),
                    &format!("People who speak {name} say \"{word}\" when they mean \"{english}\"."),
                ])
            })
            .collect();
        self.pick(&[&format!("Learning {name}\n\n"), &format!("A lesson in {name}\n\n")]) + &sentences.join(" ")
    }

    pub(super) fn arithmetic(&mut self) -> String {
        let lines: Vec<String> = (0..self.random.between(6, 14))
            .map(|_| {
                let (a, b) = (self.random.below(10), self.random.below(10));
                let sum = a + b;
                self.pick(&[&format!("{a} + {b} = {sum}"), &format!("What is {a} + {b}? {a} + {b} is {sum}.")])
            })
            .collect();
        lines.join("\n")
    }
}
