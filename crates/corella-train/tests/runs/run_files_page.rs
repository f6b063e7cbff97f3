//! docs/run-files.md has every key that a run file may have, with its default.

use std::fs;
use std::path::Path;

use corella_train::{CommandPlan, CostPlan, DataPlan, ModelPlan, OutputPlan, RunPlan, TrainPlan};

/// Every key set: what is left out where it is absent has a value.
fn whole() -> RunPlan {
    RunPlan {
        model: ModelPlan {
            name: "llama-custom".into(),
            n_layer: 4,
            n_head: 4,
            n_embd: 256,
            n_kv_head: Some(2),
            n_ff: Some(704),
            tied: Some(true),
            seq_len: 256,
            vocab_size: 2048,
        },
        data: DataPlan { path: "my.txt".into(), tokenizer: "own".into(), order: Default::default() },
        train: TrainPlan { warmup_steps: Some(40), init_from: Some("model".into()), ..TrainPlan::default() },
        output: OutputPlan::default(),
        commands: CommandPlan { on_checkpoint: Some("a".into()), on_failure: Some("b".into()) },
        cost: CostPlan { price_per_hour: Some(1.0), watts: Some(1.0) },
    }
}

/// The rows of the page's tables: table of the run file, key, default as it is written there.
fn rows(page: &str) -> Vec<(String, String, String)> {
    let mut tables: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            tables =
                title.split('`').filter_map(|t| Some(t.strip_prefix('[')?.strip_suffix(']')?.to_owned())).collect();
        }
        let Some((keys, rest)) = line.strip_prefix("| `").and_then(|line| line.split_once(" | ")) else { continue };
        let defaults: Vec<&str> = rest.split(" | ").next().unwrap_or_default().split(", ").collect();
        for (i, key) in keys.split(", ").enumerate() {
            let default = defaults.get(i).copied().unwrap_or_default();
            let entry = |table: &String| (table.clone(), key.replace('`', ""), default.replace('`', ""));
            found.extend(tables.iter().map(entry));
        }
    }
    found
}

#[test]
fn every_key_stands_on_the_page_with_its_default() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/run-files.md");
    let rows = rows(&fs::read_to_string(page).expect("a page"));
    let written: toml::Table = whole().to_toml().expect("a run file").parse().expect("TOML");
    // Their defaults depend on what else is there.
    let worded = ["warmup_steps", "batch_tokens", "init_from"];
    for (table, keys) in &written {
        for (key, value) in keys.as_table().expect("a table") {
            let row = rows.iter().find(|(t, k, _)| t == table && k == key);
            let Some((_, _, default)) = row else { panic!("[{table}] {key} is not on the page") };
            if ["train", "output"].contains(&table.as_str()) && !worded.contains(&key.as_str()) {
                let same = match value {
                    toml::Value::String(text) => text == default,
                    toml::Value::Float(number) => default.parse() == Ok(*number),
                    other => other.to_string() == *default,
                };
                assert!(same, "[{table}] {key} is {value}, the page says {default}");
            }
        }
    }
    for (table, key, _) in rows {
        assert!(written[&table].as_table().is_some_and(|keys| keys.contains_key(&key)), "[{table}] has no {key}");
    }
}
