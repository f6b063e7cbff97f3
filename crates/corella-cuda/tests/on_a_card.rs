//! The suite on a real card, where there is one.

mod measured;
mod suite;

use corella_cuda::{Card, Cuda, CudaError};
use corella_model::gpt2::Gpt2Config;
use corella_model::llama::LlamaConfig;

/// The first card, or `None` with a message where CUDA or a card is missing.
fn bare_card() -> Option<Card> {
    match Card::open(0) {
        Ok(card) => Some(card),
        // A card with a library that fails is no reason to pass.
        Err(error @ (CudaError::Missing { .. } | CudaError::NoCard { .. })) => {
            println!("skipped: no CUDA device ({error})");
            None
        }
        Err(CudaError::Call { call: "cuInit", why }) => {
            println!("skipped: no CUDA device ({why})");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The backend on it.
fn card() -> Option<Cuda> {
    Some(Cuda::new(bare_card()?, suite::cpu()))
}

#[test]
fn every_operation_agrees_with_the_reference() {
    if let Some(ops) = card() {
        suite::operations(&ops);
    }
}

#[test]
fn measured_products_are_products() {
    // The second finds the choices of the first.
    for card in [bare_card(), bare_card()].into_iter().flatten() {
        measured::measured_products_are_products(&card).expect("a card that works");
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    if let (Some(one), Some(other)) = (card(), card()) {
        suite::same_bits(&one, &other);
    }
}

#[test]
fn ten_updates_go_as_on_the_processor() {
    if card().is_some() {
        let another = || card().expect("the card that was there");
        suite::updates_agree(another, 97, 10);
        // GPT-2's tokens: their logits take all the shared memory that a block can have.
        suite::updates_agree(another, 50_257, 2);
    }
}

#[test]
fn training_agrees_with_transformers() {
    if card().is_some() {
        let another = || card().expect("the card that was there");
        suite::goldens::training_agrees_with_transformers::<Gpt2Config>(another);
        suite::goldens::training_agrees_with_transformers::<LlamaConfig>(another);
    }
}

#[test]
fn every_operation_of_inference_agrees_with_the_reference() {
    if let Some(ops) = card() {
        suite::inference::operations(&ops);
        suite::inference::a_copied_page_is_read_like_the_first(&ops);
        suite::inference::one_stretch_has_the_bits_of_several(&ops);
        suite::inference::products(&ops.with_batch_invariance());
    }
}

#[test]
fn two_runs_of_inference_give_the_same_bits() {
    if let (Some(one), Some(other)) = (card(), card()) {
        suite::inference::same_bits(&one, &other);
    }
}

#[test]
fn rows_do_not_depend_on_the_batch_where_that_is_promised() {
    if let Some(ops) = card() {
        suite::inference::rows_do_not_depend_on_the_batch(&ops.with_batch_invariance());
    }
}

#[test]
fn few_rows_do_not_depend_on_the_batch() {
    if let Some(ops) = card() {
        suite::inference::few_rows_do_not_depend_on_the_batch(&ops);
    }
}

#[test]
fn models_step_as_they_should() {
    if let Some(ops) = card() {
        let another = || card().expect("the card that was there");
        suite::steps::llama_agrees_with_transformers(ops);
        suite::steps::models_agree_with_the_processor(another, suite::cpu);
        suite::steps::pieces_change_no_bit(another);
    }
}

#[test]
fn recorded_steps_change_no_bit() {
    if card().is_some() {
        let another = || card().expect("the card that was there");
        suite::recorded::recorded_steps_change_no_bit(another, || another().with_plain_launches());
        let invariant = || another().with_batch_invariance();
        suite::recorded::rows_of_padding_touch_nobody(invariant(), invariant);
    }
}

#[test]
fn draws_are_the_samplers() {
    if let Some(ops) = card() {
        for v in [97, 5003, 128_256] {
            suite::draws::draws_are_the_samplers(&ops, v);
        }
        suite::draws::the_whole_range_of_bits_is_used(&ops);
    }
}
