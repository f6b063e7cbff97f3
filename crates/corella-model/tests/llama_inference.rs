//! Llama's logits against `transformers` (fixtures/llama/make.py) and against trained checkpoints with references
//! computed in f64 by code that shares nothing with any engine (../shared/data/checkpoints/golden).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corella_model::llama::{LlamaCheckpoint, LlamaInfer, RopeScaling};
use corella_model::{BatchPlan, KvKind, OneSequence, PlanError, SeqPlan, StepModel, StepOptions, TextModel};
use corella_ops::cpu::{Cpu, CpuOptions, Path as KernelPath, Rounding};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/llama")
}

/// The folder of real checkpoints, where it is there.
fn checkpoints() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/checkpoints");
    if !dir.is_dir() {
        eprintln!("skipped: {} is not here", dir.display());
        return None;
    }
    Some(dir)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|v| v.as_u64().expect("an id") as u32).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().expect("numbers").iter().map(|v| v.as_f64().expect("a number") as f32).collect()
}

fn cpu(path: Option<KernelPath>, threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), path, ..CpuOptions::default() }).expect("available")
}

fn load(path: &Path) -> LlamaCheckpoint {
    LlamaCheckpoint::open(path).unwrap_or_else(|e| panic!("{e}"))
}

fn model(checkpoint: &LlamaCheckpoint, context: usize, path: Option<KernelPath>) -> OneSequence<LlamaInfer<Cpu>> {
    let options = StepOptions::one_sequence(context);
    OneSequence::new(LlamaInfer::new(cpu(path, 2), checkpoint, options).expect("fits"))
}

/// Largest difference relative to the largest expected value.
fn gap(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-12f32, |m, x| m.max(x.abs()));
    got.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// Rounding keys and values to half precision moves logits by about this much; f32 alone by a hundredth of it.
const KV_F16: f32 = 2e-3;

/// The same for activations of eight bits.
const BF16_X: f32 = 1e-2;

/// The most that `transformers` 5.24 in BF16 is off by in the losses of TinyStories-656K.golden.json (in f32: 3.5e-6).
const TRANSFORMERS_BF16: f32 = 0.056;

/// Compares the logits after some of the tokens.
fn compare(checkpoint: &LlamaCheckpoint, golden: &Value, path: Option<KernelPath>) {
    let (tokens, places) = (ids(&golden["ids"]), ids(&golden["places"]));
    let mut model = model(checkpoint, tokens.len(), path);
    let mut fed = 0;
    for (place, expected) in places.iter().zip(golden["logits"].as_array().expect("rows")) {
        let next = *place as usize + 1;
        let off = gap(model.feed(&tokens[fed..next]), &numbers(expected));
        assert!(off < KV_F16, "{path:?} logits after token {place} are off by {off}");
        fed = next;
    }
}

#[test]
fn logits_equal_transformers_past_the_first_context_with_grouped_queries() {
    let checkpoint = load(&fixtures().join("model"));
    assert!(matches!(checkpoint.config.rope.scaling, RopeScaling::Llama3 { .. }));
    compare(&checkpoint, &json(&fixtures().join("long.json")), None);
}

#[test]
fn logits_of_a_bf16_model_in_shards_equal_transformers() {
    let checkpoint = load(&fixtures().join("model_bf16"));
    assert_eq!((checkpoint.files.len(), checkpoint.config.tied), (2, true));
    for path in KernelPath::available() {
        compare(&checkpoint, &json(&fixtures().join("bf16.json")), Some(path));
    }
}

