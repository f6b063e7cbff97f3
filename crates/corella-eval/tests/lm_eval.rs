//! Every log-likelihood and score equals lm-eval's through transformers (fixtures/eval/make.py), on the same checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corella_eval::{ItemScore, Pair, Reader, Shots, Task, read_items, score_item, summary};
use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Exact};
use corella_model::llama::{LlamaCheckpoint, LlamaInfer};
use corella_model::{KvKind, OneSequence, StepOptions, TextModel};
use corella_ops::cpu::{Cpu, CpuOptions};
use corella_text::tokenizer::Tokenizer;
use serde::Deserialize;

/// lm-eval's result of a task.
#[derive(Deserialize)]
struct Golden {
    acc: f64,
    acc_norm: Option<f64>,
    perplexity: Option<f64>,
    /// Of each item, each continuation.
    log_probs: Vec<Vec<f64>>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/eval").join(name)
}

#[test]
fn a_gpt2_scores_in_six_tasks_as_lm_eval_scores_it() {
    let checkpoint = Gpt2Checkpoint::open(&fixture("model")).expect("a model");
    let mut model = Gpt2Exact::new(one_thread(), &checkpoint).expect("fits");
    let tasks = compare(&mut model, "model", "golden.json", 2e-5);
    assert_eq!(tasks, 8, "six tasks, and two with examples in front");
}

/// A tokenizer without bytes that puts a token in front, and that joins a space to the word behind it.
#[test]
fn a_llama_scores_as_lm_eval_scores_it() {
    let checkpoint = LlamaCheckpoint::open(&fixture("llama")).expect("a model");
    // As `corella eval` keeps keys and values, and transformers.
    let options = StepOptions { kv_kind: KvKind::F32, ..StepOptions::one_sequence(128) };
    let step = LlamaInfer::new(one_thread(), &checkpoint, options).expect("fits");
    assert!(compare(&mut OneSequence::new(step), "llama", "llama.json", 2e-5) >= 6);
}

fn one_thread() -> Cpu {
    Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("available")
}

/// Compares every item of every task that the fixture has; returns their number.
fn compare(model: &mut dyn TextModel, folder: &str, golden: &str, bound: f64) -> usize {
    let golden = std::fs::read_to_string(fixture(golden)).expect("a fixture");
    let golden: BTreeMap<String, Golden> = serde_json::from_str(&golden).expect("JSON");
    let tokenizer = Tokenizer::load(&fixture(folder)).expect("a tokenizer");
    let (mut worst, tasks) = (0.0f64, golden.len());
    for (name, theirs) in golden {
        let plain = name.trim_end_matches("_2_shot");
        let task = Task::from_name(plain).expect("a task");
        let path = fixture(&format!("items/{plain}.jsonl"));
        let mut items = read_items(&[&path], task, 0).expect("items");
        if plain != name {
            let shots = Shots::read(&[&path], &[&path], task, 2).expect("examples");
            items.iter_mut().try_for_each(|item| shots.put_before(item)).expect("enough examples");
        }
        let mut reader = Reader::new(&mut *model, &tokenizer);
        let ours: Vec<_> = items.iter().map(|item| score_item(&mut reader, item).expect("numbers")).collect();
        assert_eq!(ours.len(), theirs.log_probs.len(), "{name}");
        for (number, (score, expected)) in ours.iter().zip(&theirs.log_probs).enumerate() {
            let found = score.as_ref().map_or(&[][..], |score: &ItemScore| &score.log_probs[..]);
            assert_eq!(found.len(), expected.len(), "{name} {number}");
            for (a, b) in found.iter().zip(expected) {
                let error = (a - b).abs() / b.abs().max(1.0);
                worst = worst.max(error);
                assert!(error < bound, "{name} {number}: {a} here, {b} there");
            }
        }
        let found = summary(task, &items, &ours).expect("judged items");
        assert_eq!((found.acc, found.acc_norm), (theirs.acc, theirs.acc_norm), "{name}");
        if let (Some(a), Some(b)) = (found.perplexity, theirs.perplexity) {
            assert!((a / b - 1.0).abs() < bound, "{name}: perplexity {a} here, {b} there");
        }
    }
    println!("largest relative difference of a log-likelihood: {worst:.1e}");
    tasks
}

