//! A suffix array over the training tokens (Manber and Myers 1990): the positions of the text in the order of what follows
//! them, so that all places of a stretch lie side by side and are found by two binary searches.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;

use libsais::SuffixArrayConstruction;

use crate::error::TraceError;
use crate::file;

/// Training tokens and their suffix array: 8 bytes per token in memory.
#[derive(Clone, Debug)]
pub struct Index {
    tokens: Vec<u32>,
    /// Positions in the order of their suffixes.
    order: Vec<u32>,
    /// First positions of the documents, ascending; the first is 0.
    starts: Vec<u32>,
}

/// The places of a stretch, as a range of the suffix array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrences(Range<usize>);

impl Occurrences {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }
}

impl Index {
    /// Sorts the suffixes of `tokens`; `border` is the token that stands between documents.
    pub fn build(tokens: Vec<u32>, border: u32) -> Result<Index, TraceError> {
        if i32::try_from(tokens.len()).is_err() {
            return Err(TraceError::TooMany(tokens.len()));
        }
        let order = sort(&tokens)?;
        Ok(Index { starts: starts(&tokens, border), tokens, order })
    }

    /// Reads what [`Index::write`] wrote, and the mark that it was given.
    pub fn read(path: &Path, border: u32) -> Result<(Index, u64), TraceError> {
        let file::Content { tokens, order, mark } = file::read(path)?;
        Ok((Index { starts: starts(&tokens, border), tokens, order }, mark))
    }

    /// Writes tokens and suffix array, so that neither has to be made again: to a temporary name, synced, renamed. `mark` says
    /// what the tokens were made of; whoever reads them compares it with what is there then.
    pub fn write(&self, path: &Path, mark: u64) -> Result<(), TraceError> {
        file::write(path, &self.tokens, &self.order, mark)
    }

    /// Refuses an index of other tokens than `tokens`; `path` is its file.
    pub fn check_tokens(&self, path: &Path, tokens: &[u32]) -> Result<(), TraceError> {
        if self.tokens == tokens { Ok(()) } else { Err(TraceError::OtherTokens { path: path.to_path_buf() }) }
    }

    /// Tokens indexed.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing is indexed.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The places where `stretch` stands.
    pub fn find(&self, stretch: &[u32]) -> Occurrences {
        let first = self.order.partition_point(|at| self.compare(*at, stretch) == Ordering::Less);
        let len = self.order[first..].partition_point(|at| self.compare(*at, stretch) == Ordering::Equal);
        Occurrences(first..first + len)
    }

    /// The suffix at `at`, cut to the length of `stretch`, against `stretch`.
    fn compare(&self, at: u32, stretch: &[u32]) -> Ordering {
        let suffix = &self.tokens[at as usize..];
        suffix[..suffix.len().min(stretch.len())].cmp(stretch)
    }

    /// How many tokens from the front of `text` stand somewhere: the longest match of a suffix of a text. O(L log N).
    pub fn longest_match(&self, text: &[u32]) -> usize {
        // The suffixes that share most with `text` are its neighbours in the order.
        let place = self.order.partition_point(|at| self.tokens[*at as usize..] < *text);
        let shared = |i: usize| {
            let suffix = self.order.get(i).map_or(&[][..], |at| &self.tokens[*at as usize..]);
            suffix.iter().zip(text).take_while(|(a, b)| a == b).count()
        };
        let before = place.checked_sub(1).map_or(0, shared);
        before.max(shared(place))
    }

    /// Positions of some of the places, `most` at most, the earliest in the data first among those looked at.
    pub fn positions(&self, found: &Occurrences, most: usize) -> Vec<usize> {
        let mut some: Vec<usize> = self.order[found.0.clone()].iter().take(most).map(|at| *at as usize).collect();
        some.sort_unstable();
        some
    }

    /// Number of the document that holds position `at`, and the range of its tokens.
    pub fn document(&self, at: usize) -> (usize, Range<usize>) {
        let number = self.starts.partition_point(|start| *start as usize <= at) - 1;
        let end = self.starts.get(number + 1).map_or(self.tokens.len(), |start| *start as usize);
        (number, self.starts[number] as usize..end)
    }

    /// Documents indexed.
    pub fn documents(&self) -> usize {
        self.starts.len()
    }

    /// The tokens of a range.
    pub fn tokens(&self, range: Range<usize>) -> &[u32] {
        &self.tokens[range]
    }
}

/// Where documents begin: behind each border, and where the border itself stands if it stands in front of a document.
fn starts(tokens: &[u32], border: u32) -> Vec<u32> {
    let mut starts = vec![0];
    for (at, token) in tokens.iter().enumerate() {
        let next = at as u32 + 1;
        if *token == border && (next as usize) < tokens.len() && at > 0 {
            starts.push(next);
        }
    }
    starts
}

fn sort(tokens: &[u32]) -> Result<Vec<u32>, TraceError> {
    let failed = |e: libsais::LibsaisError| TraceError::Sort(format!("{e:?}"));
    let largest = tokens.iter().copied().max().unwrap_or(0);
    let order: Vec<i32> = if let Ok(narrow) = tokens.iter().map(|t| u16::try_from(*t)).collect::<Result<Vec<u16>, _>>()
    {
        SuffixArrayConstruction::for_text(&narrow)
            .in_owned_buffer32()
            .single_threaded()
            .run()
            .map_err(failed)?
            .into_vec()
    } else {
        // Token ids are below 2³¹ in every vocabulary; the ids stay as they are, so the order is that of the ids.
        if i32::try_from(largest).is_err() {
            return Err(TraceError::Sort(format!("token id {largest}")));
        }
        let mut wide: Vec<i32> = tokens.iter().map(|t| t.cast_signed()).collect();
        SuffixArrayConstruction::for_text_mut(&mut wide)
            .in_owned_buffer32()
            .single_threaded()
            .run()
            .map_err(failed)?
            .into_vec()
    };
    Ok(order.into_iter().map(i32::cast_unsigned).collect())
}