/// Activations rounded to BF16, on the paths that do so: logits move by what that format's eight bits allow, and losses of a
/// trained model by no more than those of `transformers` in BF16.
#[test]
fn rounded_activations_move_logits_and_losses_by_what_bf16_allows() {
    let options = |path| CpuOptions { threads: Some(2), path: Some(path), rounding: Rounding::Bf16 };
    let all = KernelPath::available().into_iter().map(|path| Cpu::new(options(path)).expect("available"));
    let found: Vec<Arc<Cpu>> = all.filter(|ops| ops.rounding() == Rounding::Bf16).map(Arc::new).collect();
    if found.is_empty() {
        eprintln!("skipped: this processor has no instructions for BF16");
    }
    for ops in found {
        let model = |checkpoint: &LlamaCheckpoint, context| {
            OneSequence::new(
                LlamaInfer::<Cpu>::new(ops.clone(), checkpoint, StepOptions::one_sequence(context)).expect("fits"),
            )
        };
        let (checkpoint, golden) = (load(&fixtures().join("model_bf16")), json(&fixtures().join("bf16.json")));
        let (tokens, places) = (ids(&golden["ids"]), ids(&golden["places"]));
        let mut small = model(&checkpoint, tokens.len());
        let mut rows = Vec::new();
        small.feed_each(&tokens, &mut |_, row| rows.push(row.to_vec()));
        for (place, expected) in places.iter().zip(golden["logits"].as_array().expect("rows")) {
            let off = gap(&rows[*place as usize], &numbers(expected));
            assert!(off < BF16_X, "logits after token {place} are off by {off}");
        }
        let Some(dir) = checkpoints() else { continue };
        let (golden, checkpoint) =
            (json(&dir.join("golden/TinyStories-656K.golden.json")), load(&dir.join("TinyStories-656K-bf16")));
        let mut count = 0;
        for case in golden["cases"].as_array().expect("cases") {
            let (prompt, losses) = (ids(&case["prompt_ids"]), numbers(&case["prompt_nll"]));
            model(&checkpoint, checkpoint.config.context_len).feed_each(&prompt, &mut |i, row| {
                if let Some(expected) = losses.get(i) {
                    let off = (loss(row, prompt[i + 1]) - expected).abs();
                    assert!(off < TRANSFORMERS_BF16, "a loss is off by {off}");
                    count += 1;
                }
            });
        }
        assert!(count > 10, "{count} losses");
    }
}

/// -ln of a token's probability.
fn loss(row: &[f32], token: u32) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + row.iter().map(|l| (l - max).exp()).sum::<f32>().ln() - row[token as usize]
}

/// Feeds the prompt, compares logits and the losses inside it, then the greedy continuation.
fn golden_cases(checkpoint: &LlamaCheckpoint, golden: &Value) {
    for case in golden["cases"].as_array().expect("cases") {
        let prompt = ids(&case["prompt_ids"]);
        let greedy = ids(&case["greedy_ids"]);
        let mut model = model(checkpoint, checkpoint.config.context_len, None);
        let losses = numbers(&case["prompt_nll"]);
        let mut logits = Vec::new();
        model.feed_each(&prompt, &mut |i, row| {
            if let Some(expected) = losses.get(i) {
                let nll = loss(row, prompt[i + 1]);
                assert!((nll - expected).abs() < 0.02, "loss {nll} instead of {expected}");
            }
            logits = row.to_vec();
        });
        let off = gap(&logits, &numbers(&case["logits_after_prompt"]));
        assert!(off < KV_F16, "logits are off by {off}");
        for expected in greedy {
            let likeliest = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("logits");
            assert_eq!(likeliest as u32, expected);
            if model.position() == model.context_len() {
                break;
            }
            logits = model.feed(&[expected]).to_vec();
        }
    }
}

#[test]
fn trained_models_give_the_losses_logits_and_greedy_texts_of_the_reference() {
    let Some(dir) = checkpoints() else { return };
    for (model, golden) in [
        ("TinyStories-656K-f32", "TinyStories-656K"),
        ("TinyStories-656K-bf16", "TinyStories-656K"),
        ("stories260K/stories260K.bin", "stories260K"),
        ("stories260K/hf-derived", "stories260K"),
        ("babyllama-tok105/model5000.bin", "babyllama-tok105"),
    ] {
        let golden = json(&dir.join(format!("golden/{golden}.golden.json")));
        golden_cases(&load(&dir.join(model)), &golden);
    }
}

