//! Each share that a rule allows is allowed, and a little more is not.

use corella_text::data::filters::{FilterOptions, Rejection, Rule};

fn judged(set: impl Fn(&mut FilterOptions), text: &str) -> Option<Rejection> {
    let mut options = FilterOptions::default();
    set(&mut options);
    options.judge(text).rejection
}

fn repetition(text: &str) -> Option<Rejection> {
    judged(|options| options.repetition = true, text)
}

/// Words of six letters of which no two are equal.
fn words(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| format!("w{i:05}"))
}

/// A thousand words of which `blocks` · `n` repeat `n` words that stand together: each of the blocks stands twice, with other
/// words around it. So the share of the text in repeated sequences of `n` words is `blocks` · `n` / 1000; no longer sequence
/// is repeated.
fn repeated(n: usize, blocks: usize) -> String {
    let mut fresh = words(1000);
    let mut text: Vec<String> = Vec::new();
    for _ in 0..blocks {
        let block: Vec<String> = fresh.by_ref().take(n).collect();
        text.extend(block.iter().cloned());
        text.extend(fresh.by_ref().take(1));
        text.extend(block);
        text.extend(fresh.by_ref().take(1));
    }
    let rest = 1000 - text.len();
    text.extend(fresh.take(rest));
    text.join(" ")
}

/// The limits of table A1 of Rae et al. 2021: 15 % of the text for sequences of five words, to 10 % for those of ten.
#[test]
fn as_much_text_in_repeated_sequences_as_the_paper_allows() {
    for (n, most) in [(5, 30), (6, 23), (7, 18), (8, 15), (9, 12), (10, 10)] {
        assert_eq!(repetition(&repeated(n, most)), None, "{most} times {n} words");
        let found = repetition(&repeated(n, most + 1)).expect("too much");
        assert_eq!(found.rule, Rule::DuplicateNgrams);
        assert!(found.found.contains(&format!("repeated {n}-grams")), "{}", found.found);
    }
}

/// A thousand words, of which one phrase of `n` words is `count` times `n`, each time with another word behind it.
fn common(n: usize, count: usize) -> String {
    let mut fresh = words(1000);
    let phrase: Vec<String> = fresh.by_ref().take(n).collect();
    let mut text: Vec<String> = Vec::new();
    for _ in 0..count {
        text.extend(phrase.iter().cloned());
        text.extend(fresh.by_ref().take(1));
    }
    let rest = 1000 - text.len();
    text.extend(fresh.take(rest));
    text.join(" ")
}

/// The same table: 20 % of the text for a phrase of two words, 18 % for three, 16 % for four.
#[test]
fn as_much_text_in_the_commonest_phrase_as_the_paper_allows() {
    for (n, most) in [(2, 100), (3, 60), (4, 40)] {
        assert_eq!(repetition(&common(n, most)), None, "{most} times {n} words");
        let found = repetition(&common(n, most + 1)).expect("too much");
        assert_eq!(found.rule, Rule::DuplicateNgrams);
        assert!(found.found.starts_with(&format!("{} times", most + 1)), "{}", found.found);
    }
}

/// The limit is on the phrase that stands there most often (`Counter.most_common(1)` in datatrove's
/// `find_top_duplicate`), not on a rarer and longer one that covers more.
#[test]
fn of_two_phrases_the_more_common_one_is_measured_and_of_equally_common_ones_the_longer() {
    let text = |common: usize| {
        let mut fresh = words(1000);
        let mut text: Vec<String> = Vec::new();
        for (count, phrase) in [(common, ["of", "a"]), (8, ["internationalization", "misunderstandings"])] {
            for _ in 0..count {
                text.extend(phrase.map(str::to_owned));
                text.extend(fresh.by_ref().take(1));
            }
        }
        text.extend(fresh.take(100));
        text.join(" ")
    };
    assert_eq!(repetition(&text(9)), None, "nine times three letters are little of the text");
    let found = repetition(&text(8)).expect("eight times 37 letters are much");
    assert!(found.found.starts_with("8 times \"internationalization misunderstandings\""), "{}", found.found);
}

/// The same table: 30 % of the lines or paragraphs, or 20 % of the text in them.
#[test]
fn as_many_lines_and_paragraphs_twice_as_the_paper_allows() {
    for between in ["\n", "\n\n"] {
        let rule = |lines: &[&str]| repetition(&lines.join(between)).map(|found| found.rule);
        // One of five and one of four lines of the same length: 20 % and 25 % of lines and text.
        assert_eq!(rule(&["alpha", "bravo", "carol", "delta", "alpha"]), None);
        assert_eq!(rule(&["alpha", "bravo", "carol", "alpha"]), Some(Rule::DuplicateLines));
        // Three of ten and three of nine lines, with little text.
        let long: Vec<String> = (0..6).map(|i| format!("a-line-of-one-long-word-{i}")).collect();
        let mut lines = vec!["x", &long[0], "x", &long[1], "x", &long[2], "x", &long[3], &long[4], &long[5]];
        assert_eq!(rule(&lines), None);
        lines.pop();
        assert_eq!(rule(&lines), Some(Rule::DuplicateLines));
    }
}

#[test]
fn lines_that_break_off_are_cut() {
    let options = FilterOptions { c4: true, ..FilterOptions::default() };
    let kept = "The first of them went home. The second of them stayed. The third of them slept.";
    let judged = |line: &str| {
        let text = format!("{kept}\n{line}");
        let judged = options.judge(&text);
        (judged.text.into_owned(), judged.lines_cut, judged.rejection)
    };
    assert_eq!(judged("And then nobody knew what to..."), (kept.to_owned(), 1, None));
    let whole = "And then nobody knew what to.";
    assert_eq!(judged(whole), (format!("{kept}\n{whole}"), 0, None));
}

#[test]
fn a_text_of_the_greatest_length_passes() {
    let rule = |len: usize| judged(|o| o.max_bytes = Some(20), &"x".repeat(len)).map(|found| found.rule);
    assert_eq!((rule(20), rule(21)), (None, Some(Rule::TooLong)));
}