/// lm-eval stops at such items with an assertion.
#[test]
fn what_cannot_be_judged_counts_nowhere() {
    let checkpoint = Gpt2Checkpoint::open(&fixture("model")).expect("a model");
    let mut model = Gpt2Exact::new(one_thread(), &checkpoint).expect("fits");
    let tokenizer = Tokenizer::load(&fixture("model")).expect("a tokenizer");
    let item = |good: &str| {
        let line = serde_json::json!({"goal": "How do I stir soup?", "sol1": good, "sol2": "With a kite.", "label": 0});
        Task::Piqa.item(&line).expect("an item")
    };
    // More tokens than the model's context of 64 holds.
    let items = [item("With a spoon."), item(&"With a spoon. ".repeat(64))];
    let mut reader = Reader::new(&mut model, &tokenizer);
    let scores: Vec<_> = items.iter().map(|item| score_item(&mut reader, item).expect("numbers")).collect();
    assert!(scores[0].is_some() && scores[1].is_none());
    let found = summary(Task::Piqa, &items, &scores).expect("one is judged");
    let alone = summary(Task::Piqa, &items, &scores[..1]).expect("one is judged");
    assert_eq!((found.items, found.left_out, found.acc), (1, 1, alone.acc));
    assert_eq!(summary(Task::Piqa, &items[1..], &scores[1..]), None);
    // The tokenizer makes one token of the context's end and the continuation.
    let (text, tokens) = ("to stir soup", |text: &str| tokenizer.encode(text).len());
    let border = (1..text.len() - 1).find(|i| tokens(&text[..*i]) == tokens(&text[..i + 1])).expect("a longer token");
    let pair = |context: &str, continuation: &str| Pair { context: context.into(), continuation: continuation.into() };
    let mut judge = |pair: Pair| reader.log_likelihood("", &pair).expect("numbers");
    assert_eq!(judge(pair(&text[..border], &text[border..border + 1])), None);
    assert_eq!(judge(pair("to stir", "")), None);
    assert!(judge(pair("to stir", " soup")).is_some());
}

#[test]
fn examples_of_another_file_stay_even_if_they_are_the_item() {
    let path = fixture("items/winogrande.jsonl");
    let first = read_items(&[&path], Task::WinoGrande, 1).expect("items").remove(0);
    let with = |of: &Path| {
        let mut item = first.clone();
        let shots = Shots::read(&[&path], &[of], Task::WinoGrande, 1).expect("examples");
        shots.put_before(&mut item).expect("enough examples");
        item.preamble
    };
    assert!(with(Path::new("other.jsonl")).starts_with("Bea lent") != with(&path).starts_with("Bea lent"));
    assert!(with(&path).starts_with("Bea lent a"), "the second item: {}", with(&path));
}

#[test]
fn a_limit_is_of_each_subject_and_files_of_a_task_are_joined() {
    let path = std::env::temp_dir().join(format!("corella-subjects-{}.jsonl", std::process::id()));
    let line = |subject: &str| {
        let choices = ["a", "b", "c", "d"];
        serde_json::json!({"question": "q", "subject": subject, "choices": choices, "answer": 0}).to_string()
    };
    // A mark of the byte order in front.
    let lines = ["law", "law", "law", "art", "law", "art"].map(line).join("\n");
    std::fs::write(&path, format!("\u{feff}{lines}")).expect("written");
    let subjects = |paths: &[&Path], limit| -> Vec<bool> {
        let items = read_items(paths, Task::Mmlu, limit).expect("items");
        items.iter().map(|item| item.preamble.contains("about art")).collect()
    };
    assert_eq!(subjects(&[&path], 2), [false, false, true, true]);
    assert_eq!(subjects(&[&path, &path], 5), [false, false, false, true, false, true, false, true, true]);
    assert_eq!(subjects(&[&path, &path], 0).len(), 12);
    std::fs::remove_file(&path).expect("removed");
    let lambada = fixture("items/lambada_openai.jsonl");
    assert_eq!(read_items(&[&lambada, &lambada], Task::Lambada, 11).expect("items").len(), 11);
}

