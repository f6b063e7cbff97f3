//! Small models that the tests of the engine share.

use std::sync::Arc;

use corella_infer::TokenBytes;
use corella_model::gpt2::{Gpt2Config, Gpt2Infer, Gpt2Weights};
use corella_model::{KvKind, StepOptions};
use corella_ops::cpu::{Cpu, CpuOptions};

pub fn cpu() -> Cpu {
    Cpu::new(CpuOptions { threads: Some(3), ..CpuOptions::default() }).expect("a processor")
}

/// A letter for each token, so that stop strings have something to find.
pub fn letters() -> TokenBytes {
    Arc::new(|_, id| vec![b'a' + (id % 26) as u8])
}

pub fn options(context_len: usize, kv_tokens: usize) -> StepOptions {
    StepOptions { context_len, kv_tokens, kv_kind: KvKind::F16, max_seqs: 8, max_batch_tokens: 48, max_logit_rows: 40 }
}

/// A GPT-2 of 60 tokens and a context of 120, with pages for `kv_tokens` positions.
pub fn gpt2(kv_tokens: usize) -> Gpt2Infer<Cpu> {
    let weights = Gpt2Weights::random(&Gpt2Config::new(60, 2, 2, 32, 120).expect("a shape"), 5);
    Gpt2Infer::new(cpu(), &weights, options(120, kv_tokens)).expect("fits")
}
