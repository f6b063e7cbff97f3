//! The text of one continuation as its tokens come: held back where a stop string may begin, never half a character.

use std::collections::VecDeque;

use super::stop::{StopState, StopStep, StopStrings};
use super::utf8::Utf8Stream;

/// Turns bytes of tokens into text up to the first stop string.
///
/// The stop string whose end comes first ends the text; of those that end at the same byte, the longest.
#[derive(Clone, Debug)]
pub struct TextStream {
    stops: StopStrings,
    state: StopState,
    /// Whether a stop string stays in the text.
    keep_stop: bool,
    /// Bytes that may be the beginning of a stop string.
    held: VecDeque<u8>,
    utf8: Utf8Stream,
    /// Bytes that went into the text.
    released: usize,
    stopped: Option<usize>,
}

/// What bytes brought to light.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Characters that are certain now.
    pub text: String,
    /// Bytes of all tokens so far that are in the text.
    pub bytes: usize,
    /// The number of the stop string that ended the text.
    pub stopped: Option<usize>,
}

impl TextStream {
    /// A text that ends before `stops`, or behind with `keep_stop`.
    pub fn new(stops: StopStrings, keep_stop: bool) -> TextStream {
        TextStream {
            stops,
            state: StopState::default(),
            keep_stop,
            held: VecDeque::new(),
            utf8: Utf8Stream::default(),
            released: 0,
            stopped: None,
        }
    }

    /// The bytes of the next token. Whatever follows a stop string is ignored.
    pub fn push(&mut self, bytes: &[u8]) -> Released {
        let mut sure = Vec::new();
        for byte in bytes {
            if self.stopped.is_some() {
                break;
            }
            self.held.push_back(*byte);
            let keep = match self.stops.step(&mut self.state, *byte) {
                StopStep::Open(depth) => depth,
                StopStep::Found { index, len } => {
                    self.stopped = Some(index);
                    if self.keep_stop { 0 } else { len }
                }
            };
            sure.extend(self.held.drain(..self.held.len() - keep));
        }
        let mut text = self.utf8.push(&sure);
        self.released += sure.len();
        if self.stopped.is_some() {
            self.held.clear();
            text.push_str(&self.utf8.finish());
        }
        Released { text, bytes: self.released - self.utf8.pending(), stopped: self.stopped }
    }

    /// The end of the text: what was held back belongs to it.
    pub fn finish(&mut self) -> Released {
        let rest: Vec<u8> = self.held.drain(..).collect();
        self.released += rest.len();
        let mut text = self.utf8.push(&rest);
        text.push_str(&self.utf8.finish());
        Released { text, bytes: self.released, stopped: self.stopped }
    }
}
