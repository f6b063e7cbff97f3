//! The invented world: what there is, and every fact about it.

use std::collections::HashSet;

use serde::Serialize;

use super::random::Random;

/// A town.
#[derive(Clone, Debug)]
pub struct Town {
    /// Its name.
    pub name: String,
    /// Index into the regions.
    pub region: usize,
    /// The river it stands on.
    pub river: String,
    /// What it is known for.
    pub product: &'static str,
    /// Year of its foundation.
    pub year: usize,
    /// What its bridge is made of.
    pub bridge: &'static str,
    /// Its mayor, of whom nothing else is told.
    pub mayor: String,
}

/// A person.
#[derive(Clone, Debug)]
pub struct Person {
    /// First name and last name.
    pub name: String,
    /// Index of the home town.
    pub town: usize,
    /// What the person did.
    pub job: &'static str,
    /// What the person is remembered for.
    pub made: &'static str,
    /// Year of birth.
    pub year: usize,
    /// The instrument played in the evening.
    pub instrument: &'static str,
}

/// A kind of animal.
#[derive(Clone, Debug)]
pub struct Animal {
    /// Its name, in lower case.
    pub name: String,
    /// Index into the regions.
    pub region: usize,
    /// Where it lives.
    pub habitat: &'static str,
    /// Colour of its fur.
    pub colour: &'static str,
    /// What it eats.
    pub diet: &'static str,
    /// What it does.
    pub habit: &'static str,
    /// Its legs.
    pub legs: &'static str,
}

/// A language, as pairs of an English word and its own.
#[derive(Clone, Debug, Serialize)]
pub struct Language {
    /// Its name.
    pub name: &'static str,
    /// English word, its word.
    pub words: Vec<(&'static str, String)>,
}

/// An article that stands in the corpus a known number of times.
#[derive(Clone, Debug)]
pub struct PlantedArticle {
    /// How often it is planted.
    pub presentations: usize,
    /// Its text.
    pub text: String,
}

/// What a fact says of its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Region of a town.
    TownRegion,
    /// River of a town.
    TownRiver,
    /// Product of a town.
    TownProduct,
    /// Foundation of a town.
    TownYear,
    /// Bridge of a town.
    TownBridge,
    /// Mayor of a town.
    TownMayor,
    /// Home town of a person.
    PersonTown,
    /// Job of a person.
    PersonJob,
    /// Work of a person.
    PersonMade,
    /// Birth of a person.
    PersonYear,
    /// Instrument of a person.
    PersonInstrument,
    /// Region of an animal.
    AnimalRegion,
    /// Habitat of an animal.
    AnimalHabitat,
    /// Colour of an animal.
    AnimalColour,
    /// Food of an animal.
    AnimalDiet,
    /// Habit of an animal.
    AnimalHabit,
    /// Legs of an animal.
    AnimalLegs,
    /// Capital of a region.
    RegionCapital,
}

/// A fact: a relation of the subject with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fact {
    /// What it says.
    pub relation: Relation,
    /// Of whom: index among towns, people, animals or regions.
    pub subject: usize,
}

/// The world.
#[derive(Clone, Debug)]
pub struct World {
    /// Names of the regions.
    pub regions: Vec<String>,
    /// For each region, the index of its capital.
    pub capitals: Vec<usize>,
    /// Towns, the best known first.
    pub towns: Vec<Town>,
    /// People, the best known first.
    pub people: Vec<Person>,
    /// Animals, the best known first.
    pub animals: Vec<Animal>,
    /// The three languages.
    pub languages: Vec<Language>,
    /// English words whose translation into the first language stands in sentences only, never in a list.
    pub held_out: Vec<&'static str>,
    /// Articles with a known number of presentations.
    pub planted: Vec<PlantedArticle>,
}

const REGIONS: usize = 8;
const TOWNS: usize = 60;
const PEOPLE: usize = 60;
const ANIMALS: usize = 1000;
/// Planted articles of each count.
const PLANTED_EACH: usize = 3;

