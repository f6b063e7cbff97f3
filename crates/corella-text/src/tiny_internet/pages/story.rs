//! Stories: a hero who is told of or tells, a place, a meeting, one of several plots, an end.

use super::Writer;
use crate::tiny_internet::world::{Relation, capital};

/// Words and phrases that fill a slot of a story's sentence, by slot; one that fills several has the last.
pub const SLOTS: [(&str, &[&str]); 5] = [
    ("<beast>", &BEASTS),
    ("<thing>", &THINGS),
    ("<place>", &PLACES),
    ("<kin>", &KIN),
    ("<name>", &["tom", "lena", "otto", "mira", "pip", "anna", "jon", "rosa", "emil", "ida"]),
];

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

const RIDDLES: [(&str, &str); 4] = [
    ("What has teeth but cannot bite?", "A comb"),
    ("What runs all day and never leaves its bed?", "A river"),
    ("What gets wetter the more it dries?", "A towel"),
    ("What has a neck but no head?", "A bottle"),
];

/// The words of a story that depend on who it is about and on who tells it.
struct Hero {
    name: &'static str,
    child: &'static str,
    /// Subject of a sentence: the name, or `I`.
    who: &'static str,
    he: &'static str,
    his: &'static str,
    him: &'static str,
    /// Hero and beast together: they, them and their, or we, us and our.
    they: &'static str,
    them: &'static str,
    their: &'static str,
}

impl Hero {
    fn new((name, male): (&'static str, bool), tells: bool) -> Self {
        let child = if male { "boy" } else { "girl" };
        let (he, his, him) = match (tells, male) {
            (true, _) => ("I", "my", "me"),
            (false, true) => ("he", "his", "him"),
            (false, false) => ("she", "her", "her"),
        };
        let (they, them, their) = if tells { ("we", "us", "our") } else { ("they", "them", "their") };
        Hero { name, child, who: if tells { "I" } else { name }, he, his, him, they, them, their }
    }

    fn tells(&self) -> bool {
        self.who == "I"
    }

    /// `said Tom`, or `I said`.
    fn said(&self) -> String {
        if self.tells() { "I said".to_owned() } else { format!("said {}", self.name) }
    }
}

/// What a story is about.
struct Scene {
    hero: Hero,
    beast: &'static str,
    thing: &'static str,
    place: &'static str,
    kin: &'static str,
    weather: &'static str,
    mood: &'static str,
}

impl Writer<'_> {
    pub(super) fn story(&mut self) -> String {
        let hero = HEROES[self.random.below(HEROES.len())];
        let scene = Scene {
            hero: Hero::new(hero, self.random.chance(0.2)),
            beast: self.random.pick(&BEASTS),
            thing: self.random.pick(&THINGS),
            place: self.random.pick(&PLACES),
            kin: self.random.pick(&KIN),
            weather: self.random.pick(&["sunny", "rainy", "cold", "windy", "quiet", "warm"]),
            mood: self.random.pick(&["happy", "sad", "tired", "curious", "brave", "lonely", "proud"]),
        };
        let mut s = vec![self.home(&scene)];
        s.extend(self.meeting(&scene));
        s.extend(self.plot(&scene));
        s.push(self.end(&scene));
        if self.random.chance(0.7) { s.join(" ") } else { format!("{}\n\n{}", s[..4].join(" "), s[4..].join(" ")) }
    }

    fn home(&mut self, scene: &Scene) -> String {
        let Scene { hero: Hero { name, child, who, his, .. }, place, kin, .. } = scene;
        if self.random.chance(0.3) {
            let t = self.a_town();
            self.states(t, &[Relation::TownRiver]);
            let town = &self.world.towns[t];
            return format!("{who} lived in {}, where the river {} flows.", town.name, town.river);
        }
        if scene.hero.tells() {
            return self.pick(&[
                &format!("My name is {name}, and this is what happened when I was a {child}."),
                &format!("When I was a {child}, my {kin} and I lived in a small house near the {place}."),
                &format!("I was only a {child} then, but I remember everything."),
            ]);
        }
        self.pick(&[
            &format!("Once upon a time there was a {child} called {name}."),
            &format!("There was once a {child} whose name was {name}."),
            &format!("{name} was a {child} who lived in a small house near the {place}."),
            &format!("Long ago, when the winters were longer, a {child} named {name} lived with {his} {kin}."),
        ])
    }

    /// The way to the place, the thing found there, what the hero feels, and the beast.
    fn meeting(&mut self, scene: &Scene) -> Vec<String> {
        let Scene { hero, beast, thing, place, kin, weather, mood } = scene;
        let Hero { who, he, his, him, .. } = hero;
        let (he_capital, said) = (capital(he), hero.said());
        vec![
            self.pick(&[
                &format!("One {weather} morning {who} went to the {place} with {his} {kin}."),
                &format!("One {weather} day {he} walked alone to the {place}."),
                &format!("Every day {he} played near the {place}, but this day was different."),
                &format!("Because it was a {weather} day, {he} took the path to the {place}."),
                &format!("\"Do not go to the {place},\" said {his} {kin}, but {he} went all the same."),
            ]),
            self.pick(&[
                &format!("There {he} found a {thing} under a tree."),
                &format!("{he_capital} saw a {thing} lying in the grass."),
                &format!("{he_capital} was looking for a {thing} that {his} {kin} had lost."),
                &format!("Something was shining between the stones, and it was a {thing}."),
            ]),
            self.pick(&[
                &format!("\"What a beautiful {thing}!\" {said}."),
                &format!("\"Whose {thing} is this?\" {he} asked."),
                &format!("{who} was very {mood}."),
                &format!("{he_capital} felt {mood}, although {he} did not know why."),
                &format!("{he_capital} looked at it for a long time and thought of {his} {kin}."),
            ]),
            self.pick(&[
                &format!("Then a {beast} came and sat down beside {him}."),
                &format!("Suddenly a {beast} jumped out from behind a stone."),
                &format!("A {beast} was watching {him} from the other side."),
                &format!("When {he} turned round, a {beast} stood there and looked at {him}."),
            ]),
        ]
    }

