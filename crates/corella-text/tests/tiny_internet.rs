//! The tiny internet: deterministic, in the stated mix, and true.

use std::collections::HashMap;

use corella_text::tiny_internet::{Corpus, CorpusOptions, PageKind, Relation, World, facts, probes, validation};

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
fn every_kind_has_its_share_of_the_text() {
    let world = World::new(1);
    let pages = Corpus::generate(&world, CorpusOptions { seed: 42, documents: 41_500 }).documents;
    let mut bytes: HashMap<PageKind, usize> = HashMap::new();
    for page in &pages {
        *bytes.entry(page.kind).or_default() += page.text.len();
    }
    let total: usize = bytes.values().sum();
    // Per cent of the bytes, within four points.
    let shares = [(PageKind::Story, 28.0), (PageKind::Transcript, 26.0), (PageKind::Top, 9.0), (PageKind::Words, 6.0)];
    for (kind, share) in shares {
        let found = 100.0 * bytes[&kind] as f64 / total as f64;
        assert!((found - share).abs() < 4.0, "{kind:?}: {found:.1} % instead of {share} %");
    }
}

#[test]
fn validation_is_another_text_even_for_the_same_seed() {
    let world = World::new(1);
    let seen: std::collections::HashSet<String> = corpus(&world).documents.into_iter().map(|p| p.text).collect();
    let fresh = validation(&world, 42, 1000).documents;
    let again = fresh.iter().filter(|p| seen.contains(&p.text)).count();
    // Short articles on well-known subjects can come out alike.
    assert!(again < 50, "{again} of 1000");
}

/// Reads the statements of the pages back with plain text search and compares each with the world.
#[test]
fn what_the_pages_state_is_true() {
    let world = World::new(1);
    let (rivers, diets): (HashMap<_, _>, HashMap<_, _>) = (
        world.towns.iter().map(|t| (t.name.as_str(), t.river.as_str())).collect(),
        world.animals.iter().map(|a| (a.name.as_str(), a.diet)).collect(),
    );
    let (mut checked_rivers, mut checked_diets) = (0, 0);
    for page in &corpus(&world).documents {
        for line in page.text.lines() {
            if let Some((_, rest)) = line.split_once("The river ")
                && let Some((river, rest)) = rest.split_once(" flows through ")
                && let Some(town) = rest.split('.').next().filter(|t| rivers.contains_key(t))
            {
                assert_eq!(rivers[town], river, "{line}");
                checked_rivers += 1;
            }
            if let Some((_, rest)) = line.split_once("The ")
                && let Some((animal, food)) = rest.split_once(" eats ")
                && let Some(diet) = diets.get(animal)
            {
                assert_eq!(food.trim_start_matches("mostly ").split('.').next(), Some(*diet), "{line}");
                checked_diets += 1;
            }
        }
    }
    assert!(checked_rivers > 100 && checked_diets > 100, "{checked_rivers} {checked_diets}");
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
