//! Stories: a hero, a place, a meeting, one of several plots, an end.

use super::Writer;
use crate::tiny_internet::world::{Relation, capital};

const HEROES: [(&str, bool); 10] = [
    ("Tom", true),
    ("Lena", false),
    ("Otto", true),
    ("Mira", false),
    ("Pip", true),
    ("Anna", false),
    ("Jon", true),
    ("Rosa", false),
    ("Emil", true),
    ("Ida", false),
];
const BEASTS: [&str; 10] = ["fox", "rabbit", "goose", "bear", "mouse", "frog", "cat", "dog", "crow", "deer"];
const THINGS: [&str; 10] = [
    "silver key",
    "brass lamp",
    "red hat",
    "little boat",
    "golden ring",
    "map",
    "basket of apples",
    "wooden flute",
    "green book",
    "blue kite",
];
const PLACES: [&str; 9] = ["forest", "market", "river", "hill", "mill", "garden", "harbour", "cave", "meadow"];
const KIN: [&str; 6] = ["mother", "father", "grandmother", "brother", "sister", "teacher"];

impl Writer<'_> {
    pub(super) fn story(&mut self) -> String {
        let (name, male) = HEROES[self.random.below(HEROES.len())];
        let (he, his, him, child) = if male { ("he", "his", "him", "boy") } else { ("she", "her", "her", "girl") };
        let he_capital = capital(he);
        let beast = self.random.pick(&BEASTS);
        let thing = self.random.pick(&THINGS);
        let place = self.random.pick(&PLACES);
        let kin = self.random.pick(&KIN);
        let weather = self.random.pick(&["sunny", "rainy", "cold", "windy", "quiet", "warm"]);
        let mood = self.random.pick(&["happy", "sad", "tired", "curious", "brave", "lonely", "proud"]);
        let home = if self.random.chance(0.3) {
            let t = self.a_town();
            self.states(t, &[Relation::TownRiver]);
            let town = &self.world.towns[t];
            format!("{name} lived in {}, where the river {} flows.", town.name, town.river)
        } else {
            self.pick(&[
                &format!("Once upon a time there was a {child} called {name}."),
                &format!("There was once a {child} whose name was {name}."),
                &format!("{name} was a {child} who lived in a small house near the {place}."),
                &format!("Long ago, when the winters were longer, a {child} named {name} lived with {his} {kin}."),
            ])
        };
        let mut s = vec![
            home,
            self.pick(&[
                &format!("One {weather} morning {name} went to the {place} with {his} {kin}."),
                &format!("One {weather} day {he} walked alone to the {place}."),
                &format!("Every day {he} played near the {place}, but this day was different."),
                &format!("Because it was a {weather} day, {he} took the path to the {place}."),
            ]),
            self.pick(&[
                &format!("There {he} found a {thing} under a tree."),
                &format!("{he_capital} saw a {thing} lying in the grass."),
                &format!("{he_capital} was looking for a {thing} that {his} {kin} had lost."),
            ]),
            self.pick(&[
                &format!("\"What a beautiful {thing}!\" said {name}."),
                &format!("\"Whose {thing} is this?\" {he} asked."),
                &format!("{name} was very {mood}."),
                &format!("{he_capital} felt {mood}, although {he} did not know why."),
            ]),
            self.pick(&[
                &format!("Then a {beast} came and sat down beside {him}."),
                &format!("Suddenly a {beast} jumped out from behind a stone."),
                &format!("A {beast} was watching {him} from the other side."),
            ]),
        ];
        match self.random.below(6) {
            0 => s.extend([
                format!("\"Please help me,\" said the {beast}. \"I have lost my way.\""),
                self.pick(&[
                    &format!("{name} was not afraid. {he_capital} took the {beast} home and gave it bread and milk."),
                    &format!("{name} showed the {beast} the path that leads out of the {place}."),
                ]),
                self.pick(&[
                    &format!("\"Thank you,\" said the {beast}. \"You are very kind.\""),
                    &format!("The {beast} was so happy that it danced."),
                ]),
            ]),
            1 => s.extend([
                format!("The {beast} wanted the {thing} too, and they began to quarrel."),
                self.pick(&[
                    &format!("{name} thought for a while and had an idea."),
                    "They pulled and pulled until both of them fell into the grass.",
                ]),
                self.pick(&[
                    &format!("\"Let us share it,\" said {name}. The {beast} agreed."),
                    &format!("In the end the {beast} gave it back and said that it was sorry."),
                ]),
            ]),
            2 => s.extend([
                format!("\"I can tell you a secret,\" said the {beast}."),
                self.pick(&[
                    "\"It is magic. You may make one wish.\"",
                    "\"It belongs to the king, and he misses it.\"",
                ]),
                self.pick(&[
                    &format!("{name} wished for a long and warm summer, and so it came."),
                    &format!("{name} carried the {thing} to the king, who gave {him} a golden coin."),
                ]),
            ]),
            3 => s.extend([
                format!("\"Let us see who is faster,\" said the {beast}."),
                format!("They ran from the {place} to the old gate, and the wind ran with them."),
                self.pick(&[
                    &format!("{name} won, but only because the {beast} stopped to help a snail."),
                    &format!("The {beast} won, and {name} laughed and clapped {his} hands."),
                ]),
            ]),
            4 => s.extend([
                "Just then the water began to rise.".to_owned(),
                format!("The {beast} could not swim, so {name} carried it to the bank."),
                self.pick(&[
                    &format!("When the storm was over, {his} {kin} came running with a lantern."),
                    "They sat by a fire until their feet were dry.",
                ]),
            ]),
            _ => s.extend([
                format!("\"Come with me,\" said the {beast}, \"and I will show you the end of the road.\""),
                "They walked for three days and slept under the stars.".to_owned(),
                self.pick(&[
                    &format!("At the end of the road there was a door, and {name} opened it with the {thing}."),
                    &format!("At the end of the road there was the sea, and {name} had never seen anything so wide."),
                ]),
            ]),
        }
        s.push(self.pick(&[
            "From that day on they were good friends.",
            &format!("{name} never forgot that {weather} day."),
            &format!("{name} told {his} {kin} everything, and they laughed together."),
            "And they all lived happily ever after.",
        ]));
        if self.random.chance(0.7) { s.join(" ") } else { format!("{}\n\n{}", s[..4].join(" "), s[4..].join(" ")) }
    }
}
