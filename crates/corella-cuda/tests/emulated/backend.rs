//! The whole backend on an emulated card: its launches, its geometry and its kernels.

use corella_cuda::Cuda;

use crate::card::EmulatedCard;
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
        suite::ten_updates(|| card(false).expect("the compiler was there"));
    }
}

#[test]
fn every_operation_of_inference_agrees_with_the_reference() {
    if let Some(ops) = card(false) {
        suite::inference::operations(&ops);
        suite::inference::a_copied_page_is_read_like_the_first(&ops);
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
fn models_step_as_they_should() {
    if let Some(ops) = card(false) {
        let another = || card(false).expect("the compiler was there");
        suite::steps::llama_agrees_with_transformers(ops);
        suite::steps::models_agree_with_the_processor(another, suite::cpu);
        suite::steps::pieces_change_no_bit(another);
    }
}
