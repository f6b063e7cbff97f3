//! The whole backend on an emulated card: its launches, its geometry and its kernels.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use corella_cuda::Cuda;
use corella_cuda::kernels::SOURCES;
use corella_model::gpt2::Gpt2Config;
use corella_model::llama::LlamaConfig;
use corella_ops::Dtype;

use crate::card::EmulatedCard;
use crate::emulator::Watch;
use crate::suite;

fn card(backwards: bool) -> Option<Cuda> {
    Some(Cuda::new(EmulatedCard::new(backwards)?, suite::cpu()))
}

#[test]
fn every_operation_agrees_with_the_reference() {
    if let Some(ops) = card(false) {
        suite::operations(&ops);
    }
}

#[test]
fn the_order_of_blocks_and_threads_changes_no_bit() {
    if let (Some(one), Some(other)) = (card(false), card(true)) {
        suite::same_bits(&one, &other);
    }
}

#[test]
fn ten_updates_go_as_on_the_processor() {
    if card(false).is_some() {
        suite::updates_agree(|| card(false).expect("the compiler was there"), 97, 10);
    }
}

#[test]
fn training_agrees_with_transformers() {
    if card(false).is_some() {
        let another = || card(false).expect("the compiler was there");
        suite::goldens::training_agrees_with_transformers::<Gpt2Config>(another);
        suite::goldens::training_agrees_with_transformers::<LlamaConfig>(another);
    }
}

#[test]
fn every_operation_of_inference_agrees_with_the_reference() {
    if let Some(ops) = card(false) {
        suite::inference::operations(&ops);
        suite::inference::a_copied_page_is_read_like_the_first(&ops);
        suite::inference::one_stretch_has_the_bits_of_several(&ops);
        suite::inference::products(&ops.with_batch_invariance());
    }
}

#[test]
fn the_order_of_blocks_and_threads_changes_no_bit_of_inference() {
    if let (Some(one), Some(other)) = (card(false), card(true)) {
        suite::inference::same_bits(&one, &other);
    }
}

#[test]
fn rows_do_not_depend_on_the_batch_where_that_is_promised() {
    if let Some(ops) = card(false) {
        suite::inference::rows_do_not_depend_on_the_batch(&ops.with_batch_invariance());
    }
}

#[test]
fn few_rows_do_not_depend_on_the_batch() {
    if let Some(ops) = card(false) {
        suite::inference::few_rows_do_not_depend_on_the_batch(&ops);
    }
}

#[test]
fn models_step_as_they_should() {
    if let Some(ops) = card(false) {
        let another = || card(false).expect("the compiler was there");
        suite::steps::llama_agrees_with_transformers(ops);
        suite::steps::models_agree_with_the_processor(another, suite::cpu);
        suite::steps::pieces_change_no_bit(another);
    }
}

#[test]
fn recorded_steps_change_no_bit() {
    if card(false).is_none() {
        return;
    }
    let replays = Arc::new(AtomicUsize::new(0));
    let on = |records, refuses| {
        let mut card = EmulatedCard::new(false).expect("the compiler was there");
        card.records = records;
        card.refuses = AtomicUsize::new(refuses);
        card.replays = replays.clone();
        Cuda::new(card, suite::cpu())
    };
    suite::recorded::recorded_steps_change_no_bit(|| on(true, 0), || on(false, 0));
    // Of the steps of single tokens all but the first of each shape.
    let all = replays.swap(0, Ordering::Relaxed);
    assert!(all >= 16, "{all}");
    // A recording that is not kept is tried once more, for each of the two models, and no third time.
    suite::recorded::recorded_steps_change_no_bit(|| on(true, 1), || on(false, 0));
    assert_eq!(replays.swap(0, Ordering::Relaxed), all - 2);
    suite::recorded::recorded_steps_change_no_bit(|| on(true, 2), || on(false, 0));
    assert_eq!(replays.load(Ordering::Relaxed), 0);
}

#[test]
fn padded_steps_change_no_bit() {
    if let Some(ops) = card(false) {
        let another = || card(false).expect("the compiler was there").with_batch_invariance();
        suite::recorded::rows_of_padding_touch_nobody(ops.with_batch_invariance(), another);
    }
}

#[test]
fn draws_are_the_samplers() {
    for backwards in [false, true] {
        let Some(ops) = card(backwards) else { return };
        suite::draws::draws_are_the_samplers(&ops, 97);
        suite::draws::draws_are_the_samplers(&ops, 1301);
        suite::draws::the_whole_range_of_bits_is_used(&ops);
    }
}

/// Every kernel on a card that stops where threads share memory without a barrier. In bf16 all have a part but some of products:
/// those of rows in f32, and those of batch invariance.
#[test]
fn no_kernel_races() {
    let Some(card) = EmulatedCard::watching(Watch::Races, false) else { return };
    let launched = card.launched.clone();
    let mut another = EmulatedCard::watching(Watch::Races, false).expect("the compiler was there");
    another.launched = launched.clone();
    suite::inference::products(&Cuda::new(another, suite::cpu()).with_batch_invariance());
    let ops = Cuda::new(card, suite::cpu());
    for case in suite::of_all_kernels().iter().chain(&suite::inference::of_all_kernels()) {
        case.run(&ops, Dtype::Bf16).expect("runs");
    }
    let mut hopper = EmulatedCard::watching(Watch::Races, false).expect("the compiler was there");
    (hopper.by_blocks, hopper.launched) = (true, launched.clone());
    let hopper = Cuda::new(hopper, suite::cpu());
    for case in suite::of_all_kernels().iter().filter(|case| case.name.starts_with("attention")) {
        case.run(&hopper, Dtype::Bf16).expect("runs");
    }
    for case in suite::inference::of_all_kernels().iter().filter(|case| case.name.starts_with("linear")) {
        case.run(&ops, Dtype::F32).expect("runs");
    }
    suite::inference::few_rows_do_not_depend_on_the_batch(&ops);
    suite::draws::draws_are_the_samplers(&ops, 97);
    let launched = launched.lock().expect("nobody panicked");
    let all = SOURCES.iter().flat_map(|source| source.entries);
    let left: Vec<&&str> = all.filter(|entry| !launched.contains(**entry) && **entry != "read_all").collect();
    assert!(left.is_empty(), "kernels that no case runs: {left:?}");
}
