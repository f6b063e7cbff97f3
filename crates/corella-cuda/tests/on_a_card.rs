//! The suite on a real card. Without one each test is reported as ignored, for the reason that is printed: never as passed.

mod measured;
mod suite;

use std::process::ExitCode;

use corella_cuda::{Card, Cuda, CudaError};
use corella_model::gpt2::Gpt2Config;
use corella_model::llama::LlamaConfig;
use libtest_mimic::{Arguments, Trial};

/// Tests by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), $name as fn())),*] };
}

fn main() -> ExitCode {
    let absent = absent();
    if let Some(why) = &absent {
        eprintln!("skipped: no CUDA device ({why})");
    }
    let tests = tests![
        every_operation_agrees_with_the_reference,
        measured_products_are_products,
        two_runs_give_the_same_bits,
        ten_updates_go_as_on_the_processor,
        training_agrees_with_transformers,
        every_operation_of_inference_agrees_with_the_reference,
        two_runs_of_inference_give_the_same_bits,
        rows_do_not_depend_on_the_batch_where_that_is_promised,
        few_rows_do_not_depend_on_the_batch,
        models_step_as_they_should,
        recorded_steps_change_no_bit,
        draws_are_the_samplers,
    ];
    let trials = tests.map(|(name, test)| {
        let trial = Trial::test(name, move || {
            test();
            Ok(())
        });
        trial.with_ignored_flag(absent.is_some())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

/// Why there is no card, where CUDA or a card is missing. A card with a library that fails is no reason to skip.
fn absent() -> Option<String> {
    match Card::open(0) {
        Err(CudaError::Call { call: "cuInit", why }) => Some(why.to_string()),
        Err(error @ (CudaError::Missing { .. } | CudaError::NoCard { .. })) => Some(error.to_string()),
        Ok(_) | Err(_) => None,
    }
}

/// The first card.
fn bare_card() -> Card {
    Card::open(0).unwrap_or_else(|error| panic!("{error}"))
}

/// The backend on it.
fn card() -> Cuda {
    Cuda::new(bare_card(), suite::cpu())
}

fn every_operation_agrees_with_the_reference() {
    suite::operations(&card());
}

fn measured_products_are_products() {
    // The second finds the choices of the first.
    for card in [bare_card(), bare_card()] {
        measured::measured_products_are_products(&card).expect("a card that works");
    }
}

fn two_runs_give_the_same_bits() {
    let (one, other) = (card(), card());
    suite::same_bits(&one, &other);
}

fn ten_updates_go_as_on_the_processor() {
    suite::updates_agree(card, 97, 10);
    // GPT-2's tokens: their logits take all the shared memory that a block can have.
    suite::updates_agree(card, 50_257, 2);
}

fn training_agrees_with_transformers() {
    suite::goldens::training_agrees_with_transformers::<Gpt2Config>(card);
    suite::goldens::training_agrees_with_transformers::<LlamaConfig>(card);
}

fn every_operation_of_inference_agrees_with_the_reference() {
    let ops = card();
    suite::inference::operations(&ops);
    suite::inference::a_copied_page_is_read_like_the_first(&ops);
    suite::inference::one_stretch_has_the_bits_of_several(&ops);
    suite::inference::products(&ops.with_batch_invariance());
}

fn two_runs_of_inference_give_the_same_bits() {
    let (one, other) = (card(), card());
    suite::inference::same_bits(&one, &other);
}

fn rows_do_not_depend_on_the_batch_where_that_is_promised() {
    let ops = card();
    suite::inference::rows_do_not_depend_on_the_batch(&ops.with_batch_invariance());
}

fn few_rows_do_not_depend_on_the_batch() {
    let ops = card();
    suite::inference::few_rows_do_not_depend_on_the_batch(&ops);
}

fn models_step_as_they_should() {
    let ops = card();
    suite::steps::llama_agrees_with_transformers(ops);
    suite::steps::models_agree_with_the_processor(card, suite::cpu);
    suite::steps::pieces_change_no_bit(card);
}

fn recorded_steps_change_no_bit() {
    suite::recorded::recorded_steps_change_no_bit(card, || card().with_plain_launches());
    let invariant = || card().with_batch_invariance();
    suite::recorded::rows_of_padding_touch_nobody(invariant(), invariant);
}

fn draws_are_the_samplers() {
    let ops = card();
    for v in [97, 5003, 128_256] {
        suite::draws::draws_are_the_samplers(&ops, v);
    }
    suite::draws::the_whole_range_of_bits_is_used(&ops);
    suite::draws::a_row_that_is_not_numbers_has_no_token(&ops);
}
