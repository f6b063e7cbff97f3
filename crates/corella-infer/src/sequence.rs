//! One continuation in the making: its tokens, its pages, and the text that came of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::{FinishReason, TokenLogProb};
use crate::lookup::Lookup;
use crate::pages::{Before, PagePool};
use crate::request::Request;
use crate::sampler::History;
use crate::text::{Released, TextStream};

/// Bytes of a token behind others: as the tokenizer has them, but for a space that belongs to no text (some vocabularies put
/// one in front of a text's first word).
pub type TokenBytes = Arc<dyn Fn(&[u32], u32) -> Vec<u8> + Send + Sync>;

/// One sample of a request.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Number of its job; jobs are numbered as they come.
    pub job: u64,
    /// Which sample of the job.
    pub sample: usize,
    /// Prompt and output.
    pub tokens: Vec<u32>,
    /// Tokens whose keys and values are in the pages.
    pub computed: usize,
    /// Pages of the positions from 0 on.
    pub pages: Vec<u32>,
    /// Content in front of the first page that is not yet published.
    pub before: Before,
    /// Pages that are published, or found.
    pub published: usize,
    /// Tokens drawn.
    pub drawn: usize,
    /// Bytes spelled of those that are owed.
    spelled: usize,
    /// Σ of the raw log-probabilities of the drawn tokens, where they are ranked.
    pub log_prob: f64,
    pub history: History,
    pub lookup: Lookup,
    text: TextStream,
    /// Tokens that are not yet in a piece.
    pending: VecDeque<TokenLogProb>,
}

/// Text and tokens that are certain, and the end if it has come.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub text: String,
    pub tokens: Vec<TokenLogProb>,
    pub end: Option<FinishReason>,
}

impl Sequence {
    /// Sample `sample` of a request, at the start of the prompt.
    pub fn new(job: u64, sample: usize, request: &Request) -> Sequence {
        Sequence {
            job,
            sample,
            tokens: request.prompt.to_vec(),
            computed: 0,
            pages: Vec::new(),
            before: Before::Start(request.scope.clone()),
            published: 0,
            drawn: 0,
            spelled: 0,
            log_prob: 0.0,
            history: History::new(&request.sampling, &request.prompt),
            lookup: Lookup::new(request.lookup),
            text: TextStream::new(request.stops.clone(), request.keep_stop),
            pending: VecDeque::new(),
        }
    }

    /// Age: the smaller, the older.
    pub fn age(&self) -> (u64, usize) {
        (self.job, self.sample)
    }

    /// Tokens to compute before the next draw, or before the end if nothing is drawn.
    pub fn target(&self, request: &Request) -> usize {
        if request.max_tokens == 0 { request.prompt_rows() } else { self.tokens.len() }
    }

    /// Bytes that the next tokens must spell before there is text.
    pub fn owes<'a>(&self, request: &'a Request) -> &'a [u8] {
        &request.owed[self.spelled..]
    }

    /// Joins a drawn token to the output, or ends with it.
    pub fn push(&mut self, token: TokenLogProb, raw: f64, request: &Request, bytes: &TokenBytes) -> Piece {
        let id = token.id;
        self.drawn += 1;
        self.log_prob += raw;
        // Up to the minimum, stop tokens are forbidden, and stop strings that end there are text. What is owed is no output yet.
        let owed = self.owes(request).len();
        if owed == 0 && self.drawn > request.min_tokens && request.stop_ids.binary_search(&id).is_ok() {
            return self.end(FinishReason::StopToken(id));
        }
        let bytes = bytes(&self.tokens, id);
        let owed = owed.min(bytes.len());
        self.spelled += owed;
        self.tokens.push(id);
        self.history.push(id);
        self.pending.push_back(token);
        let shown = if request.hidden.binary_search(&id).is_ok() { &[][..] } else { &bytes[owed..] };
        let released = self.text.push(shown, self.drawn > request.min_tokens);
        let end = released.stopped.map(|index| FinishReason::StopString(request.stops.text(index).to_owned()));
        let mut piece = self.piece(released, end);
        if piece.end.is_none() && self.drawn == request.max_tokens {
            let rest = self.end(FinishReason::Length);
            piece.text.push_str(&rest.text);
            piece.tokens.extend(rest.tokens);
            piece.end = rest.end;
        }
        piece
    }

    /// The end: what was held back is text.
    fn end(&mut self, reason: FinishReason) -> Piece {
        let released = self.text.finish();
        self.piece(released, Some(reason))
    }

    fn piece(&mut self, released: Released, end: Option<FinishReason>) -> Piece {
        Piece { text: released.text, tokens: self.pending.drain(..released.tokens).collect(), end }
    }

    /// Gives all pages back, the last first, so that the beginnings of texts stay known longest.
    pub fn release(&mut self, pool: &mut PagePool, request: &Request) {
        for page in self.pages.drain(..).rev() {
            pool.give_back(page);
        }
        self.computed = 0;
        self.published = 0;
        self.before = Before::Start(request.scope.clone());
    }
}
