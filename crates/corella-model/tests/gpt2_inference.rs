//! Steps of a GPT-2 over pages: the logits of `transformers`, and the same bits however the tokens are split.

use std::path::Path;

use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Config, Gpt2Exact, Gpt2Infer, Gpt2Weights};
use corella_model::{BatchPlan, KvKind, OneSequence, SeqPlan, StepModel, StepOptions, TextModel};
use corella_ops::cpu::{Cpu, CpuOptions, Path as KernelPath};
use serde_json::Value;

const V: usize = 97;

fn fixture() -> (Value, Gpt2Checkpoint) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gpt2");
    let text = std::fs::read_to_string(dir.join("golden.json")).expect("the fixture");
    (serde_json::from_str(&text).expect("JSON"), Gpt2Checkpoint::open(&dir.join("model")).expect("the model"))
}

fn model(path: KernelPath, threads: usize, kv_kind: KvKind) -> Gpt2Infer<Cpu> {
    let cpu =
        Cpu::new(CpuOptions { threads: Some(threads), path: Some(path), ..CpuOptions::default() }).expect("available");
    let options =
        StepOptions { context_len: 13, kv_tokens: 96, kv_kind, max_seqs: 3, max_batch_tokens: 26, max_logit_rows: 26 };
    Gpt2Infer::new(cpu, &fixture().1, options).expect("fits")
}

/// Logits of all rows of a step: for each sequence its tokens, where they begin, and its page.
fn step(model: &mut Gpt2Infer<Cpu>, seqs: &[(&[u32], usize, u32)]) -> Vec<f32> {
    let tokens: Vec<u32> = seqs.iter().flat_map(|(tokens, ..)| *tokens).copied().collect();
    let logit_rows = (0..tokens.len()).collect();
    let seqs =
        seqs.iter().map(|(t, start, page)| SeqPlan { start: *start, len: t.len(), pages: vec![*page] }).collect();
    model.step(&BatchPlan { tokens, seqs, logit_rows, draws: vec![] }).expect("a valid plan").logits.to_vec()
}

fn inputs() -> Vec<u32> {
    let ids = &fixture().0["inputs"];
    ids.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn logits_equal_transformers() {
    let golden = fixture().0;
    let expected: Vec<f32> =
        golden["logits"].as_array().expect("logits").iter().map(|l| l.as_f64().expect("a logit") as f32).collect();
    let scale = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let (inputs, t) = (inputs(), 13);
    for path in KernelPath::available() {
        // What rounding keys and values to the cache's type moves logits by.
        for (kind, allowed) in [(KvKind::F32, 1e-5), (KvKind::F16, 1e-3), (KvKind::Bf16, 8e-3), (KvKind::Q8, 2e-2)] {
            let found = step(&mut model(path, 2, kind), &[(&inputs[..t], 0, 1), (&inputs[t..], 0, 0)]);
            let off = found.iter().zip(&expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
            assert!(off < allowed, "{path:?} {kind:?}: off by {off}");
        }
    }
}

#[test]
fn chunks_single_tokens_company_and_threads_change_no_bit() {
    let inputs = inputs();
    let (a, b) = (&inputs[..13], &inputs[13..]);
    for path in KernelPath::available() {
        let whole = step(&mut model(path, 1, KvKind::F16), &[(a, 0, 0)]);
        let mut pieces = Vec::new();
        let mut one = model(path, 2, KvKind::F16);
        for (start, len) in [(0, 1), (1, 5), (6, 1), (7, 6)] {
            pieces.extend(step(&mut one, &[(&a[start..start + len], start, 2)]));
        }
        assert_eq!(whole, pieces, "{path:?}");
        let mut many = model(path, 2, KvKind::F16);
        let beside = step(&mut many, &[(&b[..9], 0, 1), (a, 0, 0), (&b[..2], 0, 2)]);
        assert_eq!(whole, beside[9 * V..22 * V], "{path:?}");
        // A page that was copied is as good as the one that was written.
        many.copy_page(0, 1);
        assert_eq!(whole[12 * V..], step(&mut many, &[(&a[12..], 12, 1)]), "{path:?}");
    }
}

#[test]
fn prefill_equals_decode_over_many_chunks() {
    let config = Gpt2Config::new(300, 2, 2, 40, 200).expect("valid");
    let weights = Gpt2Weights::random(&config, 3);
    let tokens: Vec<u32> = (0..200).map(|i| i * 7 % 300).collect();
    for path in KernelPath::available() {
        let model = |threads| {
            let cpu = Cpu::new(CpuOptions { threads: Some(threads), path: Some(path), ..CpuOptions::default() })
                .expect("available");
            Gpt2Exact::new(cpu, &weights).expect("fits")
        };
        let (mut whole, mut parts) = (model(2), model(1));
        parts.feed(&tokens[..1]);
        parts.feed(&tokens[1..131]);
        assert_eq!(whole.feed(&tokens), parts.feed(&tokens[131..]));
    }
}

#[test]
fn a_head_of_its_own_takes_the_place_of_the_embedding() {
    let config = Gpt2Config::new(50, 1, 2, 16, 20).expect("valid");
    let tied = Gpt2Weights::random(&config, 3);
    let mut own = Gpt2Weights::random(&config.clone().with_own_head().expect("valid"), 3);
    assert_eq!(own.tensors.len(), tied.tensors.len() + 1);
    let logits = |weights: &Gpt2Weights| {
        let cpu = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("available");
        let mut model = OneSequence::new(Gpt2Infer::new(cpu, weights, StepOptions::one_sequence(20)).expect("fits"));
        model.feed(&[1, 2, 3]).to_vec()
    };
    assert_ne!(logits(&own), logits(&tied), "another head");
    *own.tensors.last_mut().expect("a head") = tied.tensors[0].clone();
    assert_eq!(logits(&own), logits(&tied), "the embedding as head");
}