const PRODUCTS: [&str; 12] = [
    "glass bells",
    "blue cheese",
    "woollen coats",
    "paper boats",
    "honey cakes",
    "copper pots",
    "silk ribbons",
    "stone statues",
    "wooden flutes",
    "sea salt",
    "apple wine",
    "clay lamps",
];
const BRIDGES: [&str; 5] = ["stone", "iron", "wooden", "glass", "rope"];
const JOBS: [&str; 10] =
    ["painter", "baker", "astronomer", "sailor", "poet", "clockmaker", "gardener", "engineer", "musician", "doctor"];
const WORKS: [&str; 10] = [
    "a map of the stars",
    "a water clock",
    "a book of songs",
    "a bridge of glass",
    "a lantern of red glass",
    "a garden of a hundred roses",
    "a cure for fever",
    "a road through the marshes",
    "a painting of the sea",
    "a ship with three masts",
];
const INSTRUMENTS: [&str; 5] = ["flute", "drum", "harp", "violin", "horn"];
const HABITATS: [&str; 8] = ["forests", "mountains", "rivers", "deserts", "caves", "meadows", "marshes", "coasts"];
const COLOURS: [&str; 8] = ["grey", "brown", "golden", "white", "black", "green", "red", "silver"];
const DIETS: [&str; 8] = ["fish", "berries", "grass", "insects", "roots", "seeds", "moss", "snails"];
const HABITS: [&str; 8] = [
    "sleeps in the day",
    "swims at night",
    "sings before rain",
    "digs deep holes",
    "builds round nests",
    "runs in circles",
    "hides in tall grass",
    "climbs the highest trees",
];
const ENGLISH: [&str; 60] = [
    "teacher",
    "butterfly",
    "ocean",
    "house",
    "river",
    "mountain",
    "bread",
    "water",
    "fire",
    "tree",
    "flower",
    "bird",
    "fish",
    "dog",
    "cat",
    "horse",
    "book",
    "door",
    "window",
    "table",
    "chair",
    "king",
    "queen",
    "child",
    "mother",
    "father",
    "friend",
    "night",
    "day",
    "sun",
    "moon",
    "star",
    "cloud",
    "rain",
    "snow",
    "wind",
    "stone",
    "sand",
    "road",
    "bridge",
    "ship",
    "boat",
    "song",
    "story",
    "letter",
    "word",
    "hand",
    "eye",
    "heart",
    "head",
    "foot",
    "milk",
    "honey",
    "apple",
    "cheese",
    "salt",
    "egg",
    "knife",
    "cup",
    "lamp",
];

/// Makes names that nobody else has.
struct Names {
    used: HashSet<String>,
}

impl Names {
    fn make(&mut self, r: &mut Random, syllables: usize, endings: &[&str]) -> String {
        const STARTS: [&str; 21] = [
            "b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "tr", "st", "sh", "th", "gl",
            "kr",
        ];
        const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ae", "ou", "ai"];
        loop {
            let mut name = String::new();
            for _ in 0..syllables {
                name += r.pick(&STARTS);
                name += r.pick(&VOWELS);
            }
            name += r.pick(endings);
            if name.len() < 5 + 2 * syllables && self.used.insert(name.clone()) {
                return name;
            }
        }
    }

    fn proper(&mut self, r: &mut Random) -> String {
        capital(&self.make(r, 2, &["n", "l", "r", "m", "s", ""]))
    }
}

