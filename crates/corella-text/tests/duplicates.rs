//! Planted duplicates are found, and little else is taken for one.

mod preparing;

use std::collections::HashSet;

use corella_text::data::filters::Rule;
use corella_text::data::{Document, PrepareOptions, Vocabulary, prepare, text_hash};
use corella_text::tokenizer::Tokenizer;
use preparing::{Folder, Witness, novels, options};

/// Pages of about 1,500 characters, cut at paragraphs.
fn pages(documents: &[Document], most: usize) -> Vec<String> {
    let mut pages = Vec::new();
    for document in documents {
        let mut page = String::new();
        for paragraph in document.text.split("\n\n") {
            page.push_str(paragraph);
            page.push_str("\n\n");
            if page.len() > 1500 {
                pages.push(std::mem::take(&mut page));
            }
        }
    }
    let step = (pages.len() / most).max(1);
    pages.into_iter().step_by(step).take(most).collect()
}

fn shingles(text: &str) -> HashSet<Vec<String>> {
    let words: Vec<String> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    words.windows(5).map(<[String]>::to_vec).collect()
}

fn jaccard(a: &str, b: &str) -> f64 {
    let (a, b) = (shingles(a), shingles(b));
    a.intersection(&b).count() as f64 / a.union(&b).count().max(1) as f64
}

/// Replaces about one word in `every`.
fn edited(text: &str, every: u64, salt: usize) -> String {
    let words = text.split(' ').enumerate();
    let edit = |(i, w): (usize, &str)| {
        let lot = text_hash(&format!("{salt} {i}")) as u64;
        if lot.is_multiple_of(every) { format!("changed{i}") } else { w.to_owned() }
    };
    words.map(edit).collect::<Vec<_>>().join(" ")
}

/// Pairs of texts whose five-word sequences have about this similarity; of each the second is found with this probability.
fn share_found(similarity: f64, asked: f64, name: &str) -> f64 {
    const PAIRS: usize = 200;
    // Of two texts of n sequences that differ at one end, the similarity is (n - d) / (n + d).
    let all = 400usize;
    let different = ((all as f64) * (1.0 - similarity) / (1.0 + similarity)).round() as usize;
    let word = |pair: usize, i: usize| format!("w{:x}", text_hash(&format!("{pair} {i}")) as u32);
    let mut lines = String::new();
    for pair in 0..PAIRS {
        for from in [0, different] {
            let text: Vec<String> = (from..from + all + 4).map(|i| word(pair, i)).collect();
            lines.push_str(&format!("{}\n", serde_json::json!({ "text": text.join(" ") })));
        }
    }
    let folder = Folder::new(name);
    let source = folder.file("pairs.jsonl", lines);
    let options = PrepareOptions { near_duplicates: Some(asked), ..options() };
    let out = folder.0.join("out");
    let vocabulary = Vocabulary::Given(Tokenizer::gpt2());
    let (_, report) = prepare(&[source], &vocabulary, &out, &options, &mut Witness::default()).expect("prepared");
    let found = report.dropped.get(&Rule::NearDuplicate).map_or(0, |dropped| dropped.tally.documents);
    found as f64 / PAIRS as f64
}

#[test]
fn what_is_more_alike_than_was_asked_for_is_found_at_every_similarity() {
    for (asked, alike) in [(0.4, 0.5), (0.5, 0.6), (0.65, 0.75)] {
        let (above, below) = (share_found(alike, asked, "alike"), share_found(asked - 0.15, asked, "unlike"));
        println!("--similarity {asked}: {above:.2} of those of {alike}, {below:.2} of those of {:.2}", asked - 0.15);
        assert!(above > 0.85 && below < 0.05, "{asked}: {above} and {below}");
    }
}

