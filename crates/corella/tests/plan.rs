//! `corella plan`: the published bills come out of the program, and what cannot be is refused.

mod common;

use common::{Folder, corella, done, small_run, stderr};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

const THE_RUN_OF_THE_LESSON: [&str; 10] = [
    "plan",
    "--model",
    "gpt2-1558m",
    "--tokens",
    "33554432000",
    "--batch-tokens",
    "1048576",
    "--micro-batch",
    "auto",
    "--json",
];

#[test]
fn the_run_of_the_lesson_costs_672_dollars_and_a_day() {
    let flags = ["--gpu", "8xH100", "--price", "28", "--mfu", "0.4819"];
    let plan = json(&done(&[&THE_RUN_OF_THE_LESSON[..], &flags].concat()));
    let number = |key: &str| plan[key].as_f64().expect(key);
    assert_eq!((plan["parameters"].as_u64(), plan["steps"].as_u64()), (Some(1_557_611_200), Some(32_000)));
    assert!((number("hours") - 24.0).abs() < 0.1 && (number("dollars") - 672.0).abs() < 2.0, "{plan}");
    assert_eq!(plan["formula"], "6N+6LCT");
    assert_eq!(plan["micro_batch"], 16, "what the published run took is what fits: {plan}");
    let parts: u64 = ["weights", "gradients", "optimizer", "activations", "between_updates"]
        .map(|part| plan["memory_bytes"][part].as_u64().expect(part))
        .iter()
        .sum();
    assert_eq!(Some(parts), plan["memory_bytes"]["total"].as_u64());
    let one = plan["scale"][0]["hours"].as_f64().expect("hours");
    assert!((one / number("hours") - 8.0).abs() < 1e-9, "one card takes eight times as long: {plan}");
    assert_eq!(plan["scale"][2]["cards"], 100_000);
}

#[test]
fn cards_that_have_no_sequence_make_nothing_faster() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runs/gpt2-124m.toml");
    let plan = |gpu: &str| json(&done(&["plan", file, "--gpu", gpu, "--mfu", "0.5", "--json"]));
    let hours = |plan: &Value| plan["hours"].as_f64().expect("hours");
    // 512 sequences an update: 32 for each of 16 cards, one for 512 cards, none for all others.
    let (eight, sixteen, all, more) = (plan("8xH100"), plan("16xH100"), plan("512xH100"), plan("4096xH100"));
    assert_eq!((eight["micro_batch"].as_u64(), sixteen["micro_batch"].as_u64()), (Some(64), Some(32)), "{sixteen}");
    assert_eq!(eight["notes"].as_array().map(Vec::len), Some(0), "{eight}");
    assert!((hours(&eight) / hours(&sixteen) - 2.0).abs() < 1e-9 && (hours(&all) / hours(&more) - 1.0).abs() < 1e-9);
    assert_eq!((more["cards_with_work"].as_u64(), more["micro_batch"].as_u64()), (Some(512), Some(1)), "{more}");
    assert!(
        (more["dollars"].as_f64().expect("dollars") / all["dollars"].as_f64().expect("dollars") - 8.0).abs() < 1e-9
    );
    let text = done(&["plan", file, "--gpu", "4096xH100"]);
    let lines: Vec<&str> = text.lines().collect();
    let at =
        lines.iter().position(|line| *line == "note: an update has 512 sequences: 3,584 of the 4,096 cards have none");
    let hint = at.and_then(|i| lines.get(i + 1)).expect("a line of its own, and a hint");
    assert_eq!(
        *hint,
        "hint: --batch-tokens 4194304 gives each a sequence; --gpu \"512xH100 SXM\" takes as long for less"
    );
    done(&["plan", file, "--gpu", "512xH100 SXM"]);
    // The lesson's run at 48.19 % on 100,000 cards: 1,024 of them work, 24 hours · 8 / 1,024.
    let flags = ["--gpu", "8xH100", "--mfu", "0.4819"];
    let lesson = json(&done(&[&THE_RUN_OF_THE_LESSON[..], &flags].concat()));
    let least = lesson["scale"][2]["hours"].as_f64().expect("hours") * 60.0;
    assert!((least - 24.0 * 60.0 * 8.0 / 1024.0).abs() < 0.1, "{least} minutes");
}

