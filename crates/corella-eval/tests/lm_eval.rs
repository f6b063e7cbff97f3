//! Every log-likelihood and score equals lm-eval's through transformers (fixtures/eval/make.py), on the same checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corella_eval::{ItemScore, Shots, Task, read_items, score_item, summary};
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
        let mut items = read_items(&path, task, 0).expect("items");
        if plain != name {
            let shots = Shots::read(&path, task, 2).expect("examples");
            items.iter_mut().try_for_each(|item| shots.put_before(item)).expect("enough examples");
        }
        let ours: Vec<ItemScore> = items.iter().map(|item| score_item(&mut *model, &tokenizer, item)).collect();
        assert_eq!(ours.len(), theirs.log_probs.len(), "{name}");
        for (number, (score, expected)) in ours.iter().zip(&theirs.log_probs).enumerate() {
            assert_eq!(score.log_probs.len(), expected.len(), "{name} {number}");
            for (a, b) in score.log_probs.iter().zip(expected) {
                let error = (a - b).abs() / b.abs().max(1.0);
                worst = worst.max(error);
                assert!(error < bound, "{name} {number}: {a} here, {b} there");
            }
        }
        let found = summary(task, &ours);
        assert_eq!((found.acc, found.acc_norm), (theirs.acc, theirs.acc_norm), "{name}");
        if let (Some(a), Some(b)) = (found.perplexity, theirs.perplexity) {
            assert!((a / b - 1.0).abs() < bound, "{name}: perplexity {a} here, {b} there");
        }
    }
    println!("largest relative difference of a log-likelihood: {worst:.1e}");
    tasks
}

#[test]
fn too_few_examples_are_an_error_that_names_the_subject() {
    let path = fixture("items/mmlu.jsonl");
    let mut item = read_items(&path, Task::Mmlu, 1).expect("items").remove(0);
    let error = Shots::read(&path, Task::Mmlu, 9).expect("read").put_before(&mut item).expect_err("eight only");
    let text = error.to_string();
    assert!(text.contains("8 examples") && text.contains("household things") && text.contains("9 are"), "{text}");
}

#[test]
fn a_line_that_is_no_item_is_named() {
    let path = std::env::temp_dir().join(format!("corella-items-{}.jsonl", std::process::id()));
    std::fs::write(&path, "{\"context\": \"a\", \"continuation\": \"b\"}\n\n{\"context\": 3}\n").expect("written");
    let error = read_items(&path, Task::Lambada, 0).expect_err("a bad line").to_string();
    assert!(error.contains("line 3") && error.contains("context"), "{error}");
    assert_eq!(read_items(&path, Task::Lambada, 1).expect("the first is good").len(), 1);
    std::fs::write(&path, "").expect("written");
    assert!(read_items(&path, Task::Lambada, 0).is_err(), "no items");
    std::fs::remove_file(&path).expect("removed");
}
