//! Steps that are recorded and repeated give the bits of steps whose kernels are started one by one.

use corella_cuda::Cuda;
use corella_model::gpt2::{Gpt2Config, Gpt2Infer};
use corella_model::llama::LlamaInfer;
use corella_model::{BatchPlan, KvKind, SeqPlan, StepModel, StepOptions, Weights};

use super::steps::llama_weights;

/// A text under way: its tokens, how many of them are in its pages, and which pages it has.
struct Text {
    tokens: Vec<u32>,
    fed: usize,
    pages: Vec<u32>,
}

/// Texts that join and leave; each step feeds everybody's unread tokens and continues each text with its likeliest token.
struct Texts<'a> {
    model: &'a mut dyn StepModel,
    running: Vec<Text>,
    /// Logits of all steps.
    seen: Vec<Vec<u32>>,
}

impl Texts<'_> {
    /// Text `number` begins with `len` tokens; it owns a third of the pages.
    fn join(&mut self, number: u32, len: u32) {
        let tokens = (0..len).map(|i| (i * i * 31 + i * 7 + number * 13) % 97).collect();
        let each = self.model.limits().pages as u32 / 6;
        self.running.push(Text { tokens, fed: 0, pages: (number * each..(number + 1) * each).collect() });
    }

    fn step(&mut self) {
        let page_tokens = self.model.limits().page_tokens;
        let mut plan = BatchPlan::default();
        for text in &self.running {
            plan.tokens.extend(&text.tokens[text.fed..]);
            plan.logit_rows.push(plan.tokens.len() - 1);
            let pages = text.pages[..text.tokens.len().div_ceil(page_tokens)].to_vec();
            plan.seqs.push(SeqPlan { start: text.fed, len: text.tokens.len() - text.fed, pages });
        }
        let logits = self.model.step(&plan).expect("a plan that fits").logits.to_vec();
        for (text, row) in self.running.iter_mut().zip(logits.chunks_exact(97)) {
            text.fed = text.tokens.len();
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            text.tokens.push(row.iter().position(|x| *x == top).expect("a number") as u32);
        }
        self.seen.push(logits.into_iter().map(f32::to_bits).collect());
    }
}

fn options(kv_kind: KvKind) -> StepOptions {
    StepOptions { context_len: 400, kv_tokens: 6 * 416, kv_kind, max_seqs: 6, max_batch_tokens: 300, max_logit_rows: 6 }
}

fn llama(ops: Cuda) -> Box<dyn StepModel> {
    Box::new(LlamaInfer::new(ops, &llama_weights(400), options(KvKind::F16)).expect("fits"))
}

fn gpt2(ops: Cuda) -> Box<dyn StepModel> {
    let config = Gpt2Config::new(97, 1, 2, 24, 400).expect("a shape");
    Box::new(Gpt2Infer::new(ops, &Weights::random(&config, 3), options(KvKind::Q8)).expect("fits"))
}

/// One to five texts over steps in which they join, leave, and cross from one stretch of 256 positions into the next.
fn joining_and_leaving(model: &mut dyn StepModel) -> Vec<Vec<u32>> {
    let mut texts = Texts { model, running: Vec::new(), seen: Vec::new() };
    texts.join(0, 3);
    (0..4).for_each(|_| texts.step());
    texts.join(1, 253);
    texts.join(2, 20);
    (0..6).for_each(|_| texts.step());
    texts.running.remove(0);
    (0..3).for_each(|_| texts.step());
    for number in 3..6 {
        texts.join(number, 2 * number);
    }
    (0..4).for_each(|_| texts.step());
    texts.running.drain(1..4);
    (0..3).for_each(|_| texts.step());
    texts.seen
}

/// The same texts on a card that records and on one that does not: every logit of every step.
pub fn recorded_steps_change_no_bit(recording: impl Fn() -> Cuda, plain: impl Fn() -> Cuda) {
    for model in [llama, gpt2] {
        let recorded = joining_and_leaving(&mut *model(recording()));
        let plain = joining_and_leaving(&mut *model(plain()));
        assert_eq!(recorded.len(), plain.len());
        for (step, (recorded, plain)) in recorded.iter().zip(&plain).enumerate() {
            assert!(recorded == plain, "step {step}");
        }
    }
}

/// Three texts, whose steps are computed with four rows, and each of them alone; `one` promises that the batch does not matter.
pub fn rows_of_padding_touch_nobody(one: Cuda, another: impl Fn() -> Cuda) {
    let texts = |ops: Cuda, numbers: &[u32]| {
        let mut model = llama(ops);
        let mut texts = Texts { model: &mut *model, running: Vec::new(), seen: Vec::new() };
        numbers.iter().for_each(|number| texts.join(*number, 3 + number));
        (0..5).for_each(|_| texts.step());
        texts.seen
    };
    let together = texts(one, &[0, 1, 2]);
    for number in 0..3 {
        let alone = texts(another(), &[number as u32]);
        for (step, (together, alone)) in together.iter().zip(&alone).enumerate() {
            assert!(together[number * 97..(number + 1) * 97] == alone[..], "text {number}, step {step}");
        }
    }
}