#[test]
fn without_utilisation_and_price_both_come_from_dated_tables() {
    let plan = json(&done(&[&THE_RUN_OF_THE_LESSON[..], &["--gpu", "8xh100"]].concat()));
    let hours = plan["hours"].as_f64().expect("hours");
    assert!((24.0..26.0).contains(&hours), "{plan}");
    assert!(plan["price_from"].as_str().is_some_and(|from| from.contains("2026-05")), "{plan}");
    let folder = Folder::new("prices");
    let own = folder.join("prices.toml");
    let row =
        "[[price]]\ncard = \"H100 SXM\"\nwhat = \"ours\"\nlow = 2\nhigh = 2\ndate = \"2026-11\"\ndefault = true\n";
    std::fs::write(&own, row).expect("written");
    let flags = ["--gpu", "8xh100", "--prices", &own.display().to_string()];
    let cheaper = json(&done(&[&THE_RUN_OF_THE_LESSON[..], &flags].concat()));
    assert!((cheaper["dollars"].as_f64().expect("dollars") - 16.0 * hours).abs() < 0.01);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |flags: &[&str], code: i32, says: &str| {
        let output = corella(&[&THE_RUN_OF_THE_LESSON[..], flags].concat());
        let message = stderr(&output);
        assert!(output.status.code() == Some(code) && message.contains(says), "{flags:?}: {message}");
    };
    refused(&["--gpu", "8xH100", "--mfu", "1.21"], 2, "impossible");
    refused(&["--gpu", "8xT1000"], 2, "no card is called T1000");
    refused(&["--tokens", "1.5"], 2, "33.55B");
    refused(&["--gpu", "manyxH100"], 2, "no card is called");
    refused(&["--gpu", "8xH100", "--prices", "/does/not/exist"], 1, "does/not/exist");

    let folder = Folder::new("too-large");
    let text = folder.text().display().to_string();
    let out = folder.join("run").display().to_string();
    let args = [small_run(&text, &out, "1"), vec!["--micro-batch", "100000000"]].concat();
    let message = stderr(&corella(&args));
    assert!(message.contains("GiB are available") && message.contains("hint: a smaller --micro-batch"), "{message}");
}

#[test]
fn an_automatic_micro_batch_fills_the_memory_that_it_is_given() {
    let plan = |memory: &str, samples: &str| {
        let shape = ["plan", "--model", "gpt2-124m", "--tokens", "65536", "--batch-tokens", "65536"];
        let room = ["--micro-batch", "auto", "--memory", memory, "--sample-every", samples, "--json"];
        json(&done(&[&shape[..], &room].concat()))
    };
    let total = |plan: &Value| plan["memory_bytes"]["total"].as_u64().expect("bytes");
    let (small, large) = (plan("4GiB", "0"), plan("12GiB", "0"));
    assert!(total(&small) <= 4 << 30 && total(&large) <= 12 << 30, "{small} {large}");
    assert_eq!((small["micro_batch"].as_u64(), large["micro_batch"].as_u64()), (Some(4), Some(16)));
    // A sample needs the weights once more.
    let sampling = plan("4GiB", "100");
    assert_eq!(sampling["micro_batch"], 2, "{sampling}");
    let beside = |plan: &Value| plan["memory_bytes"]["between_updates"].as_u64().expect("bytes");
    assert_eq!(beside(&sampling) - beside(&small), 4 * 124_439_808);
    assert_eq!(beside(&small), 4 * 50_257 * 768, "the largest tensor, for a checkpoint");
    let planned = |flags: &[&str]| {
        let output = corella(&[&["plan", "--model", "gpt2-124m", "--tokens", "65536"], flags].concat());
        (output.status.code(), stderr(&output))
    };
    let (code, message) = planned(&["--batch-tokens", "65536", "--micro-batch", "auto", "--memory", "1GiB"]);
    assert!(code == Some(1) && message.contains("1.00 GiB are available"), "{message}");
    for beside in [&[][..], &["--micro-batch", "4"]] {
        let (code, message) = planned(&[&["--memory", "4GiB"], beside].concat());
        assert!(code == Some(2) && message.contains("--micro-batch auto"), "{message}");
    }
}

#[test]
fn an_automatic_micro_batch_trains_and_is_written_down() {
    let folder = Folder::new("auto");
    let text = folder.text().display().to_string();
    let out = folder.join("run");
    let path = out.display().to_string();
    let printed =
        done(&[small_run(&text, &path, "2"), vec!["--micro-batch", "auto", "--batch-tokens", "512"]].concat());
    assert!(printed.contains("512 tokens = micro-batch 16 × 32 × 1"), "{printed}");
    assert!(printed.contains("time: about") && printed.contains("6N+6LCT"), "{printed}");
    assert!(printed.contains("validation loss before the first update: "), "{printed}");
    let plan = std::fs::read_to_string(out.join("run.toml")).expect("a plan");
    assert!(plan.contains("micro_batch = 16"), "{plan}");
}