    fn plot(&mut self, scene: &Scene) -> Vec<String> {
        let Scene { hero, beast, thing, place, kin, .. } = scene;
        let Hero { who, he, his, him, they, them, their, .. } = hero;
        let (he_capital, they_capital, said) = (capital(he), capital(they), hero.said());
        match self.random.below(9) {
            0 => vec![
                format!("\"Please help me,\" said the {beast}. \"I have lost my way.\""),
                self.pick(&[
                    &format!("{who} was not afraid. {he_capital} took the {beast} home and gave it bread and milk."),
                    &format!("{who} showed the {beast} the path that leads out of the {place}."),
                ]),
                self.pick(&[
                    &format!("\"Thank you,\" said the {beast}. \"You are very kind.\""),
                    &format!("The {beast} was so happy that it danced."),
                ]),
            ],
            1 => vec![
                format!("The {beast} wanted the {thing} too, and {they} began to quarrel."),
                self.pick(&[
                    &format!("{who} thought for a while and had an idea."),
                    &format!("{they_capital} pulled and pulled until both of {them} fell into the grass."),
                ]),
                self.pick(&[
                    &format!("\"Let us share it,\" {said}. The {beast} agreed."),
                    &format!("In the end the {beast} gave it back and said that it was sorry."),
                ]),
            ],
            2 => vec![
                format!("\"I can tell you a secret,\" said the {beast}."),
                self.pick(&[
                    "\"It is magic. You may make one wish.\"",
                    "\"It belongs to the king, and he misses it.\"",
                ]),
                self.pick(&[
                    &format!("{who} wished for a long and warm summer, and so it came."),
                    &format!("{who} carried the {thing} to the king, who gave {him} a golden coin."),
                ]),
            ],
            3 => vec![
                format!("\"Let us see who is faster,\" said the {beast}."),
                format!("{they_capital} ran from the {place} to the old gate, and the wind ran with {them}."),
                self.pick(&[
                    &format!("{who} won, but only because the {beast} stopped to help a snail."),
                    &format!("The {beast} won, and {who} laughed and clapped {his} hands."),
                ]),
            ],
            4 => vec![
                "Just then the water began to rise.".to_owned(),
                format!("The {beast} could not swim, so {who} carried it to the bank."),
                self.pick(&[
                    &format!("When the storm was over, {his} {kin} came running with a lantern."),
                    &format!("{they_capital} sat by a fire until {their} feet were dry."),
                ]),
            ],
            5 => vec![
                format!("\"Come with me,\" said the {beast}, \"and I will show you the end of the road.\""),
                format!("{they_capital} walked for three days and slept under the stars."),
                self.pick(&[
                    &format!("At the end of the road there was a door, and {who} opened it with the {thing}."),
                    &format!("At the end of the road there was the sea, and {who} had never seen anything so wide."),
                ]),
            ],
            6 => {
                let (riddle, answer) = RIDDLES[self.random.below(RIDDLES.len())];
                vec![
                    format!("\"If you know the answer, the {thing} is yours,\" said the {beast}. \"{riddle}\""),
                    self.pick(&[
                        &format!("{who} thought about it until the sun went down."),
                        &format!("{who} closed {his} eyes and thought."),
                    ]),
                    self.pick(&[
                        &format!("\"{answer}!\" {said}, and the {beast} clapped its feet."),
                        &format!("\"{answer}!\" {said}. \"How did you know?\" asked the {beast}."),
                    ]),
                ]
            }
            7 => vec![
                format!("When {he} picked it up, the {thing} broke in two."),
                self.pick(&[
                    &format!("\"Do not cry,\" said the {beast}. \"I know somebody who can mend it.\""),
                    &format!("The {beast} said nothing, but it ran away and came back with an old woman."),
                ]),
                self.pick(&[
                    &format!("In the evening the {thing} was as good as new."),
                    &format!("It could not be mended, so {they} made a new one out of wood."),
                ]),
            ],
            _ => vec![
                format!("\"I have not eaten since yesterday,\" said the {beast}."),
                self.pick(&[
                    &format!("{who} gave the {thing} to a farmer, and the farmer gave {him} bread and cheese."),
                    &format!("{who} had only one apple, and {he} cut it into two halves."),
                ]),
                self.pick(&[
                    &format!("{they_capital} ate it together and watched the clouds."),
                    &format!("The {beast} ate everything and fell asleep beside {him}."),
                ]),
            ],
        }
    }

    fn end(&mut self, scene: &Scene) -> String {
        let Scene { hero: Hero { who, his, they, .. }, place, kin, weather, .. } = scene;
        self.pick(&[
            &format!("From that day on {they} were good friends."),
            &format!("{who} never forgot that {weather} day."),
            &format!("{who} told {his} {kin} everything, and they laughed together."),
            &format!("When {who} came home from the {place}, it was already dark."),
            if who == &"I" {
                "I still think of it when I cannot sleep."
            } else {
                "And they all lived happily ever after."
            },
        ])
    }
}