#[test]
fn too_few_examples_are_an_error_that_names_the_subject() {
    let path = fixture("items/mmlu.jsonl");
    let mut item = read_items(&[&path], Task::Mmlu, 1).expect("items").remove(0);
    let shots = |count| Shots::read(&[&path], &[&path], Task::Mmlu, count).expect("read");
    let text = shots(8).put_before(&mut item).expect_err("seven others only").to_string();
    assert!(text.contains("7 examples") && text.contains("household things") && text.contains("8 are"), "{text}");
    shots(7).put_before(&mut item).expect("seven others");
}

#[test]
fn a_line_that_is_no_item_is_named() {
    let path = std::env::temp_dir().join(format!("corella-items-{}.jsonl", std::process::id()));
    std::fs::write(&path, "{\"context\": \"a\", \"continuation\": \"b\"}\n\n{\"context\": 3}\n").expect("written");
    let error = read_items(&[&path], Task::Lambada, 0).expect_err("a bad line").to_string();
    assert!(error.contains("line 3") && error.contains("context"), "{error}");
    assert_eq!(read_items(&[&path], Task::Lambada, 1).expect("the first is good").len(), 1);
    std::fs::write(&path, "").expect("written");
    assert!(read_items(&[&path], Task::Lambada, 0).is_err(), "no items");
    std::fs::remove_file(&path).expect("removed");
}

/// Counts the tokens that a model is fed.
struct Counted<'a> {
    inner: &'a mut dyn TextModel,
    fed: usize,
}

impl TextModel for Counted<'_> {
    fn context_len(&self) -> usize {
        self.inner.context_len()
    }
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }
    fn reset(&mut self) {
        self.inner.reset();
    }
    fn rewind(&mut self, position: usize) {
        self.inner.rewind(position);
    }
    fn position(&self) -> usize {
        self.inner.position()
    }
    fn feed(&mut self, tokens: &[u32]) -> &[f32] {
        self.fed += tokens.len();
        self.inner.feed(tokens)
    }
    fn feed_each(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) {
        self.fed += tokens.len();
        self.inner.feed_each(tokens, each);
    }
}

#[test]
fn what_texts_have_in_common_is_read_once_and_the_bits_are_those_of_each_alone() {
    let gpt2 = Gpt2Checkpoint::open(&fixture("model")).expect("a model");
    let llama = LlamaCheckpoint::open(&fixture("llama")).expect("a model");
    let options = StepOptions { kv_kind: KvKind::F32, ..StepOptions::one_sequence(128) };
    let mut models: [(&str, Box<dyn TextModel>); 2] = [
        ("model", Box::new(Gpt2Exact::new(one_thread(), &gpt2).expect("fits"))),
        ("llama", Box::new(OneSequence::new(LlamaInfer::new(one_thread(), &llama, options).expect("fits")))),
    ];
    for (name, model) in &mut models {
        let tokenizer = Tokenizer::load(&fixture(name)).expect("a tokenizer");
        // Of both kinds: one token for each choice, and several; and several contexts with one end.
        for (task, at_most) in [(Task::Mmlu, 0.3), (Task::HellaSwag, 0.8), (Task::WinoGrande, 0.95)] {
            let path = fixture(&format!("items/{}.jsonl", task.name()));
            let items = read_items(&[&path], task, 0).expect("items");
            let mut together = Counted { inner: &mut **model, fed: 0 };
            let mut reader = Reader::new(&mut together, &tokenizer);
            let found: Vec<_> = items.iter().map(|item| score_item(&mut reader, item).expect("numbers")).collect();
            let together = together.fed;
            let mut alone = Counted { inner: &mut **model, fed: 0 };
            for (item, found) in items.iter().zip(&found) {
                for (number, pair) in item.pairs().iter().enumerate() {
                    let one = Reader::new(&mut alone, &tokenizer).log_likelihood(&item.preamble, pair);
                    let one = one.expect("numbers").map(|one| one.log_prob.to_bits());
                    let found = found.as_ref().map(|score| score.log_probs[number].to_bits());
                    assert!(found.is_none() || one == found, "{name} {} {number}", task.name());
                }
            }
            let share = together as f64 / alone.fed as f64;
            assert!(share < at_most, "{name} {}: {together} tokens of {}", task.name(), alone.fed);
        }
    }
}
