//! Text as it streams: stop strings over any borders, whole characters, linear time.

use corella_infer::{Released, StopError, StopStrings, TextStream};
use proptest::prelude::*;

/// Streams `pieces`; returns the text and the stop string, checked: what is released is the text of whole tokens.
fn stream(stops: &[&str], keep_stop: bool, pieces: &[&[u8]]) -> (String, Option<usize>) {
    stream_behind(0, stops, keep_stop, pieces)
}

/// The same where the first `min` pieces may not stop the text.
fn stream_behind(min: usize, stops: &[&str], keep_stop: bool, pieces: &[&[u8]]) -> (String, Option<usize>) {
    let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
    let mut stream = TextStream::new(StopStrings::new(&stops).expect("stop strings"), keep_stop);
    let (mut text, mut tokens) = (String::new(), 0);
    for (i, piece) in pieces.iter().enumerate() {
        let released = stream.push(piece, i >= min);
        text.push_str(&released.text);
        if released.stopped.is_some() {
            return (text, released.stopped);
        }
        let group = pieces[tokens..tokens + released.tokens].concat();
        assert_eq!(released.text, String::from_utf8_lossy(&group), "a piece is the text of its tokens");
        tokens += released.tokens;
    }
    let end = stream.finish();
    assert_eq!(tokens + end.tokens, pieces.len());
    text.push_str(&end.text);
    (text, end.stopped)
}

#[test]
fn a_stop_string_is_found_across_tokens_and_never_shown() {
    let pieces: [&[u8]; 4] = [b"The sky is blue.\nHu", b"m", b"an: W", b"hy"];
    assert_eq!(stream(&["\nHuman:"], false, &pieces), ("The sky is blue.".into(), Some(0)));
    assert_eq!(stream(&["\nHuman:"], true, &pieces), ("The sky is blue.\nHuman:".into(), Some(0)));
    assert_eq!(stream(&["\nRobot:"], false, &pieces), ("The sky is blue.\nHuman: Why".into(), None));
}

#[test]
fn what_only_began_like_a_stop_string_is_shown() {
    assert_eq!(stream(&["abcd"], false, &[b"xabc"]), ("xabc".into(), None));
    assert_eq!(stream(&["aab"], false, &[b"a", b"a", b"a", b"b", b"c"]), ("a".into(), Some(0)));
}

#[test]
fn the_first_end_wins_and_the_longest_of_those_that_end_together() {
    assert_eq!(stream(&["bcd", "c"], false, &[b"abcd"]), ("ab".into(), Some(1)));
    assert_eq!(stream(&["c", "abc", "bc"], false, &[b"xabc"]), ("x".into(), Some(1)));
}

#[test]
fn characters_are_never_cut() {
    let word = "größe 日本 🦀";
    for size in 1..5 {
        let pieces: Vec<&[u8]> = word.as_bytes().chunks(size).collect();
        let mut stream = TextStream::new(StopStrings::default(), false);
        let mut text = String::new();
        for piece in &pieces {
            text.push_str(&stream.push(piece, true).text);
            assert!(word.starts_with(&text), "{text}");
        }
        assert_eq!(text, word);
    }
    assert_eq!(stream(&["本"], false, &[b"a\xe6\x9c", b"\xac"]).0, "a");
    // Half a character before a stop string, and at the end.
    assert_eq!(stream(&["\n"], false, &[b"a\xe6", b"\n"]), ("a\u{fffd}".into(), Some(0)));
    assert_eq!(stream(&[], false, &[b"a\xf0\x9f\xa6"]), ("a\u{fffd}".into(), None));
}

#[test]
fn a_stop_string_takes_the_tokens_that_have_no_part_in_the_text() {
    let stops = StopStrings::new(&["\nHuman:".to_owned()]).expect("a stop string");
    let mut stream = TextStream::new(stops.clone(), false);
    assert_eq!(stream.push(b"Hi", true), Released { text: "Hi".into(), tokens: 1, stopped: None });
    assert_eq!(stream.push(b"!\nHu", true), Released::default());
    assert_eq!(stream.push(b"man", true), Released::default());
    assert_eq!(stream.push(b":", true), Released { text: "!".into(), tokens: 1, stopped: Some(0) });
}

