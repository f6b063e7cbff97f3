//! The whole backend on an emulated card: its launches, its geometry and its kernels.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use corella_cuda::Cuda;
use corella_cuda::kernels::SOURCES;
use corella_model::gpt2::Gpt2Config;
use corella_model::llama::LlamaConfig;
use corella_ops::Dtype;

use crate::apart::apart;
use crate::card::EmulatedCard;
use crate::emulator::Watch;
use crate::suite;

fn card(backwards: bool) -> Option<Cuda> {
    Some(Cuda::new(EmulatedCard::new(backwards)?, suite::cpu()))
}

#[test]
fn every_operation_agrees_with_the_reference() {
    apart(|| {
        if let Some(ops) = card(false) {
            suite::operations(&ops);
        }
    });
}

#[test]
fn the_order_of_blocks_and_threads_changes_no_bit() {
    apart(|| {
        if let (Some(one), Some(other)) = (card(false), card(true)) {
            suite::same_bits(&one, &other);
        }
    });
}

#[test]
fn ten_updates_go_as_on_the_processor() {
    apart(|| {
        if card(false).is_some() {
            suite::updates_agree(|| card(false).expect("the compiler was there"), 97, 10);
        }
    });
}

#[test]
fn training_agrees_with_transformers() {
    apart(|| {
        if card(false).is_some() {
            let another = || card(false).expect("the compiler was there");
            suite::goldens::training_agrees_with_transformers::<Gpt2Config>(another);
            suite::goldens::training_agrees_with_transformers::<LlamaConfig>(another);
        }
    });
}

#[test]
fn every_operation_of_inference_agrees_with_the_reference() {
    apart(|| {
        if let Some(ops) = card(false) {
            suite::inference::operations(&ops);
            suite::inference::a_copied_page_is_read_like_the_first(&ops);
            suite::inference::one_stretch_has_the_bits_of_several(&ops);
            suite::inference::products(&ops.with_batch_invariance());
        }
    });
}

#[test]
fn the_order_of_blocks_and_threads_changes_no_bit_of_inference() {
    apart(|| {
        if let (Some(one), Some(other)) = (card(false), card(true)) {
            suite::inference::same_bits(&one, &other);
        }
    });
}

#[test]
fn rows_do_not_depend_on_the_batch_where_that_is_promised() {
    apart(|| {
        if let Some(ops) = card(false) {
            suite::inference::rows_do_not_depend_on_the_batch(&ops.with_batch_invariance());
        }
    });
}

#[test]
fn few_rows_do_not_depend_on_the_batch() {
    apart(|| {
        if let Some(ops) = card(false) {
            suite::inference::few_rows_do_not_depend_on_the_batch(&ops);
        }
    });
}

#[test]
fn models_step_as_they_should() {
    apart(|| {
        if let Some(ops) = card(false) {
            let another = || card(false).expect("the compiler was there");
            suite::steps::llama_agrees_with_transformers(ops);
            suite::steps::models_agree_with_the_processor(another, suite::cpu);
            suite::steps::pieces_change_no_bit(another);
        }
    });
}

#[test]
fn recorded_steps_change_no_bit() {
    apart(|| {
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
    });
}

#[test]
fn padded_steps_change_no_bit() {
    apart(|| {
        if let Some(ops) = card(false) {
            let another = || card(false).expect("the compiler was there").with_batch_invariance();
            suite::recorded::rows_of_padding_touch_nobody(ops.with_batch_invariance(), another);
        }
    });
}

#[test]
fn draws_are_the_samplers() {
    apart(|| {
        for backwards in [false, true] {
            let Some(ops) = card(backwards) else { return };
            suite::draws::draws_are_the_samplers(&ops, 97);
            suite::draws::draws_are_the_samplers(&ops, 1301);
            suite::draws::the_whole_range_of_bits_is_used(&ops);
            suite::draws::a_row_that_is_not_numbers_has_no_token(&ops);
        }
    });
}

/// Which kernels a test of races runs.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    Training,
    Inference,
}

/// Runs work on cards that stop where threads share memory without a barrier; they must have run all kernels of that work.
fn watch(work: Work, run: impl FnOnce(&dyn Fn() -> EmulatedCard)) {
    let Some(first) = EmulatedCard::watching(Watch::Races, false) else { return };
    run(&|| {
        let mut card = EmulatedCard::watching(Watch::Races, false).expect("the compiler was there");
        card.launched = first.launched.clone();
        card
    });
    let of_inference = |file: &str| ["paged_", "draw", "linear_", "lookup"].iter().any(|start| file.starts_with(start));
    let launched = first.launched.lock().expect("nobody panicked");
    let all = SOURCES.iter().filter(|source| of_inference(source.name) == (work == Work::Inference));
    let all = all.flat_map(|source| source.entries).filter(|entry| **entry != "read_all");
    let left: Vec<&&str> = all.filter(|entry| !launched.contains(**entry)).collect();
    assert!(left.is_empty(), "kernels that no case runs: {left:?}");
}

#[test]
fn no_kernel_of_training_races() {
    apart(|| {
        watch(Work::Training, |card| {
            let ops = Cuda::new(card(), suite::cpu());
            for case in &suite::of_all_kernels() {
                case.run(&ops, Dtype::Bf16).expect("runs");
            }
            let mut hopper = card();
            hopper.by_blocks = true;
            let hopper = Cuda::new(hopper, suite::cpu());
            for case in suite::of_all_kernels().iter().filter(|case| case.name.starts_with("attention")) {
                case.run(&hopper, Dtype::Bf16).expect("runs");
            }
        });
    });
}

/// In bf16 all kernels have a part but some of products: those of rows in f32, and those of batch invariance.
#[test]
fn no_kernel_of_inference_races() {
    apart(|| {
        watch(Work::Inference, |card| {
            suite::inference::products(&Cuda::new(card(), suite::cpu()).with_batch_invariance());
            let ops = Cuda::new(card(), suite::cpu());
            for case in &suite::inference::of_all_kernels() {
                case.run(&ops, Dtype::Bf16).expect("runs");
            }
            for case in suite::inference::of_all_kernels().iter().filter(|case| case.name.starts_with("linear")) {
                case.run(&ops, Dtype::F32).expect("runs");
            }
            suite::inference::few_rows_do_not_depend_on_the_batch(&ops);
            suite::draws::draws_are_the_samplers(&ops, 97);
        });
    });
}
