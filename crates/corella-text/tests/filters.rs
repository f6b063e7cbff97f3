//! Each rule drops what its paper says, and a page of prose passes all of them.

use corella_text::data::filters::{FilterOptions, Rule, known_language};

/// Prose that every rule lets through: some sixty sentences without repetition.
fn prose() -> String {
    let subjects =
        ["The old miller", "A tired fisherman", "Her youngest daughter", "The village doctor", "That stranger"];
    let verbs = ["remembered", "described", "wanted to sell", "painted", "had been afraid of"];
    let objects =
        ["the river with its three bridges", "a letter that nobody had read", "some of the apples", "two horses"];
    let mut text = String::new();
    for (i, s) in subjects.iter().enumerate() {
        for (j, v) in verbs.iter().enumerate() {
            let o = objects[(i * 3 + j) % 4];
            text.push_str(&format!("{s} {v} {o} in year {}{j} of number {i}{j}{i}. ", i * 7 + 1));
            if j % 2 == 1 {
                text.push_str("\n\n");
            }
        }
    }
    text.trim().to_owned()
}

fn web() -> FilterOptions {
    FilterOptions {
        languages: vec!["eng".to_owned()],
        gopher: true,
        c4: true,
        fineweb: true,
        boilerplate: true,
        min_bytes: 100,
        ..FilterOptions::default()
    }
}

fn verdict(options: &FilterOptions, text: &str) -> Option<Rule> {
    options.judge(text).rejection.map(|r| r.rule)
}

#[test]
fn prose_passes_and_nothing_is_cut_from_it() {
    let text = prose();
    let judged = web().judge(&text);
    assert_eq!((judged.rejection, judged.lines_cut, &*judged.text), (None, 0, &text[..]));
    assert_eq!(verdict(&FilterOptions::default(), "x"), None, "without rules everything passes");
}

#[test]
fn every_rule_drops_what_it_is_for() {
    let prose = prose();
    let only = |set: fn(&mut FilterOptions)| {
        let mut options = FilterOptions::default();
        set(&mut options);
        options
    };
    let gopher = only(|o| o.gopher = true);
    let repetition = only(|o| o.repetition = true);
    let c4 = only(|o| o.c4 = true);
    let fineweb = only(|o| o.fineweb = true);
    let repeat = |line: &str, n: usize| format!("{line}\n").repeat(n);
    let numbered = |what: &str, n: usize| (0..n).map(|i| format!("{what} {i} ")).collect::<String>();
    let german =
        "Der alte Müller erinnerte sich an den Fluss, und die Kinder des Dorfes liefen über die Brücke nach Hause. ";
    let cases: Vec<(&FilterOptions, String, Rule)> = vec![
        (&gopher, "the and of to be".to_owned(), Rule::GopherWords),
        (&gopher, numbered("the be", 40_000), Rule::GopherWords),
        (&gopher, "a b of to c ".repeat(20), Rule::GopherWordLength),
        (&gopher, "unbelievably incontrovertible counterrevolutionary ".repeat(20), Rule::GopherWordLength),
        (&gopher, "the house #tag of word ".repeat(20), Rule::GopherSymbols),
        (&gopher, (0..30).map(|i| format!("• the point of number {i}\n")).collect(), Rule::GopherBullets),
        (
            &gopher,
            (0..30).map(|i| format!("the story of item {i} goes on and on like that with more…\n")).collect(),
            Rule::GopherEllipsis,
        ),
        (&gopher, "the 1234 5678 of 9999 ".repeat(20), Rule::GopherLetters),
        (&gopher, "green ideas sleep furiously tonight ".repeat(20), Rule::GopherStopWords),
        (&repetition, format!("{}another line\n", repeat("the same line again", 10)), Rule::DuplicateLines),
        (&repetition, format!("{prose}\n\n{}", "buy cheap pills ".repeat(40)), Rule::DuplicateNgrams),
        (&repetition, format!("{} {}", prose.replace('\n', " "), prose.replace('\n', " ")), Rule::DuplicateNgrams),
        (&c4, "Menu\nHome\nContact".to_owned(), Rule::Empty),
        (&c4, "This is the only sentence of it.".to_owned(), Rule::C4Sentences),
        (&c4, format!("{prose}\nfunction f() {{ return that thing there. }}."), Rule::C4Brackets),
        (&c4, format!("{prose}\nLorem ipsum dolor sit amet it is."), Rule::C4LoremIpsum),
        (
            &fineweb,
            (0..40).map(|i| format!("a line of a list that has no end mark {i}\n")).collect(),
            Rule::FinewebPunctuation,
        ),
        (&fineweb, (0..40).map(|i| format!("short one {i}.\n")).collect(), Rule::FinewebShortLines),
        (
            &fineweb,
            format!("{}{}", repeat("This sentence stands here several times over.", 10), prose.replace(". ", ".\n")),
            Rule::FinewebDuplicates,
        ),
    ];
    for (options, text, rule) in &cases {
        let judged = options.judge(text);
        let start: String = text.chars().take(60).collect();
        assert_eq!(judged.rejection.as_ref().map(|r| r.rule), Some(*rule), "{start:?}: {:?}", judged.rejection);
        assert!(!judged.rejection.expect("dropped").found.is_empty());
    }
    assert_eq!(verdict(&web(), &german.repeat(3)), Some(Rule::Language));
    let lengths = FilterOptions { min_bytes: 10, max_bytes: Some(20), ..FilterOptions::default() };
    assert_eq!(verdict(&lengths, "123456789"), Some(Rule::TooShort));
    assert_eq!(verdict(&lengths, "1234567890"), None);
    assert_eq!(verdict(&lengths, &"x".repeat(21)), Some(Rule::TooLong));
}