#[test]
fn planted_exact_and_near_duplicates_are_found_and_nothing_else_is_dropped() {
    let Some(novels) = novels() else { return };
    let originals = pages(&novels.documents, 2500);
    // Behind the originals: exact copies in another dress, light edits, and heavy edits that are texts of their own.
    let mut lines: Vec<(String, &str, f64)> = originals.iter().map(|p| (p.clone(), "original", 0.0)).collect();
    for (i, page) in originals.iter().enumerate() {
        match i % 8 {
            0 => lines.push((page.to_uppercase().replace("\n\n", "\n \n"), "exact", 1.0)),
            1 => lines.push((edited(page, 100, i), "near", 0.0)),
            2 => lines.push((edited(page, 50, i), "near", 0.0)),
            3 => lines.push((edited(page, 6, i), "other", 0.0)),
            _ => {}
        }
    }
    let planted = lines.len() - originals.len();
    let mut of = originals.iter().enumerate().filter(|(i, _)| i % 8 < 4).map(|(_, p)| p);
    for line in &mut lines[originals.len()..] {
        line.2 = jaccard(of.next().expect("an original"), &line.0);
    }
    let folder = Folder::new("duplicates");
    let json: String = lines.iter().map(|(t, ..)| format!("{}\n", serde_json::json!({ "text": t }))).collect();
    let source = folder.file("pages.jsonl", json);
    let options = PrepareOptions { near_duplicates: Some(0.7), shard_tokens: 1 << 24, ..options() };
    let vocabulary = Vocabulary::Given(Tokenizer::gpt2());
    let out = folder.0.join("out");
    let (_, report) = prepare(&[source], &vocabulary, &out, &options, &mut Witness::default()).expect("prepared");
    // Which lines stayed: the index names the records.
    let mut kept = HashSet::new();
    for part in ["train", "val"] {
        let tokens =
            corella_text::data::read_shard(&out.join(format!("{part}_000000.bin")), 50_257).expect("a shard").len();
        let index =
            corella_text::data::read_index(&out.join(format!("{part}_000000.idx")), tokens as u64).expect("an index");
        kept.extend(index.iter().map(|e| e.record as usize));
    }
    let dropped = |i: usize| !kept.contains(&i);
    let count = |kind: &str, low: f64, high: f64| {
        let of = |want: bool| {
            (0..lines.len())
                .filter(|i| lines[*i].1 == kind && (low..high).contains(&lines[*i].2) && (dropped(*i) || !want))
                .count()
        };
        (of(true), of(false))
    };
    let exact = count("exact", 0.0, 1.1);
    let original = count("original", 0.0, 1.0);
    println!("{} originals, {planted} planted; of the originals {} dropped", originals.len(), original.0);
    println!("exact copies: {} of {} found", exact.0, exact.1);
    let mut recall = (0, 0);
    for (low, high) in [(0.0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.01)] {
        let (near, other) = (count("near", low, high), count("other", low, high));
        let (found, all) = (near.0 + other.0, near.1 + other.1);
        println!("edited, similarity {low} to {high}: {found} of {all} dropped");
        if low >= 0.8 {
            recall = (recall.0 + found, recall.1 + all);
        }
    }
    let below = (0..lines.len()).filter(|i| dropped(*i) && lines[*i].1 != "exact" && lines[*i].2 < 0.6).count();
    let all = (0..lines.len()).filter(|i| dropped(*i)).count();
    println!(
        "recall from 0.8 on {:.4}, precision {:.4}",
        recall.0 as f64 / recall.1 as f64,
        1.0 - below as f64 / all as f64
    );
    // The lot of an edit may fall on no word at all.
    let unchanged = lines.iter().filter(|(text, kind, _)| *kind == "near" && originals.contains(text)).count();
    assert_eq!(exact.0, exact.1);
    assert_eq!(report.dropped[&Rule::ExactDuplicate].tally.documents as usize, exact.0 + unchanged);
    assert!(recall.0 * 100 >= recall.1 * 92, "recall {recall:?}");
    assert!(below * 100 <= all, "{below} of {all} dropped without reason");
}
