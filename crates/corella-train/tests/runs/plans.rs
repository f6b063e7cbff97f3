//! What a run file can say.

use crate::common::folder;
use crate::common::small_run::run;
use corella_train::{RunPlan, TrainPlan};

#[test]
fn a_batch_that_does_not_divide_is_refused_with_its_neighbours() {
    let mut plan = run(&folder("plan"), false).plan;
    plan.train.batch_tokens = 70;
    let error = plan.check().expect_err("70 is no multiple of 32").to_string();
    assert!(error.contains("64") && error.contains("96"), "{error}");
    let text = plan.to_toml().expect("written");
    assert_eq!(RunPlan::from_toml(&text).expect("read"), plan);
    assert!(RunPlan::from_toml(&text.replace("clip", "klip")).is_err(), "unknown keys are errors");
}

#[test]
fn a_run_file_says_what_a_micro_batch_can_be() {
    let text = run(&folder("micro"), false).plan.to_toml().expect("written");
    let with = |value: &str| {
        let plan = RunPlan::from_toml(&text.replace("micro_batch = 2", &format!("micro_batch = {value}")));
        plan.map(|plan| plan.train.micro_batch).map_err(|e| e.to_string())
    };
    assert_eq!((with("3"), with("\"auto\""), with("\"4\"")), (Ok(3), Ok(0), Ok(4)));
    for wrong in ["-4", "1.5", "\"many\"", "true"] {
        let error = with(wrong).expect_err("no number");
        assert!(error.contains("expected a number above 0, or \"auto\""), "{error}");
    }
}

#[test]
fn a_run_file_may_leave_out_what_has_a_default() {
    let model = "n_layer = 12\nn_head = 12\nn_embd = 768\nseq_len = 1024\nvocab_size = 50257\n[data]\npath = 'a.txt'\n";
    for (name, tokenizer) in [("gpt2-124m", "gpt2"), ("gpt2-custom", "own")] {
        let plan = RunPlan::from_toml(&format!("[model]\nname = '{name}'\n{model}")).expect("a plan");
        assert_eq!((plan.data.tokenizer.as_str(), plan.train), (tokenizer, TrainPlan::default()));
    }
}

#[test]
fn more_tokens_than_can_be_counted_are_no_plan() {
    let mut plan = run(&folder("many"), false).plan;
    (plan.train.batch_tokens, plan.train.steps) = (1 << 62, 4);
    let error = plan.check().expect_err("2 to the power of 64").to_string();
    assert!(error.starts_with("steps:"), "{error}");
}
