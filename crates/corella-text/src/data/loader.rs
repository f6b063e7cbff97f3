//! Batches out of a token stream.
//!
//! The stream is cut into windows of T tokens (and the next one as the last target). Every epoch visits every window once,
//! in an order that follows from seed and epoch alone; so the position is one number, and the order of the windows does
//! not depend on how many of them make a batch.

use serde::{Deserialize, Serialize};

use super::{DataError, TokenStream};

/// Where a loader stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// Seed of the order.
    pub seed: u64,
    /// Whether windows are visited in random order.
    pub shuffle: bool,
    /// T.
    pub seq_len: usize,
    /// Windows of an epoch.
    pub windows: u64,
    /// Windows handed out since the start of training.
    pub next: u64,
}

/// Hands out batches for ever, epoch after epoch.
#[derive(Clone, Debug)]
pub struct Loader {
    tokens: TokenStream,
    state: LoaderState,
    /// Order of the epoch that `order_epoch` names.
    order: Vec<u32>,
    order_epoch: Option<u64>,
}

impl Loader {
    /// A loader at the start of the first epoch.
    pub fn new(tokens: TokenStream, seq_len: usize, seed: u64, shuffle: bool) -> Result<Self, DataError> {
        let windows = tokens.len().saturating_sub(1) / seq_len.max(1);
        if windows == 0 {
            return Err(DataError::TooShort { tokens: tokens.len(), seq_len });
        }
        let state = LoaderState { seed, shuffle, seq_len, windows: windows as u64, next: 0 };
        Ok(Loader { tokens, state, order: Vec::new(), order_epoch: None })
    }

    /// The next `b` windows: inputs and, one token further, targets, both (b, T).
    pub fn next_batch(&mut self, b: usize, inputs: &mut [u32], targets: &mut [u32]) {
        let t = self.state.seq_len;
        assert!(inputs.len() == b * t && targets.len() == b * t, "a batch is (b, T)");
        for (inputs, targets) in inputs.chunks_exact_mut(t).zip(targets.chunks_exact_mut(t)) {
            let start = self.next_window() * t;
            inputs.copy_from_slice(&self.tokens[start..start + t]);
            targets.copy_from_slice(&self.tokens[start + 1..start + t + 1]);
        }
    }

    fn next_window(&mut self) -> usize {
        let (epoch, place) = (self.epoch(), (self.state.next % self.state.windows) as usize);
        self.state.next += 1;
        if !self.state.shuffle {
            return place;
        }
        if self.order_epoch != Some(epoch) {
            self.order = permutation(self.state.windows, self.state.seed, epoch);
            self.order_epoch = Some(epoch);
        }
        self.order[place] as usize
    }

    /// Epoch of the next window, from 0.
    pub fn epoch(&self) -> u64 {
        self.state.next / self.state.windows
    }

    /// Windows of an epoch.
    pub fn sequences_per_epoch(&self) -> u64 {
        self.state.windows
    }

    /// The position, for a checkpoint.
    pub fn state(&self) -> LoaderState {
        self.state.clone()
    }

    /// Goes to a position saved by a loader over the same data.
    pub fn restore(&mut self, state: &LoaderState) -> Result<(), DataError> {
        let here = LoaderState { next: state.next, ..self.state.clone() };
        if here != *state {
            return Err(DataError::OtherData(format!("it is {state:?}, this data has {:?}", self.state)));
        }
        self.state.next = state.next;
        Ok(())
    }
}

/// A random order of 0 .. n (Fisher and Yates), from seed and epoch.
fn permutation(n: u64, seed: u64, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    let mut state = seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    for i in (1..order.len()).rev() {
        let j = (u128::from(splitmix(&mut state)) * (i as u128 + 1)) >> 64;
        order.swap(i, j as usize);
    }
    order
}

/// SplitMix64 (Steele, Lea and Flood 2014).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
