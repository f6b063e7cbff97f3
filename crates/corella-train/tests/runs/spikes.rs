//! Updates that stand out are left out, and the windows that tell them go on with a run.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::common::small_run::{Watch, log, run};
use crate::common::{folder, rows};
use corella_text::data::{Dataset, Order};
use corella_train::{OutputPlan, train};

#[test]
fn a_stretch_of_rubbish_in_the_data_is_left_out_and_training_goes_on() {
    let dir = folder("spike");
    let mut run = run(&dir, false);
    // The same sentence again and again, in the order of the file, with one batch of bytes that never occurred before.
    let usual = run.data.tokenizer.encode("Brael is known for its glass bells. ");
    let mut tokens: Vec<u32> = usual.iter().copied().cycle().take(64 * 120).collect();
    let rubbish: Vec<u32> = (0..63).map(|i| 200 + i % 50).collect();
    // One further than the batch begins: its first token is the last target of the batch before.
    let (at, before) = (64 * 100 + 1, tokens.len());
    tokens.splice(at..at + 63, rubbish);
    assert_eq!(tokens.len(), before);
    run.data = Dataset::from_parts(run.data.tokenizer.clone(), tokens, Vec::new());
    run.plan.data.order = Order::File;
    run.plan.train.steps = 118;
    run.plan.train.spike_window = 32;
    run.plan.output = OutputPlan { checkpoint_every: 0, sample_every: 0, val_every: 0, ..OutputPlan::default() };
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: u64::MAX, stop: &stop };
    train(&mut run, &mut watch, &stop).expect("trains");
    let mut skipped = rows(&dir.join("log.jsonl"));
    skipped.retain(|row| !row["skipped"].is_null());
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    let row = &skipped[0];
    assert_eq!((row["step"].as_u64(), row["skipped"].as_str()), (Some(101), Some("loss spike")), "{row}");
    let (before, after) = (watch.losses[99].1, watch.losses[101].1);
    assert!(after < before + 0.1, "the rubbish left no trace: {before} before, {after} after");
}

#[test]
fn the_windows_of_spikes_go_on_where_they_stopped() {
    let (whole, parts) = (folder("spikes-whole"), folder("spikes-parts"));
    let go = |dir: &Path, resume: bool, stop_after: u64| {
        let stop = AtomicBool::new(false);
        let mut watch = Watch { losses: Vec::new(), stop_after, stop: &stop };
        let mut run = run(dir, resume);
        run.plan.train.spike_window = 4;
        train(&mut run, &mut watch, &stop).expect("trains");
    };
    go(&whole, false, u64::MAX);
    go(&parts, false, 9);
    go(&parts, true, u64::MAX);
    let expected = log(&whole);
    // The validation before the first update is a line too; the window is full behind the fourth.
    let scored = rows(&whole.join("log.jsonl")).iter().filter(|row| row["z_loss"].is_f64()).count();
    assert_eq!((expected.len(), scored), (21, 16), "{expected:?}");
    assert_eq!(log(&parts), expected);
}
