//! The text of one continuation as its tokens come: held back where a stop string may begin, never half a character.

use std::collections::VecDeque;

use super::stop::{StopState, StopStep, StopStrings};

/// Turns bytes of tokens into text up to the first stop string.
///
/// Tokens are released in groups with exactly their text: a token waits while any of its bytes may belong to a stop
/// string, and while it ends inside a character. The stop string whose end comes first ends the text; of those that end
/// at the same byte, the longest.
#[derive(Clone, Debug)]
pub struct TextStream {
    stops: StopStrings,
    state: StopState,
    /// Whether a stop string stays in the text.
    keep_stop: bool,
    /// Bytes of the tokens that wait.
    bytes: VecDeque<u8>,
    /// Where each of them ends, counted from the first byte of the text.
    ends: VecDeque<usize>,
    /// Where the first of them begins.
    start: usize,
}

/// What a token brought to light.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// The text of the tokens; bytes that are no character are U+FFFD.
    pub text: String,
    /// How many of the tokens that waited are released, the oldest first. With a stop string, those that have a part in
    /// the text.
    pub tokens: usize,
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
            bytes: VecDeque::new(),
            ends: VecDeque::new(),
            start: 0,
        }
    }

    /// The next token. If it may not `stop` the text, a stop string that ends in it is text, but one may begin.
    pub fn push(&mut self, token: &[u8], stop: bool) -> Released {
        for (i, byte) in token.iter().enumerate() {
            let step = self.stops.step(&mut self.state, *byte);
            if let StopStep::Found { index, len } = step
                && stop
            {
                self.enter(token);
                // What may become a stop string waits: none of its bytes has been released.
                let here = self.start + self.bytes.len() - token.len() + i + 1;
                let end = if self.keep_stop { here } else { here - len };
                return Released { stopped: Some(index), ..self.release_text(end) };
            }
        }
        self.enter(token);
        // A token without bytes leaves what had begun as it was.
        let sure = self.start + self.bytes.len() - self.stops.open(self.state);
        let mut tokens = self.ends.partition_point(|end| *end <= sure);
        while tokens > 0 && self.cuts_character(self.ends[tokens - 1]) {
            tokens -= 1;
        }
        let end = if tokens == 0 { self.start } else { self.ends[tokens - 1] };
        self.release(tokens, end)
    }

    /// The end of the text: what waited belongs to it.
    pub fn finish(&mut self) -> Released {
        self.release(self.ends.len(), self.start + self.bytes.len())
    }

    fn enter(&mut self, token: &[u8]) {
        self.bytes.extend(token);
        self.ends.push_back(self.start + self.bytes.len());
    }

    /// Whether the bytes before `end` stop inside a character.
    fn cuts_character(&self, end: usize) -> bool {
        let len = end - self.start;
        let tail: Vec<u8> = self.bytes.range(len.saturating_sub(3)..len).copied().collect();
        // The last byte that is no continuation byte begins the last character.
        let first = tail.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000);
        first.is_some_and(|first| {
            std::str::from_utf8(&tail[first..]).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
        })
    }

    /// The text up to `end` and all tokens that have a part in it; nothing waits any more.
    fn release_text(&mut self, end: usize) -> Released {
        let begin_before = std::iter::once(&self.start).chain(&self.ends).take_while(|start| **start < end).count();
        let end_before = self.ends.partition_point(|e| *e <= end);
        let released = self.release(begin_before.min(self.ends.len()).max(end_before), end);
        self.bytes.clear();
        self.ends.clear();
        released
    }

    fn release(&mut self, tokens: usize, end: usize) -> Released {
        let bytes: Vec<u8> = self.bytes.drain(..end - self.start).collect();
        self.ends.drain(..tokens);
        self.start = end;
        Released { text: String::from_utf8_lossy(&bytes).into_owned(), tokens, stopped: None }
    }
}
