//! The tiny internet: deterministic, in the stated mix, and true.

use std::collections::HashMap;

use corella_text::tiny_internet::{
    Corpus, CorpusOptions, Grammar, PageKind, Relation, World, facts, probes, validation,
};
use corella_text::tokenizer::{Tokenizer, TrainOptions};
use regex::Regex;

fn corpus(world: &World) -> Corpus {
    Corpus::generate(world, CorpusOptions { seed: 42, documents: 6000 })
}

#[test]
fn the_same_seed_gives_the_same_pages_and_another_one_others() {
    let world = World::new(1);
    assert_eq!(corpus(&world).documents, corpus(&World::new(1)).documents);
    let other = Corpus::generate(&world, CorpusOptions { seed: 43, documents: 6000 });
    assert_ne!(corpus(&world).documents, other.documents);
}

#[test]
fn planted_articles_stand_exactly_as_often_as_they_say_and_never_in_validation() {
    let world = World::new(1);
    let list = facts(&world, &corpus(&world));
    let counts: Vec<usize> = list.planted.iter().map(|p| p.presentations).collect();
    let expected: Vec<usize> = (0..9).flat_map(|power| [1 << power; 3]).collect();
    assert_eq!(counts, expected);
    assert!(validation(&world, 9, 2000).documents.iter().all(|p| p.kind != PageKind::Planted));
}

#[test]
fn every_kind_has_its_share_of_the_tokens() {
    let world = World::new(1);
    let pages = Corpus::generate(&world, CorpusOptions { seed: 42, documents: 38_900 }).documents;
    let text = pages.iter().map(|p| p.text.as_str());
    let tokenizer = Tokenizer::train(text, 2048, TrainOptions::default()).expect("the vocabulary is trained");
    let mut tokens: HashMap<PageKind, usize> = HashMap::new();
    for page in &pages {
        *tokens.entry(page.kind).or_default() += tokenizer.encode(&page.text).len() + 1;
    }
    let total: usize = tokens.values().sum();
    assert!((3_900_000..4_000_000).contains(&total), "{total} tokens");
    use PageKind::*;
    // Per cent of the tokens, within one point.
    let shares = [
        (Story, 28.0),
        (Transcript, 23.0),
        (Top, 9.0),
        (Questions, 8.0),
        (Words, 8.0),
        (Town, 7.0),
        (Arithmetic, 6.0),
        (Animal, 5.0),
        (Person, 4.0),
        (Planted, 3.0),
    ];
    for (kind, share) in shares {
        let found = 100.0 * tokens[&kind] as f64 / total as f64;
        assert!((found - share).abs() < 1.0, "{kind:?}: {found:.1} % instead of {share} %");
    }
}

#[test]
fn the_pages_are_the_same_on_every_machine() {
    let pages = corpus(&World::new(1)).documents;
    let text: Vec<&str> = pages.iter().map(|p| p.text.as_str()).collect();
    assert_eq!(crc32fast::hash(text.join("\0").as_bytes()), 3967780136);
}

#[test]
fn validation_is_another_text_even_for_the_same_seed() {
    let world = World::new(1);
    let seen: std::collections::HashSet<String> = corpus(&world).documents.into_iter().map(|p| p.text).collect();
    let fresh = validation(&world, 42, 1000).documents;
    let again = fresh.iter().filter(|p| seen.contains(&p.text)).count();
    // Short articles on well-known subjects can come out alike.
    assert!(again < 15, "{again} of 1000");
}

/// Reads the statements of the pages back with patterns of this test's own and compares each with the world.
#[test]
fn what_the_pages_state_is_true() {
    use Relation::*;
    let world = World::new(1);
    let list = facts(&world, &corpus(&world));
    let known: HashMap<(Relation, &str), &str> =
        list.facts.iter().map(|row| ((row.relation, row.subject.as_str()), row.object.as_str())).collect();
    let town = r"(?<s>\p{Lu}\w+)";
    let person = r"(?<s>\p{Lu}\w+ \p{Lu}\w+)";
    let heading = r"^(?<s>[\w ]+)\n(?s:.*)";
    let patterns = [
        (RegionCapital, format!(r"The capital of {town} is (?<o>\w+)\.")),
        (TownRegion, format!(r"{town} is a town in (?:the region of )?(?<o>\w+)[.,]")),
        (TownRiver, format!(r"The river (?<o>\w+) flows through {town}\.")),
        (TownRiver, format!(r"lived in {town}, where the river (?<o>\w+) flows")),
        (TownProduct, format!(r"{town} is known for its (?<o>[\w ]+)\.")),
        (TownProduct, format!(r"The people of {town} make (?<o>[\w ]+)\.")),
        (TownYear, format!(r"{heading} was founded in (?:the year )?(?<o>\d+)\.")),
        (TownBridge, format!(r"The (?<o>\w+) bridge of {town} is very old")),
        (TownBridge, format!(r"(?m:^)Top \d+ sights in {town}\n(?s:.*) The (?<o>\w+) bridge\.")),
        (TownBridge, format!(r"{heading}An? (?<o>\w+) bridge crosses")),
        (TownMayor, format!(r"The mayor of {town} is (?<o>\w+ \w+)\.")),
        (PersonTown, format!(r"{person} was a famous \w+ who was born in (?<o>\w+)\.")),
        (PersonJob, format!(r"{person} was an? (?<o>\w+) from")),
        (PersonMade, format!(r"{person} made (?<o>[\w ]+)\.")),
        (PersonYear, format!(r"{person} was born in (?<o>\d+)\.")),
        (PersonInstrument, format!(r"{heading}(?:played|loved to play) the (?<o>\w+)\.")),
        (AnimalRegion, r"The (?<s>\w+) lives in the \w+ of (?<o>\w+)\.".to_owned()),
        (AnimalHabitat, r"The (?<s>\w+) lives in the (?<o>\w+) of ".to_owned()),
        (AnimalColour, r"The (?<s>\w+) has (?<o>\w+) fur".to_owned()),
        (AnimalDiet, r"The (?<s>\w+) eats (?:mostly )?(?<o>\w+)\.".to_owned()),
        (
            AnimalHabit,
            r"The (?<s>\w+) (?<o>(?:sleeps|swims|sings|digs|builds|runs|hides|climbs) (?:in|at|before|deep|round|the) [\w ]+)\.".to_owned(),
        ),
        (AnimalLegs, format!(r"{heading}(?<o>two|four|six) legs")),
    ];
    let pages = corpus(&world).documents;
    for (relation, pattern) in patterns {
        let pattern = Regex::new(&pattern).expect("a pattern");
        let mut checked = 0;
        for page in pages.iter().filter(|p| p.kind != PageKind::Planted) {
            for found in pattern.captures_iter(&page.text) {
                let subject = found["s"].to_owned();
                let subject = if relation == AnimalLegs { subject.to_lowercase() } else { subject };
                let Some(object) = known.get(&(relation, subject.as_str())) else {
                    panic!("{relation:?} of {subject} is not in the list: {}", page.text);
                };
                assert_eq!(&found["o"], *object, "{relation:?} of {subject}: {}", page.text);
                checked += 1;
            }
        }
        assert!(checked >= 20, "{pattern} was found {checked} times only");
    }
}

