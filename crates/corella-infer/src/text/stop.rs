//! Stop strings: all of them in one automaton (Aho and Corasick, 1975), one step per byte.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

/// The stop strings of a request. Cheap to clone.
#[derive(Clone, Default)]
pub struct StopStrings {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    texts: Vec<String>,
    nfa: NFA,
    start: StateID,
    /// For each state, how many bytes at the end of the text may be the beginning of a stop string, and not all of it.
    depths: HashMap<StateID, usize>,
}

/// What cannot be a stop string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// Every text contains it.
    #[error("an empty stop string")]
    Empty,
    /// The automaton cannot hold so much.
    #[error("the stop strings are too long together: {0}")]
    TooLarge(String),
}

/// A place in the automaton.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopState(Option<StateID>);

/// What a byte led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopStep {
    /// No stop string ends here; [`StopStrings::open`] tells how much of one may have begun.
    Open,
    /// The longest stop string that ends here.
    Found {
        /// Its number.
        index: usize,
        /// Its length in bytes.
        len: usize,
    },
}

impl StopStrings {
    /// Builds the automaton, in time linear in the texts.
    pub fn new(texts: &[String]) -> Result<StopStrings, StopError> {
        if texts.is_empty() {
            return Ok(StopStrings::default());
        }
        if texts.iter().any(String::is_empty) {
            return Err(StopError::Empty);
        }
        let too_large = |error: &dyn fmt::Display| StopError::TooLarge(error.to_string());
        let nfa = NFA::builder().match_kind(MatchKind::Standard).build(texts).map_err(|error| too_large(&error))?;
        let start = nfa.start_state(Anchored::No).map_err(|error| too_large(&error))?;
        // Each state stands for the beginning of a stop string, or for all of it: walking along each one visits them all.
        let walk = |bytes: &[u8]| bytes.iter().fold(start, |state, byte| nfa.next_state(Anchored::No, state, *byte));
        let mut depths = HashMap::from([(start, 0)]);
        for text in texts {
            let mut state = start;
            for (i, byte) in text.bytes().enumerate().take(text.len() - 1) {
                state = nfa.next_state(Anchored::No, state, byte);
                depths.insert(state, i + 1);
            }
        }
        // Behind a whole stop string that begins no other there is what its end may be the beginning of: a shorter one's
        // beginning, or all of a shorter one, which is known by then.
        let mut by_length: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        by_length.sort_by_key(|text| text.len());
        for text in by_length {
            let open = depths.get(&walk(&text[1..])).copied().unwrap_or(0);
            depths.entry(walk(text)).or_insert(open);
        }
        Ok(StopStrings { inner: Some(Arc::new(Inner { texts: texts.to_vec(), nfa, start, depths })) })
    }

    /// The stop string with this number.
    pub fn text(&self, index: usize) -> &str {
        self.inner.as_ref().and_then(|inner| inner.texts.get(index)).map_or("", String::as_str)
    }

    /// So many bytes before `state` may be the beginning of a stop string.
    pub fn open(&self, state: StopState) -> usize {
        match (&self.inner, state.0) {
            (Some(inner), Some(state)) => inner.depths.get(&state).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// One byte further.
    pub fn step(&self, state: &mut StopState, byte: u8) -> StopStep {
        let Some(inner) = &self.inner else { return StopStep::Open };
        let next = inner.nfa.next_state(Anchored::No, state.0.unwrap_or(inner.start), byte);
        state.0 = Some(next);
        if inner.nfa.is_match(next) {
            let found = (0..inner.nfa.match_len(next)).map(|i| inner.nfa.match_pattern(next, i).as_usize());
            if let Some(index) = found.max_by_key(|index| (inner.texts[*index].len(), usize::MAX - index)) {
                return StopStep::Found { index, len: inner.texts[index].len() };
            }
        }
        StopStep::Open
    }
}

impl fmt::Debug for StopStrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.inner.iter().flat_map(|inner| &inner.texts)).finish()
    }
}
