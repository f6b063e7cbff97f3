//! A run goes on with the data that it began with, and trains on none that are damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::folder;
use crate::common::small_run::{Watch, go, heartbeat, run};
use corella_text::data::{Dataset, TokenStream, write_shard};
use corella_text::tokenizer::Tokenizer;
use corella_train::train;

#[test]
fn a_run_does_not_go_on_with_other_tokens_or_another_vocabulary_of_the_same_size() {
    let dir = folder("other-data");
    go(&dir, false, 4);
    let resume = |tokenizer: Tokenizer, tokens: Vec<u32>| {
        let stop = AtomicBool::new(false);
        let mut watch = Watch { losses: Vec::new(), stop_after: u64::MAX, stop: &stop };
        let mut run = run(&dir, true);
        run.data = Dataset::from_parts(tokenizer, tokens, Vec::new());
        run.plan.output.val_every = 0;
        train(&mut run, &mut watch, &stop).map(|outcome| outcome.step).map_err(|e| e.to_string())
    };
    let data = run(&dir, true).data;
    let tokens = data.train.to_vec().expect("readable");
    let mut others = tokens.clone();
    others.swap(3, 4);
    let kept = std::fs::read(dir.join("tokenizer.json")).expect("written");
    let expected = "the saved position belongs to other data: there are as many tokens, but not the same";
    assert_eq!(resume(data.tokenizer.clone(), others), Err(expected.to_owned()));
    // The same ids, and two pieces that changed places.
    let mut file: serde_json::Value = serde_json::from_str(&data.tokenizer.to_json()).expect("JSON");
    let id = |file: &serde_json::Value, piece: &str| file["model"]["vocab"][piece].clone();
    let (x, y) = (id(&file, "X"), id(&file, "Y"));
    (file["model"]["vocab"]["X"], file["model"]["vocab"]["Y"]) = (y, x);
    let other = Tokenizer::from_bytes(file.to_string().as_bytes()).expect("read");
    assert_eq!(other.vocab_size(), data.tokenizer.vocab_size());
    let refused = resume(other, tokens.clone()).expect_err("another vocabulary");
    assert!(refused.contains("tokenizer is not the one that the run began with"), "{refused}");
    assert!(std::fs::read(dir.join("tokenizer.json")).expect("there") == kept, "nothing was overwritten");

    // A state of before there were such marks.
    let state = dir.join("checkpoints/step-00000004/state.json");
    let text = std::fs::read_to_string(&state).expect("read");
    let mut older: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(older.as_object_mut().expect("an object").remove("data").is_some());
    std::fs::write(&state, older.to_string()).expect("written");
    assert_eq!(resume(data.tokenizer, tokens), Ok(20));
}

/// What `steps` updates on these tokens come to: the last update made, or the error; and how many were made in this session.
fn trained(dir: &Path, resume: bool, train_on: TokenStream, steps: u64) -> (Result<u64, String>, usize) {
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: u64::MAX, stop: &stop };
    let mut run = run(dir, resume);
    run.data = Dataset { train: train_on, val: TokenStream::in_memory(Vec::new()), ..run.data };
    (run.plan.train.steps, run.plan.train.warmup_steps) = (steps, Some(1));
    (run.plan.output.val_every, run.plan.output.sample_every) = (0, 0);
    let outcome = train(&mut run, &mut watch, &stop).map(|outcome| outcome.step).map_err(|e| e.to_string());
    (outcome, watch.losses.len())
}

fn checkpoints(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("checkpoints")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_shard_ends_a_run_before_a_checkpoint_depends_on_it() {
    let (dir, data) = (folder("damaged-data"), folder("damaged-shards"));
    fs::create_dir_all(&*data).expect("made");
    let shards: Vec<(PathBuf, u32)> = (0..3)
        .map(|i| {
            let tokens: Vec<u32> = (0..4000).map(|k| (k * 31 + i) % 256).collect();
            let path = data.join(format!("train_{i:06}.bin"));
            let noted = write_shard(&path, &tokens, 300).expect("written");
            (path, noted)
        })
        .collect();
    let open = || TokenStream::open_noted(&shards, 300).expect("shards");
    let flip = || {
        let mut bytes = fs::read(&shards[1].0).expect("a shard");
        // Any of its tokens, which stays one of the vocabulary.
        bytes[1024 + 2 * 1234] ^= 1;
        fs::write(&shards[1].0, bytes).expect("written");
    };
    flip();
    let said = trained(&dir, false, open(), 6).0.expect_err("damaged");
    assert!(said.contains("train_000001.bin: damaged: its checksum is "), "{said}");
    assert_eq!((checkpoints(&dir).len(), &heartbeat(&dir)["state"]), (0, &"failed".into()));
    flip();
    assert_eq!(trained(&dir, false, open(), 6), (Ok(6), 6));
    // What happens to the data of a run that goes on is found as well.
    flip();
    let said = trained(&dir, true, open(), 12).0.expect_err("damaged");
    assert!(said.contains("train_000001.bin: damaged"), "{said}");
    assert_eq!(checkpoints(&dir), ["step-00000006"]);
    flip();
    assert_eq!(trained(&dir, true, open(), 12), (Ok(12), 6));
}

#[test]
fn one_other_token_among_millions_is_found() {
    // More than a quick look reads: it passes over the 18,000th token.
    let tokens: Vec<u32> = (0..(1u32 << 22) + (1 << 20)).map(|k| k.wrapping_mul(2_654_435_761) >> 24).collect();
    let mut others = tokens.clone();
    others[18_000] ^= 1;
    let mark = |tokens: &[u32]| TokenStream::in_memory(tokens.to_vec()).mark().expect("readable");
    assert_eq!(mark(&tokens), mark(&others), "a quick look does not tell");
    let data = folder("million-tokens");
    fs::create_dir_all(&*data).expect("made");
    let expected =
        Err("the saved position belongs to other data: there are as many tokens, but not the same".to_owned());

    // Prepared shards, whose checksums are known: not an update is made.
    let dir = folder("million-noted");
    let noted = |name: &str, tokens: &[u32]| {
        let path = data.join(name);
        let crc = write_shard(&path, tokens, 300).expect("written");
        TokenStream::open_noted(&[(path, crc)], 300).expect("a shard")
    };
    assert_eq!(trained(&dir, false, noted("a.bin", &tokens), 2), (Ok(2), 2));
    assert_eq!(trained(&dir, true, noted("b.bin", &others), 4), (expected.clone(), 0));
    // The same tokens in a shard of another name, and in memory.
    assert_eq!(trained(&dir, true, noted("c.bin", &tokens), 4), (Ok(4), 2));
    assert_eq!(trained(&dir, true, TokenStream::in_memory(tokens.clone()), 6), (Ok(6), 2));
    assert_eq!(trained(&dir, true, TokenStream::in_memory(others.clone()), 8), (expected.clone(), 0));

    // A file of bare tokens is read while the run goes on.
    let dir = folder("million-bare");
    let bare = |name: &str, tokens: &[u32]| {
        let path = data.join(name);
        fs::write(&path, tokens.iter().flat_map(|t| (*t as u16).to_le_bytes()).collect::<Vec<u8>>()).expect("written");
        TokenStream::open(&[path], 300).expect("tokens")
    };
    assert_eq!(trained(&dir, false, bare("d.bin", &tokens), 2), (Ok(2), 2));
    assert_eq!(trained(&dir, true, bare("e.bin", &others), 4).0, expected);
    assert_eq!(checkpoints(&dir), ["step-00000002"]);
    assert_eq!(trained(&dir, true, bare("f.bin", &tokens), 4), (Ok(4), 2));
}