/// Nothing in the world contradicts itself.
#[test]
fn nobody_is_born_before_the_town_and_one_building_is_the_oldest() {
    let world = World::new(1);
    for person in &world.people {
        assert!(person.year > world.towns[person.town].year, "{person:?}");
    }
    let mut oldest: HashMap<String, String> = HashMap::new();
    for page in corpus(&world).documents.iter().filter(|p| p.kind == PageKind::Top) {
        let town = page.text.lines().next().and_then(|l| l.split(" in ").last()).unwrap_or_default();
        for line in page.text.lines().filter(|l| l.contains("oldest building")) {
            let sight = line.split(". ").nth(1).unwrap_or_default().to_owned();
            let known = oldest.entry(town.trim_end_matches(':').to_owned()).or_insert_with(|| sight.clone());
            assert_eq!(*known, sight, "{town}");
        }
    }
    assert!(oldest.len() > 20, "{}", oldest.len());
}

#[test]
fn mentions_are_counted_page_by_page() {
    let world = World::new(1);
    let corpus = corpus(&world);
    let list = facts(&world, &corpus);
    let best = list.facts.iter().find(|f| f.relation == Relation::TownMayor).expect("a mayor is mentioned");
    let states = |text: &str| {
        text.contains(&format!("The mayor of {} is {}.", best.subject, best.object))
            || (text.starts_with(&format!("{}\n", best.subject))
                && text.contains(&format!("Its mayor is {}.", best.object)))
    };
    let counted = corpus.documents.iter().filter(|p| states(&p.text)).count();
    assert_eq!(best.mentions, counted, "{} {}", best.subject, best.object);
}

#[test]
fn held_out_words_stand_in_no_list_and_are_not_asked_for() {
    let world = World::new(1);
    let corpus = corpus(&world);
    let language = &world.languages[0];
    for (english, word) in language.words.iter().filter(|(e, _)| world.held_out.contains(e)) {
        let line = format!("{english}: {word}");
        assert!(corpus.documents.iter().all(|p| !p.text.lines().any(|l| l == line)), "{line}");
    }
    for probe in probes(&world, &facts(&world, &corpus)).few_shot {
        let lines: Vec<&str> = probe.prompt.lines().collect();
        assert_eq!(lines.len(), probe.examples + 1);
        assert!(!probe.prompt.contains(&probe.answer), "the answer is not among the examples");
    }
}

#[test]
fn the_grammar_accepts_fresh_pages_and_refuses_shuffled_ones() {
    let world = World::new(1);
    let grammar = Grammar::new(&world);
    let (mut right, mut of, mut shuffled_right, mut shuffled_of) = (0, 0, 0, 0);
    for page in validation(&world, 5, 500).documents {
        let (r, n) = grammar.judge(&page.text);
        (right, of) = (right + r, of + n);
        let backwards: Vec<&str> = page.text.lines().flat_map(|l| l.split(' ').rev()).collect();
        let (r, n) = grammar.judge(&(backwards.join(" ") + "\n"));
        (shuffled_right, shuffled_of) = (shuffled_right + r, shuffled_of + n);
    }
    assert!(right * 100 >= of * 99, "{right} of {of}");
    assert!(shuffled_right * 20 < shuffled_of, "{shuffled_right} of {shuffled_of}");
    assert_eq!(grammar.judge("Once upon a time there was a boy called Zorbo. Bread mat of is."), (1, 2));
    assert_eq!(grammar.judge("Once upon a time there was a"), (0, 0));
}