#[test]
fn flags_win_over_the_run_file_even_with_the_value_that_is_the_default() {
    let folder = Folder::new("flags");
    let text = folder.text().display().to_string();
    let (first, second) = (folder.join("first"), folder.join("second"));
    let out = first.display().to_string();
    done(&[small_run(&text, &out, "2"), vec!["--seed", "7", "--recompute", "--lr", "0.01", "--keep", "5"]].concat());
    let file = first.join("run.toml").display().to_string();
    let out = second.display().to_string();
    let flags =
        ["--seed", "42", "--recompute=false", "--lr", "0.002", "--tokens", "384", "--schedule", "linear", "--json"];
    let printed = done(&[&["train", &file, "--out", &out][..], &flags].concat());
    // A stream of objects: one of each update, the result last.
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), lines[2]["step"].as_u64(), lines[3]["state"].as_str()), (4, Some(3), Some("finished")));
    let plan = |dir: &std::path::Path| -> toml::Table {
        std::fs::read_to_string(dir.join("run.toml")).expect("a plan").parse().expect("TOML")
    };
    let (mut before, after) = (plan(&first), plan(&second));
    let train = before["train"].as_table_mut().expect("a section");
    for (key, value) in [("seed", 42.into()), ("recompute", false.into()), ("lr", 0.002.into()), ("steps", 3.into())] {
        train.insert(key.to_owned(), value);
    }
    train.insert("schedule".to_owned(), "linear".into());
    assert_eq!(before, after, "all else is the file's");
    let weights = |dir: &std::path::Path, step: u32| {
        std::fs::read(dir.join(format!("checkpoints/step-{step:08}/model.safetensors"))).expect("weights")
    };
    assert!(weights(&first, 2) != weights(&second, 3));
}

#[test]
fn a_processor_is_planned_by_the_peak_of_the_format() {
    let plan = |dtype: &str| {
        let flags = ["plan", "--model", "gpt2-124m", "--tokens", "1000000", "--dtype", dtype, "--json"];
        json(&done(&flags))
    };
    for dtype in ["f32", "bf16"] {
        let found = plan(dtype);
        assert_eq!((found["dtype"].as_str(), found["peak_from"].as_str()), (Some(dtype), Some("measured now")));
        let mfu = found["mfu"].as_f64().expect("a share");
        assert!(mfu > 0.01 && mfu <= 0.42, "{found}");
        let number = |key: &str| found[key].as_f64().expect(key);
        let hours = number("flops") / (number("peak_tflops") * 1e12 * mfu * 3600.0);
        assert!((number("hours") / hours - 1.0).abs() < 1e-9, "{found}");
    }
}

#[test]
fn every_run_file_is_a_plan() {
    let runs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runs");
    let mut planned = 0;
    for entry in std::fs::read_dir(runs).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a run file");
        let (head, _) = text.split_once("[model]").expect("a model");
        for word in ["parameters", "tokens", "operations", "corella train"] {
            assert!(head.contains(word), "{}: the head lacks {word}", path.display());
        }
        // Runs from given weights are planned where the weights are.
        if !text.contains("init_from") {
            let plan = json(&done(&["plan", &path.display().to_string(), "--gpu", "8xH100", "--json"]));
            let written = plan["parameters"].as_u64().expect("a number");
            if head.contains("GPT-2") {
                let digits = head.replace(',', "");
                assert!(digits.contains(&format!("= {written}")), "{}: {written} parameters", path.display());
            }
            assert_eq!(plan["fits"], true, "{}: {plan}", path.display());
            planned += 1;
        }
    }
    assert_eq!(planned, 8);
}

#[test]
fn a_card_is_planned_by_the_peak_of_the_runs_format() {
    let plan = |gpu: &str, flags: &[&str]| {
        let shape = ["plan", "--model", "gpt2-124m", "--tokens", "1e9", "--json", "--gpu", gpu];
        json(&done(&[&shape[..], flags].concat()))
    };
    let (bf16, f32) = (plan("H200", &["--dtype", "bf16"]), plan("H200", &["--dtype", "f32"]));
    let number = |plan: &Value, key: &str| plan[key].as_f64().unwrap_or_else(|| panic!("{key}: {plan}"));
    assert_eq!((number(&bf16, "peak_tflops"), number(&f32, "peak_tflops")), (989.0, 67.0));
    assert_eq!((bf16["dtype"].as_str(), f32["dtype"].as_str()), (Some("bf16"), Some("f32")));
    assert!(number(&f32, "hours") > 5.0 * number(&bf16, "hours"), "{f32}");
    assert!(number(&f32, "dollars") > 5.0 * number(&bf16, "dollars"), "{f32}");
    assert_eq!(f32["memory_bytes"]["weights"].as_u64(), Some(4 * 124_439_808));
    // No peak in f32 was published for this one.
    let unknown = plan("8xH800", &["--dtype", "f32", "--mfu", "0.5"]);
    assert!(unknown["hours"].is_null() && unknown["mfu"].is_null(), "{unknown}");
    let text = done(&["plan", "--model", "gpt2-124m", "--tokens", "1e9", "--gpu", "8xH800", "--dtype", "f32"]);
    assert!(text.contains("time: not planned, the peak of H800 in f32 is not known"), "{text}");
    assert!(!text.contains("price:") && !text.contains("% utilisation"), "{text}");
}