#[test]
fn a_stop_string_may_begin_where_none_may_end() {
    let stops = |texts: &[&str]| {
        StopStrings::new(&texts.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).expect("stop strings")
    };
    let shown = |text: &str, tokens| Released { text: text.into(), tokens, stopped: None };
    let mut stream = TextStream::new(stops(&["\nHuman:"]), false);
    assert_eq!(stream.push(b"\nHuman:\nHum", false), Released::default(), "the second has begun");
    assert_eq!(stream.push(b"an:", true), Released { text: "\nHuman:".into(), tokens: 1, stopped: Some(0) });
    // One that has ended where it may not is text at once, unless it is the beginning of another.
    let mut stream = TextStream::new(stops(&["a,b", ",", "ab"]), false);
    assert_eq!(stream.push(b",", false), shown(",", 1));
    assert_eq!(stream.push(b"a", false), Released::default());
    assert_eq!(stream.push(b",", false), Released::default());
    assert_eq!(stream.push(b"b", false), shown("a,b", 3));
    assert_eq!(stream.push(b"b", true), shown("b", 1));
    assert_eq!(stream.push(b"x,", true), Released { text: "x".into(), tokens: 1, stopped: Some(1) });
    // At the end of one that ended in vain another may have begun.
    let mut stream = TextStream::new(stops(&["xab", "bab"]), false);
    assert_eq!(stream.push(b"xab", false), Released::default());
    assert_eq!(stream.push(b"ab", true), Released { text: "xa".into(), tokens: 1, stopped: Some(1) });
}

#[test]
fn a_token_without_bytes_leaves_a_begun_stop_string_waiting() {
    // Special tokens have no text; one between the halves of a stop string once set the first half free.
    assert_eq!(stream(&["ab"], false, &[b"xa", b"", b"b"]), ("x".into(), Some(0)));
    assert_eq!(stream(&["ab"], false, &[b"xa", b"", b"c"]), ("xac".into(), None));
    let mut stream = TextStream::new(StopStrings::new(&["ab".to_owned()]).expect("a stop string"), false);
    assert_eq!(stream.push(b"a", true), Released::default());
    assert_eq!(stream.push(b"", true), Released::default());
    assert_eq!(stream.push(b"b", true), Released { text: String::new(), tokens: 0, stopped: Some(0) });
}

#[test]
fn an_empty_stop_string_is_refused() {
    assert_eq!(StopStrings::new(&[String::new()]).expect_err("empty"), StopError::Empty);
}

#[test]
fn long_texts_and_many_stop_strings_take_linear_time() {
    // A quadratic method would take 5·10^10 steps here.
    let stops: Vec<String> =
        (0..100_000).map(|i| format!("{i:b}x")).chain([format!("{}b", "a".repeat(50_000))]).collect();
    let stops = StopStrings::new(&stops).expect("stop strings");
    let mut stream = TextStream::new(stops, false);
    let mut length = 0;
    for _ in 0..1_000_000 {
        length += stream.push(b"a", true).text.len();
    }
    assert_eq!(length, 950_000, "what may still become the long stop string is held back");
    assert_eq!(length + stream.finish().text.len(), 1_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn borders_between_tokens_change_nothing(
        text in prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c', 0xc3, 0xa4, 0xf0, 0x9f, 0xa6, 0x80]), 0..60),
        cuts in prop::collection::vec(0usize..60, 0..20),
        stops in prop::collection::vec("[abcä]{1,5}", 0..4),
        keep_stop in any::<bool>(),
        min in 0usize..5,
    ) {
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        let cut = stream(&stops, keep_stop, &pieces);
        prop_assert_eq!(&cut, &stream(&stops, keep_stop, &[&text]));
        // Independently: the stop string with the first end behind the first `min` pieces, the longest of those.
        let expected = |min: usize| {
            let least: usize = pieces.iter().take(min).map(|piece| piece.len()).sum();
            let ends = stops.iter().enumerate().filter_map(|(i, stop)| {
                let found = |at: &usize| at + stop.len() > least && text[*at..].starts_with(stop.as_bytes());
                let at = (0..text.len()).find(found)?;
                Some((at + stop.len(), usize::MAX - stop.len(), i))
            });
            let (left, found) = match ends.min() {
                Some((end, _, i)) => (&text[..if keep_stop { end } else { end - stops[i].len() }], Some(i)),
                None => (&text[..], None),
            };
            (String::from_utf8_lossy(left).into_owned(), found)
        };
        prop_assert_eq!(cut, expected(0));
        prop_assert_eq!(stream_behind(min, &stops, keep_stop, &pieces), expected(min));
    }
}
