//! In which order the windows of a stream are visited, and what stands in each.
//!
//! **Packing.** Documents stand end to end, each behind an end-of-text token, and the stream is cut into windows of T
//! tokens, whose targets are one token further. So a window may hold several documents, and a document that does not end
//! with its window goes on in another one; no token is dropped or padded but the last of an epoch, fewer than T + 1.
//! [`super::Loader::packing`] counts what is cut.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::llmc_order::LlmcOrder;
use super::{DataError, TokenStream};
use crate::splitmix::splitmix;

/// How an epoch is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The windows of the stream as it is, in a random order.
    #[default]
    #[serde(rename = "windows")]
    Windows,
    /// The documents in a random order, packed anew in every epoch; their windows one after another, so that a document
    /// that is cut goes on in the next window.
    #[serde(rename = "documents")]
    Documents,
    /// The windows in the order of the stream.
    #[serde(rename = "file")]
    File,
    /// As llm.c's loader visits the same shards.
    #[serde(rename = "llm.c")]
    LlmC,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 4] = [Order::Windows, Order::Documents, Order::File, Order::LlmC];

    /// The name as a run file has it.
    pub fn name(self) -> &'static str {
        match self {
            Order::Windows => "windows",
            Order::Documents => "documents",
            Order::File => "file",
            Order::LlmC => "llm.c",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Finds the tokens of windows by their number since the start of training.
#[derive(Debug)]
pub(super) struct Windows {
    stream: TokenStream,
    /// T.
    seq_len: usize,
    seed: u64,
    /// Windows of an epoch.
    count: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    File,
    /// The order of the epoch that is named.
    Shuffled {
        order: Vec<u32>,
        epoch: Option<u64>,
    },
    Documents(Documents),
    LlmC(Box<LlmcOrder>),
}

impl Windows {
    pub(super) fn file(stream: TokenStream, seq_len: usize, count: u64) -> Windows {
        Windows { stream, seq_len, seed: 0, count, kind: Kind::File }
    }

    pub(super) fn shuffled(stream: TokenStream, seq_len: usize, count: u64, seed: u64) -> Windows {
        Windows { stream, seq_len, seed, count, kind: Kind::Shuffled { order: Vec::new(), epoch: None } }
    }

    pub(super) fn documents(stream: TokenStream, seq_len: usize, count: u64, seed: u64, starts: Vec<u64>) -> Windows {
        let documents = Documents { starts, order: Vec::new(), places: Vec::new(), epoch: None };
        Windows { stream, seq_len, seed, count, kind: Kind::Documents(documents) }
    }

    pub(super) fn llm_c(stream: TokenStream, seq_len: usize, order: LlmcOrder) -> Windows {
        Windows { stream, seq_len, seed: 0, count: order.windows(), kind: Kind::LlmC(Box::new(order)) }
    }

    /// Windows of an epoch.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Window `number` since the start of training: T + 1 tokens.
    pub(super) fn read(&mut self, number: u64, out: &mut [u32]) -> Result<(), DataError> {
        let (epoch, place) = (number / self.count, number % self.count);
        let t = self.seq_len as u64;
        let start = match &mut self.kind {
            Kind::File => place * t,
            Kind::Shuffled { order, epoch: of } => {
                if *of != Some(epoch) {
                    *order = permutation(self.count, self.seed, epoch);
                    *of = Some(epoch);
                }
                u64::from(order[place as usize]) * t
            }
            Kind::LlmC(order) => order.start(number),
            Kind::Documents(documents) => {
                documents.shuffle(self.stream.len(), self.seed, epoch);
                return documents.read(&self.stream, place * t, out);
            }
        };
        self.stream.read(start, out)
    }
}

/// Documents in the random order of an epoch.
#[derive(Debug)]
struct Documents {
    /// Where each begins in the stream.
    starts: Vec<u64>,
    order: Vec<u32>,
    /// Where each of `order` begins in the epoch; the number of tokens at the end.
    places: Vec<u64>,
    epoch: Option<u64>,
}

impl Documents {
    fn shuffle(&mut self, tokens: u64, seed: u64, epoch: u64) {
        if self.epoch == Some(epoch) {
            return;
        }
        self.order = permutation(self.starts.len() as u64, seed, epoch);
        self.places.clear();
        let mut place = 0;
        for document in &self.order {
            self.places.push(place);
            let i = *document as usize;
            place += self.starts.get(i + 1).copied().unwrap_or(tokens) - self.starts[i];
        }
        self.places.push(place);
        self.epoch = Some(epoch);
    }

    /// Tokens from place `at` of the epoch on.
    fn read(&self, stream: &TokenStream, mut at: u64, mut out: &mut [u32]) -> Result<(), DataError> {
        let mut i = self.places.partition_point(|place| *place <= at) - 1;
        while !out.is_empty() {
            let n = out.len().min((self.places[i + 1] - at) as usize);
            let (now, later) = out.split_at_mut(n);
            stream.read(self.starts[self.order[i] as usize] + (at - self.places[i]), now)?;
            at += n as u64;
            out = later;
            i += 1;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Fisher's and Yates's shuffle of SplitMix64's numbers in a few lines of Python: for i from n − 1 down to 1, i changes
    /// places with number · (i + 1) / 2^64.
    #[test]
    fn the_order_of_an_epoch_follows_from_seed_and_epoch() {
        assert_eq!(permutation(10, 7, 0), [9, 5, 8, 6, 1, 2, 4, 7, 0, 3]);
        assert_eq!(permutation(10, 7, 3), [8, 3, 1, 6, 4, 0, 7, 9, 2, 5]);
        assert_eq!(permutation(10, 8, 0), [2, 7, 4, 9, 1, 0, 3, 8, 5, 6]);
    }
}