#[test]
fn lines_of_the_page_are_cut_and_lines_of_the_text_stay() {
    let boilerplate = FilterOptions { boilerplate: true, ..FilterOptions::default() };
    let text = "Skip to content\nHome | News | About\nThe cookie that the baker made was large, and the children of the street shared it.\n\nChapter 1\nIt rained.\nChapter 1\nIt rained.\nIt rained.\n© 2020 Somebody. All rights reserved.";
    let judged = boilerplate.judge(text);
    assert_eq!(
        &*judged.text,
        "The cookie that the baker made was large, and the children of the street shared it.\n\nChapter 1\nIt rained.\nChapter 1\nIt rained."
    );
    assert_eq!(judged.lines_cut, 4);
    let c4 = FilterOptions { c4: true, ..FilterOptions::default() };
    let prose = prose();
    let judged = c4.judge(&prose);
    assert_eq!(judged.lines_cut, 0);
    let with_menu =
        format!("Menu\n{prose}\nPlease enable Javascript to see this page.\nUnfinished line without its end");
    let judged = c4.judge(&with_menu);
    assert_eq!((&*judged.text, judged.lines_cut), (&prose[..], 3));
}

#[test]
fn prose_with_the_words_of_pages_stays() {
    let boilerplate = FilterOptions { boilerplate: true, ..FilterOptions::default() };
    let prose = "It was the first such design in the region,\nShe baked a cookie for each of them.\n“Please log in,” he said, “and wait.”\nThe mill was powered by water.\nThe blog inspired him";
    let judged = boilerplate.judge(prose);
    assert_eq!((&*judged.text, judged.lines_cut), (prose, 0));
    let page = "Sign in\nWe use cookies\nShare on Facebook\nRead more...\nSubscribe!\nRead our privacy policy.\nLOGIN/Register\n© 1999";
    let judged = boilerplate.judge(page);
    assert_eq!((&*judged.text, judged.lines_cut), ("Subscribe!", 7));
}

/// As datatrove's C4 filter has them: `\[\d*]|\[edit]|\[citation needed]`.
#[test]
fn citation_marks_are_cut_by_c4s_rules() {
    let c4 = FilterOptions { c4: true, ..FilterOptions::default() };
    let rest = "The second sentence stands right here. The third sentence stands here, too.";
    let left = |line: &str| {
        let text = format!("{line}\n{rest}");
        let judged = c4.judge(&text);
        assert_eq!((&judged.rejection, judged.lines_cut), (&None, 0), "{line}");
        judged.text.strip_suffix(rest).map(|t| t.trim_end_matches('\n').to_owned())
    };
    for (line, expected) in [
        ("The town[1] lies on[12][edit] a river[citation needed].[]", "The town lies on a river."),
        (
            "The list [1, 2] and [sic] and [[3]] and é[4 stay here.",
            "The list [1, 2] and [sic] and [] and é[4 stay here.",
        ),
    ] {
        assert_eq!(left(line).as_deref(), Some(expected));
    }
    assert_eq!(c4.cut("[[1]]").0, "");
    assert!(matches!(FilterOptions::default().cut("a[1]").0, std::borrow::Cow::Borrowed("a[1]")));
}

/// datatrove's marks: a line that ends with a quote, a comma or a bracket has not ended.
#[test]
fn lines_end_with_the_marks_of_fineweb() {
    let fineweb = FilterOptions { fineweb: true, ..FilterOptions::default() };
    let lines =
        |end: &str| (0..40).map(|i| format!("a line of a text that goes on and on {i}{end}\n")).collect::<String>();
    for end in [".", "!", "?", "。", "？", "।", "؟", "።"] {
        assert_eq!(verdict(&fineweb, &lines(end)), None, "{end}");
    }
    for end in ["", ",", ";", ":", ")", "”", "’", "\"", "'", "—"] {
        assert_eq!(verdict(&fineweb, &lines(end)), Some(Rule::FinewebPunctuation), "{end}");
    }
}

#[test]
fn languages_are_known_by_their_codes() {
    assert!(known_language("eng").is_ok() && known_language("deu").is_ok());
    let unknown = known_language("en").expect_err("two letters").to_string();
    assert!(unknown.contains("eng"), "{unknown}");
}
