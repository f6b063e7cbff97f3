//! The index against a search that looks at every place.

use corella_trace::{Index, SpanRules, TraceError, WINDOW, extraction, spans, starts, window};
use proptest::prelude::*;

const BORDER: u32 = 0;

fn places(tokens: &[u32], stretch: &[u32]) -> Vec<usize> {
    (0..tokens.len()).filter(|at| tokens[*at..].starts_with(stretch)).collect()
}

proptest! {
    #[test]
    fn every_place_of_a_stretch_is_found(tokens in prop::collection::vec(0u32..4, 1..200), from in 0usize..200, len in 1usize..9) {
        let index = Index::build(tokens.clone(), BORDER).expect("an index");
        let from = from % tokens.len();
        let stretch = &tokens[from..(from + len).min(tokens.len())];
        let found = index.find(stretch);
        prop_assert_eq!(index.positions(&found, usize::MAX), places(&tokens, stretch));
        prop_assert_eq!(index.find(&[9, 9]).count(), 0);
    }

    #[test]
    fn the_longest_match_is_the_longest(tokens in prop::collection::vec(0u32..5, 1..150), text in prop::collection::vec(0u32..6, 0..30)) {
        let index = Index::build(tokens.clone(), BORDER).expect("an index");
        let expected = (0..=text.len()).rev().find(|n| !places(&tokens, &text[..*n]).is_empty() || *n == 0).unwrap_or(0);
        prop_assert_eq!(index.longest_match(&text), expected);
    }

    #[test]
    fn ids_beyond_sixteen_bits_are_sorted_like_the_others(tokens in prop::collection::vec(prop::sample::select(vec![1u32, 70_000, 128_255]), 1..100)) {
        let index = Index::build(tokens.clone(), BORDER).expect("an index");
        let stretch = &tokens[..tokens.len().min(3)];
        prop_assert_eq!(index.positions(&index.find(stretch), usize::MAX), places(&tokens, stretch));
    }
}

#[test]
fn positions_belong_to_their_documents() {
    let index = Index::build(vec![BORDER, 5, 6, BORDER, 7, BORDER, 8, 9], BORDER).expect("an index");
    assert_eq!(index.documents(), 3);
    assert_eq!(index.document(1), (0, 0..4));
    assert_eq!(index.document(4), (1, 4..6));
    assert_eq!(index.document(7), (2, 6..8));
}

#[test]
fn spans_are_maximal_and_stop_at_borders() {
    let page: Vec<u32> = (10..40).collect();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(BORDER);
        tokens.extend(&page);
    }
    tokens.push(BORDER);
    tokens.extend(100..2000);
    let index = Index::build(tokens, BORDER).expect("an index");
    // Ten tokens of the page, two of no page, the rest of it, a border, and the beginning of the page again.
    let text: Vec<u32> = [&page[..10], &[9000, 9001], &page[10..], &[BORDER], &page[..8]].concat();
    let found = spans(&index, &text, BORDER, SpanRules::default());
    let ranges: Vec<_> = found.iter().map(|s| (s.range.clone(), s.found.count())).collect();
    assert_eq!(ranges, [(0..10, 3), (12..32, 3), (33..41, 3)]);
    assert!(spans(&index, &[9000; 50], BORDER, SpanRules::default()).is_empty());
}

#[test]
fn what_chance_explains_is_no_span() {
    // Two tokens only: every stretch of seven stands somewhere.
    let tokens: Vec<u32> = (0..5000u64).map(|i| 1 + (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63) as u32).collect();
    let index = Index::build(tokens.clone(), BORDER).expect("an index");
    assert!(spans(&index, &tokens[100..107], BORDER, SpanRules::default()).is_empty());
    assert_eq!(spans(&index, &tokens[100..160], BORDER, SpanRules::default()).len(), 1);
}

#[test]
fn an_index_survives_its_file_and_a_damaged_or_foreign_one_is_refused() {
    let dir = std::env::temp_dir().join(format!("corella-trace-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let path = dir.join("index.bin");
    let tokens: Vec<u32> = (0..300).map(|i| i % 7).collect();
    let index = Index::build(tokens.clone(), BORDER).expect("an index");
    let mark = 0x0123_4567_89ab_cdef;
    index.write(&path, mark).expect("written");
    let (read, found) = Index::read(&path, BORDER).expect("read");
    assert_eq!((found, read.len()), (mark, tokens.len()));
    assert_eq!(read.find(&[1, 2, 3]), index.find(&[1, 2, 3]));
    assert_eq!(read.tokens(0..300), tokens);

    assert!(read.check_tokens(&path, &tokens).is_ok());
    let other: Vec<u32> = tokens.iter().map(|t| t + 1).collect();
    for other in [&other[..], &tokens[1..]] {
        assert!(matches!(read.check_tokens(&path, other), Err(TraceError::OtherTokens { .. })));
    }
    let good = std::fs::read(&path).expect("bytes");
    // One of the tokens, and one of their places.
    for at in [100, 28 + 4 * 300 + 100] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let error = Index::read(&path, BORDER).expect_err("damaged");
        assert!(error.to_string().contains("damaged"), "{error}");
    }
    // A file says that it holds what no memory holds; an index of an earlier version had no tokens.
    let vast = [&good[..8], &[0xff; 4], &good[12..]].concat();
    let earlier = [&good[..4], &[1, 0, 0, 0], &good[8..28 + 4 * 298]].concat();
    for (bytes, word) in [
        (&good[..7], "too short"),
        (&b"GGUF"[..], "too short"),
        (&[b'a'; 64][..], "no index"),
        (&good[..good.len() - 4], "make it again"),
        (&vast[..], "make it again"),
        (&earlier[..], "version 1"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        let error = Index::read(&path, BORDER).expect_err("no index");
        assert!(error.to_string().contains(word), "{error}");
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn a_window_is_as_likely_as_all_its_tokens_together() {
    // The half-way point of a window's probability is 98.6 % per token.
    let half = (0.5f64.ln() / WINDOW as f64) as f32;
    let all = [window(50, &[half * 0.99; WINDOW]), window(100, &[half * 1.5; WINDOW])];
    assert!((all[0].p() - 0.5f64.powf(0.99)).abs() < 1e-6);
    assert_eq!(extraction(&all), 0.5);
    assert_eq!(extraction(&[]), 0.0);
    // Each window and its prefix lie inside the text.
    assert_eq!(starts(199, WINDOW).collect::<Vec<_>>(), [50, 100]);
    assert_eq!(starts(102, 1).collect::<Vec<_>>(), [50, 51, 52]);
    assert_eq!(starts(99, 1).count(), 0);
}