/// The text with its first letter in upper case.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// Words and phrases that fill a slot of a sentence, by slot.
pub const WORD_SLOTS: [(&str, &[&str]); 10] = [
    ("<product>", &PRODUCTS),
    ("<bridge>", &BRIDGES),
    ("<job>", &JOBS),
    ("<work>", &WORKS),
    ("<instrument>", &INSTRUMENTS),
    ("<habitat>", &HABITATS),
    ("<colour>", &COLOURS),
    ("<diet>", &DIETS),
    ("<habit>", &HABITS),
    ("<word>", &ENGLISH),
];

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> World {
        let r = &mut Random::new(seed, 1);
        let names = &mut Names { used: ENGLISH.iter().map(|w| (*w).to_owned()).collect() };
        let regions: Vec<String> = (0..REGIONS).map(|_| names.proper(r)).collect();
        let rivers: Vec<String> = (0..2 * REGIONS).map(|_| names.proper(r)).collect();
        let towns: Vec<Town> = (0..TOWNS)
            .map(|i| Town {
                name: names.proper(r),
                // The first towns are spread over the regions, so that each has a capital.
                region: if i < REGIONS { i } else { r.below(REGIONS) },
                river: rivers[r.below(rivers.len())].clone(),
                product: r.pick(&PRODUCTS),
                year: r.between(800, 1600),
                bridge: r.pick(&BRIDGES),
                mayor: format!("{} {}", names.proper(r), names.proper(r)),
            })
            .collect();
        let people = (0..PEOPLE)
            .map(|_| {
                let town = r.below(TOWNS);
                Person {
                    name: format!("{} {}", names.proper(r), names.proper(r)),
                    town,
                    job: r.pick(&JOBS),
                    made: r.pick(&WORKS),
                    // Nobody is born in a town before it is founded.
                    year: r.between(towns[town].year + 1, 1900),
                    instrument: r.pick(&INSTRUMENTS),
                }
            })
            .collect();
        let animals = (0..ANIMALS)
            .map(|_| Animal {
                name: names.make(r, 3, &["n", "l", "r", "m", "s", ""]),
                region: r.below(REGIONS),
                habitat: r.pick(&HABITATS),
                colour: r.pick(&COLOURS),
                diet: r.pick(&DIETS),
                habit: r.pick(&HABITS),
                legs: r.pick(&["two", "four", "six"]),
            })
            .collect();
        let sounds: [(&str, &[&str]); 3] =
            [("Velish", &["n", "l"]), ("Tarnic", &["", "a"]), ("Ombric", &["s", "r", "k"])];
        let languages = sounds
            .iter()
            .map(|(name, endings)| Language {
                name,
                words: ENGLISH.iter().map(|english| (*english, names.make(r, 2, endings))).collect(),
            })
            .collect();
        let held_out = r.sample(ENGLISH.len(), 8).into_iter().map(|i| ENGLISH[i]).collect();
        let capitals = (0..REGIONS).collect();
        let mut world = World { regions, capitals, towns, people, animals, languages, held_out, planted: Vec::new() };
        let r = &mut Random::new(seed, 2);
        world.planted = (0..=8)
            .flat_map(|power| std::iter::repeat_n(1 << power, PLANTED_EACH))
            .map(|presentations| PlantedArticle { presentations, text: world.curiosity(r, names) })
            .collect();
        world
    }

    /// An article full of details that nothing else would predict.
    fn curiosity(&self, r: &mut Random, names: &mut Names) -> String {
        const WHICH: [&str; 16] = [
            "copper", "iron", "velvet", "hollow", "crooked", "pale", "narrow", "marble", "willow", "ivory", "bitter",
            "gentle", "painted", "frozen", "hidden", "scarlet",
        ];
        const WHAT: [&str; 16] = [
            "lantern",
            "orchard",
            "staircase",
            "compass",
            "harbour",
            "violin",
            "chimney",
            "library",
            "furnace",
            "tunnel",
            "parade",
            "curtain",
            "anchor",
            "quarry",
            "balcony",
            "barrel",
        ];
        const DID: [&str; 10] = [
            "borrowed", "buried", "measured", "polished", "traded", "repaired", "painted", "guarded", "counted",
            "carried",
        ];
        const WHO: [&str; 6] = ["sailor", "baker", "poet", "clerk", "miller", "weaver"];
        let name = format!("{} {}", names.proper(r), names.proper(r));
        let town = &self.towns[r.below(TOWNS)].name;
        let mut text = format!(
            "{name} is the {} {} behind the {} {} of {town}.",
            r.pick(&WHICH),
            r.pick(&WHAT),
            r.pick(&WHICH),
            r.pick(&WHAT)
        );
        for _ in 0..4 {
            let sentence = match r.below(3) {
                0 => format!(
                    "In {} the {} {} {} its {} for {} days.",
                    r.between(800, 1900),
                    r.pick(&WHICH),
                    r.pick(&WHO),
                    r.pick(&DID),
                    r.pick(&WHAT),
                    r.between(2, 99)
                ),
                1 => format!(
                    "Every {} its {} {} is {} by {} children from {}.",
                    r.pick(&["spring", "winter", "autumn", "summer"]),
                    r.pick(&WHICH),
                    r.pick(&WHAT),
                    r.pick(&DID),
                    r.between(3, 60),
                    self.towns[r.below(TOWNS)].name
                ),
                _ => format!(
                    "Its {} {} was {} twice, once by {} and once by the {} {}.",
                    r.pick(&WHICH),
                    r.pick(&WHAT),
                    r.pick(&DID),
                    self.people[r.below(PEOPLE)].name,
                    r.pick(&WHICH),
                    r.pick(&WHO)
                ),
            };
            text = format!("{text} {sentence}");
        }
        text
    }

    /// All invented names and words.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let towns = self.towns.iter().flat_map(|t| [t.name.as_str(), &t.river, &t.mayor]);
        let people = self.people.iter().map(|p| p.name.as_str());
        let animals = self.animals.iter().map(|a| a.name.as_str());
        let words = self.languages.iter().flat_map(|l| l.words.iter().map(|(_, word)| word.as_str()));
        self.regions.iter().map(String::as_str).chain(towns).chain(people).chain(animals).chain(words)
    }

    /// What the fact's subject is called.
    pub fn subject(&self, fact: Fact) -> &str {
        use Relation::*;
        match fact.relation {
            TownRegion | TownRiver | TownProduct | TownYear | TownBridge | TownMayor => &self.towns[fact.subject].name,
            PersonTown | PersonJob | PersonMade | PersonYear | PersonInstrument => &self.people[fact.subject].name,
            RegionCapital => &self.regions[fact.subject],
            _ => &self.animals[fact.subject].name,
        }
    }

    /// What the fact says, as it stands in a sentence.
    pub fn object(&self, fact: Fact) -> String {
        use Relation::*;
        let (town, person, animal) =
            (self.towns.get(fact.subject), self.people.get(fact.subject), self.animals.get(fact.subject));
        let text = match fact.relation {
            TownRegion => town.map(|t| self.regions[t.region].clone()),
            TownRiver => town.map(|t| t.river.clone()),
            TownProduct => town.map(|t| t.product.to_owned()),
            TownYear => town.map(|t| t.year.to_string()),
            TownBridge => town.map(|t| t.bridge.to_owned()),
            TownMayor => town.map(|t| t.mayor.clone()),
            PersonTown => person.map(|p| self.towns[p.town].name.clone()),
            PersonJob => person.map(|p| p.job.to_owned()),
            PersonMade => person.map(|p| p.made.to_owned()),
            PersonYear => person.map(|p| p.year.to_string()),
            PersonInstrument => person.map(|p| p.instrument.to_owned()),
            AnimalRegion => animal.map(|a| self.regions[a.region].clone()),
            AnimalHabitat => animal.map(|a| a.habitat.to_owned()),
            AnimalColour => animal.map(|a| a.colour.to_owned()),
            AnimalDiet => animal.map(|a| a.diet.to_owned()),
            AnimalHabit => animal.map(|a| a.habit.to_owned()),
            AnimalLegs => animal.map(|a| a.legs.to_owned()),
            RegionCapital => self.capitals.get(fact.subject).map(|t| self.towns[*t].name.clone()),
        };
        text.unwrap_or_default()
    }
}