#[test]
fn files_of_one_model_in_every_format_give_its_logits() {
    let Some(dir) = checkpoints() else { return };
    let dir = dir.join("tiny-random-fixtures");
    let folder = std::env::temp_dir().join(format!("corella-llama-{}", std::process::id()));
    let as_folder = |name: &str, config: &str, files: &[(&str, &str)]| {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::copy(dir.join(config), folder.join("config.json")).expect("copied");
        for (from, to) in files {
            std::fs::copy(dir.join(from), folder.join(to)).expect("copied");
        }
        folder
    };
    let shards = ["tiny_llama-00001-of-00002.safetensors", "tiny_llama-00002-of-00002.safetensors"];
    let cases = [
        (
            as_folder("one", "tiny_llama_config.json", &[("tiny_llama.safetensors", "model.safetensors")]),
            "tiny_llama",
            0.0,
        ),
        (
            as_folder(
                "shards",
                "tiny_llama_config.json",
                &[
                    ("tiny_llama.safetensors.index.json", "model.safetensors.index.json"),
                    (shards[0], shards[0]),
                    (shards[1], shards[1]),
                ],
            ),
            "tiny_llama",
            0.0,
        ),
        (
            as_folder("smol", "tiny_smollm2_config.json", &[("tiny_smollm2.safetensors", "model.safetensors")]),
            "tiny_smollm2",
            0.0,
        ),
        (dir.join("tiny_llama_f32.gguf"), "tiny_llama", 0.0),
        (dir.join("tiny_llama_f16.gguf"), "tiny_llama", 2e-3),
    ];
    for (path, golden, rounding) in cases {
        let golden = json(&dir.join(format!("{golden}_logits.json")));
        let checkpoint = load(&path);
        for (tokens, rows) in
            golden["sequences"].as_array().expect("ids").iter().zip(golden["logits"].as_array().expect("rows"))
        {
            let mut model = model(&checkpoint, 16, None);
            model.feed_each(&ids(tokens), &mut |i, logits| {
                let off = gap(logits, &numbers(&rows[i]));
                assert!(off < KV_F16 + rounding, "{}: row {i} is off by {off}", path.display());
            });
        }
    }
    // The same weights in 8 bits: as the safetensors file, but for two roundings to 1 in 254, of weights and of
    // activations, in each of 15 products.
    let q8 = load(&dir.join("tiny_llama_q8.gguf"));
    let full =
        load(&as_folder("q8", "tiny_llama_q8_config.json", &[("tiny_llama_q8.safetensors", "model.safetensors")]));
    assert_eq!(q8.config, full.config);
    let tokens = [1, 5, 2, 7, 0, 3];
    let off = gap(model(&q8, 12, None).feed(&tokens), model(&full, 12, None).feed(&tokens));
    assert!(off < 0.04, "8 bits are off by {off}");
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// Logits of the last token of several sequences, fed in the given steps of (sequence, tokens).
fn interleaved(
    checkpoint: &LlamaCheckpoint,
    kind: KvKind,
    path: KernelPath,
    steps: &[&[(usize, usize)]],
) -> Vec<Vec<f32>> {
    let options = StepOptions {
        context_len: 128,
        kv_tokens: 512,
        kv_kind: kind,
        max_seqs: 3,
        max_batch_tokens: 160,
        max_logit_rows: 3,
    };
    let mut model = LlamaInfer::new(cpu(Some(path), 2), checkpoint, options).expect("fits");
    let mut fed = [0usize; 3];
    let mut last = vec![Vec::new(); 3];
    for step in steps {
        let mut plan = BatchPlan::default();
        for (seq, len) in *step {
            let start = fed[*seq];
            plan.tokens.extend((start..start + len).map(|i| ((i * 7 + seq * 13) % 61) as u32));
            // Pages of the sequences lie in turns.
            let pages = (0..(start + len).div_ceil(32)).map(|i| (i * 3 + seq) as u32).collect();
            plan.seqs.push(SeqPlan { start, len: *len, pages });
            plan.logit_rows.push(plan.tokens.len() - 1);
            fed[*seq] += len;
        }
        let out = model.step(&plan).expect("a right plan");
        for ((seq, _), logits) in step.iter().zip(out.logits.chunks_exact(61)) {
            last[*seq] = logits.to_vec();
        }
    }
    last
}

#[test]
fn prefill_chunks_and_decode_alone_or_among_others_give_the_same_bits() {
    let checkpoint = load(&fixtures().join("model_bf16"));
    for kind in KvKind::ALL {
        for path in KernelPath::available() {
            let alone = interleaved(&checkpoint, kind, path, &[&[(0, 70)], &[(1, 33)], &[(2, 5)]]);
            let together = interleaved(&checkpoint, kind, path, &[&[(1, 33), (0, 70), (2, 5)]]);
            let chunks = interleaved(
                &checkpoint,
                kind,
                path,
                &[&[(0, 31), (1, 1)], &[(1, 20), (2, 4)], &[(0, 38), (1, 12), (2, 1)], &[(0, 1)]],
            );
            let singles: Vec<Vec<(usize, usize)>> = (0..70)
                .map(|i| [(0, 70), (1, 33), (2, 5)].iter().filter(|(_, n)| i < *n).map(|(s, _)| (*s, 1)).collect())
                .collect();
            let singles: Vec<&[(usize, usize)]> = singles.iter().map(|s| &s[..]).collect();
            let decoded = interleaved(&checkpoint, kind, path, &singles);
            assert_eq!(alone, together, "{kind:?} {path:?}");
            assert_eq!(alone, chunks, "{kind:?} {path:?}");
            assert_eq!(alone, decoded, "{kind:?} {path:?}");
        }
    }
}

#[test]
fn a_copied_page_goes_on_with_the_same_bits() {
    let checkpoint = load(&fixtures().join("model_bf16"));
    let options = StepOptions { max_seqs: 2, ..StepOptions::one_sequence(64) };
    let mut model = LlamaInfer::new(cpu(None, 2), &checkpoint, options).expect("fits");
    let seq = |start, len, page| SeqPlan { start, len, pages: vec![page] };
    let prompt = BatchPlan { tokens: vec![5, 6, 7], seqs: vec![seq(0, 3, 0)], logit_rows: vec![], draws: vec![] };
    assert!(model.step(&prompt).expect("right").logits.is_empty());
    model.copy_page(0, 1);
    let seqs = vec![seq(3, 1, 0), seq(3, 1, 1)];
    let both = BatchPlan { tokens: vec![8, 8], seqs, logit_rows: vec![0, 1], draws: vec![] };
    let logits = model.step(&both).expect("right").logits;
    assert_eq!(logits[..61], logits[61..]);
}

#[test]
fn a_plan_that_does_not_fit_is_refused_before_anything_is_written() {
    let checkpoint = load(&fixtures().join("model_bf16"));
    let mut model = LlamaInfer::new(cpu(None, 1), &checkpoint, StepOptions::one_sequence(40)).expect("fits");
    let seqs = vec![SeqPlan { start: 0, len: 1, pages: vec![0] }];
    let plan = BatchPlan { tokens: vec![61], seqs, logit_rows: vec![0], draws: vec![] };
    assert_eq!(model.step(&plan).map(|_| ()), Err(PlanError::BadToken { id: 61, vocab_size: 61 }));
    assert!(LlamaInfer::new(cpu(None, 1), &checkpoint, StepOptions::one_sequence(0)).is_err());
    assert!(LlamaInfer::new(cpu(None, 1), &checkpoint, StepOptions::one_sequence(1 << 20)).is_err());
}