#[test]
fn recomputing_is_charged() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runs/gpt2-1558m.toml");
    let plan = |flags: &[&str]| json(&done(&[&["plan", file, "--gpu", "8xH100", "--json"], flags].concat()));
    let (once, twice) = (plan(&[]), plan(&["--recompute"]));
    let number = |plan: &Value, key: &str| plan[key].as_f64().expect(key);
    let times = number(&twice, "hours") / number(&once, "hours");
    assert!((1.25..1.34).contains(&times), "{times}");
    assert_eq!(once["flops"], twice["flops"], "the model's own operations are as many");
    assert!((times * number(&twice, "mfu") / number(&once, "mfu") - 1.0).abs() < 1e-9);
    let text = done(&["plan", file, "--gpu", "8xH100", "--recompute"]);
    assert!(text.contains("recompute: ") && text.contains("more operations"), "{text}");
}

#[test]
fn a_plan_says_what_the_program_cannot_do_and_how_an_update_is_made_up() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runs/gpt2-1558m.toml");
    let text = done(&["plan", file, "--gpu", "8xH100"]);
    for line in [
        "gpt2-1558m: 1,557,611,200 parameters",
        "update: 1,048,576 tokens = micro-batch 16 × 1,024 × 8 cards × 8 accumulation steps",
        "disk: 74.77 GB for at most 4 checkpoints of 18.69 GB",
        "note: corella trains on one card so far; this is what 8 would take",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing: {text}");
    }
    let plan = |gpu: &str| json(&done(&["plan", file, "--gpu", gpu, "--json"]));
    assert!(plan("8xH100")["not_yet"].as_str().is_some_and(|what| what.contains("one card so far")));
    assert!(plan("H200")["not_yet"].is_null());
    // Years, and dollars in groups.
    let long = done(&["plan", file, "--gpu", "H100", "--tokens", "3000000e9"]);
    assert!(long.contains("y") && long.contains("price: $") && long.contains(",000"), "{long}");
}

#[test]
fn what_does_not_fit_has_a_way_out_and_no_price() {
    let file = |name: &str| format!("{}/../../runs/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = done(&["plan", &file("gpt2-1558m"), "--gpu", "4090"]);
    assert!(text.contains("DOES NOT FIT: 22.4 GiB are available\nhint: not even one sequence"), "{text}");
    assert!(!text.contains("price:") && !text.contains("time:"), "{text}");
    let text = done(&["plan", &file("gpt2-774m"), "--gpu", "4090"]);
    let flags: Vec<&str> = text
        .split("hint: it fits with ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .expect("a way out")
        .split(' ')
        .collect();
    let smaller = done(&[&["plan", &file("gpt2-774m"), "--gpu", "4090"], &flags[..]].concat());
    assert!(smaller.contains("fits into") && smaller.contains("price:"), "{flags:?}: {smaller}");
    let document = json(&done(&["plan", &file("gpt2-1558m"), "--gpu", "4090", "--json"]));
    assert!(
        document["fits"] == false && document["dollars"].is_null() && document["way_out"].is_string(),
        "{document}"
    );
}

#[test]
fn a_published_shape_is_planned_with_its_published_batch() {
    let plan = |flags: &[&str]| {
        let shape = ["plan", "--model", "gpt2-124m", "--tokens", "10B", "--gpu", "8xH100", "--json"];
        json(&done(&[&shape[..], flags].concat()))
    };
    let found = plan(&[]);
    assert_eq!((found["tokens_per_step"].as_u64(), found["dtype"].as_str()), (Some(524_288), Some("bf16")), "{found}");
    assert!(found["notes"][0].as_str().is_some_and(|note| note.contains("--batch-tokens 524288")), "{found}");
    let own = plan(&["--batch-tokens", "65536", "--dtype", "f32"]);
    assert_eq!((own["tokens_per_step"].as_u64(), own["dtype"].as_str()), (Some(65_536), Some("f32")), "{own}");
    let message = stderr(&corella(&["plan"]));
    assert!(message.contains("--model gpt2-124m --tokens N --batch-tokens 524288"), "{message}");
}
