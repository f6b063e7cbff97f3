//! Batches out of a token stream, the next one prepared while a step runs.
//!
//! Every epoch visits every window once, in an order that follows from seed and epoch alone; so the position is one
//! number, and the order of the windows depends neither on how many of them make a batch nor on the number of ranks.

use serde::{Deserialize, Serialize};

use super::llmc_order::{Lanes, LlmcOrder};
use super::order::{Order, Windows};
use super::prefetch::Prefetcher;
use super::{DataError, TokenStream};

/// Where a loader stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// Seed of the order.
    pub seed: u64,
    /// How windows are ordered.
    pub order: Order,
    /// T.
    pub seq_len: usize,
    /// Windows of an epoch.
    pub windows: u64,
    /// Windows handed out since the start of training, to all ranks together.
    pub next: u64,
    /// B, where the order depends on it ([`Order::LlmC`]); absent in states of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
}

/// What a loader is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// T.
    pub seq_len: usize,
    /// How windows are ordered.
    pub order: Order,
    /// Seed of the order.
    pub seed: u64,
    /// The token in front of every document, for [`Order::Documents`] and for counting.
    pub end_of_text: u32,
    /// This rank, below `world`.
    pub rank: usize,
    /// Number of ranks. Of the windows of a batch of all ranks, rank 0 gets the first, rank 1 those behind, and so on.
    pub world: usize,
    /// B, for [`Order::LlmC`] alone: that order depends on it.
    pub llm_c_batch: usize,
}

impl LoaderOptions {
    /// Windows in a random order, for one rank.
    pub fn new(seq_len: usize, seed: u64) -> Self {
        let order = Order::default();
        LoaderOptions { seq_len, order, seed, end_of_text: 0, rank: 0, world: 1, llm_c_batch: 1 }
    }
}

/// What packing does to the documents of a stream in its own order: see `order.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Documents.
    pub documents: u64,
    /// Those that a window's end cuts, because they are longer than what was left of it.
    pub cut: u64,
    /// Tokens at the end that fill no window.
    pub left_out: u64,
}

/// Hands out batches for ever, epoch after epoch.
#[derive(Debug)]
pub struct Loader {
    stream: TokenStream,
    options: LoaderOptions,
    state: LoaderState,
    ahead: Prefetcher,
}

impl Loader {
    /// A loader at the start of the first epoch.
    pub fn new(stream: TokenStream, options: LoaderOptions) -> Result<Self, DataError> {
        let windows = options.windows(&stream)?;
        let LoaderOptions { seed, order, seq_len, llm_c_batch, .. } = options;
        let batch = (order == Order::LlmC).then_some(llm_c_batch);
        let state = LoaderState { seed, order, seq_len, windows: windows.count(), next: 0, batch };
        Ok(Loader { stream, options, state, ahead: Prefetcher::start(windows, seq_len) })
    }

    /// The next `b` windows of this rank: inputs and, one token further, targets, both (b, T).
    pub fn next_batch(&mut self, b: usize, inputs: &mut [u32], targets: &mut [u32]) -> Result<(), DataError> {
        let t = self.state.seq_len;
        assert!(inputs.len() == b * t && targets.len() == b * t, "a batch is (b, T)");
        let (lane, all) = ((self.options.rank * b) as u64, (self.options.world * b) as u64);
        let batch = self.ahead.take(self.state.next + lane, b, self.state.next + all + lane)?;
        let windows = batch.chunks_exact(t + 1);
        for ((inputs, targets), window) in inputs.chunks_exact_mut(t).zip(targets.chunks_exact_mut(t)).zip(windows) {
            inputs.copy_from_slice(&window[..t]);
            targets.copy_from_slice(&window[1..]);
        }
        self.state.next += all;
        Ok(())
    }

    /// Epoch of the next window, from 0.
    pub fn epoch(&self) -> u64 {
        self.state.next / self.state.windows
    }

    /// How documents and windows lie. Reads everything once.
    pub fn packing(&self) -> Result<Packing, DataError> {
        let (t, tokens) = (self.state.seq_len as u64, self.stream.len());
        let starts = self.stream.documents(self.options.end_of_text)?;
        let ends = starts.iter().skip(1).copied().chain([tokens]);
        let used = self.state.windows * t;
        let cut = starts.iter().zip(ends).filter(|(start, end)| *start / t != (end - 1) / t);
        let cut = cut.count() as u64;
        Ok(Packing { documents: starts.len() as u64, cut, left_out: tokens.saturating_sub(used + 1) })
    }

    /// The position, for a checkpoint. It is the same on all ranks.
    pub fn state(&self) -> LoaderState {
        self.state.clone()
    }

    /// Tokens to learn from that were handed out since the start of training, to all ranks together.
    pub fn tokens(&self) -> u64 {
        self.state.next.saturating_mul(self.state.seq_len as u64)
    }

    /// Goes to a position saved by a loader over the same data, with any number of ranks.
    pub fn restore(&mut self, state: &LoaderState) -> Result<(), DataError> {
        let (saved, here) = (state, &self.state);
        let batch = |state: &LoaderState| state.batch.unwrap_or_default();
        let other_batch = saved.batch.is_some() && batch(saved) != batch(here);
        let differences = [
            (saved.seed != here.seed, format!("seed {}, here {}", saved.seed, here.seed)),
            (saved.order != here.order, format!("order {}, here {}", saved.order, here.order)),
            (saved.seq_len != here.seq_len, format!("sequences of {} tokens, here {}", saved.seq_len, here.seq_len)),
            (other_batch, format!("batches of {} sequences, here {}", batch(saved), batch(here))),
            (saved.windows != here.windows, format!("{} sequences an epoch, here {}", saved.windows, here.windows)),
        ];
        let differences: Vec<String> = differences.into_iter().filter(|(d, _)| *d).map(|(_, what)| what).collect();
        if !differences.is_empty() {
            return Err(DataError::OtherData(differences.join("; ")));
        }
        self.state.next = state.next;
        Ok(())
    }
}

impl LoaderOptions {
    fn windows(&self, stream: &TokenStream) -> Result<Windows, DataError> {
        let LoaderOptions { seq_len, order, seed, .. } = *self;
        assert!(self.rank < self.world, "rank {} of {}", self.rank, self.world);
        let too_short = || DataError::TooShort { tokens: stream.len(), seq_len };
        let count = stream.len().saturating_sub(1) / seq_len.max(1) as u64;
        if count == 0 {
            return Err(too_short());
        }
        if count > u64::from(u32::MAX) {
            let why = format!("{count} windows of {seq_len} tokens, at most {} can be ordered", u32::MAX);
            return Err(DataError::OtherData(why));
        }
        Ok(match order {
            Order::File => Windows::file(stream.clone(), seq_len, count),
            Order::Windows => Windows::shuffled(stream.clone(), seq_len, count, seed),
            Order::Documents => {
                let starts = stream.documents(self.end_of_text)?;
                Windows::documents(stream.clone(), seq_len, count, seed, starts)
            }
            Order::LlmC => {
                let (b, rank, world) = (self.llm_c_batch as u64, self.rank as u64, self.world as u64);
                let order = LlmcOrder::new(&stream.shards(), seq_len, Lanes { b, rank, world });
                Windows::llm_c(stream.clone(), seq_len, order.ok_or_else(too_short)?)
            }
        })
    }
}
