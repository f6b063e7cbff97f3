//! Log-likelihoods of continuations and of texts.

use corella_model::TextModel;
use corella_text::tokenizer::Tokenizer;

use crate::Pair;

/// What the model says of a continuation that it can judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// Natural log of its probability, given the context.
    pub log_prob: f64,
    /// Whether every token of it is the likeliest at its place.
    pub greedy: bool,
    /// Whether the context was longer than the model's, and lost its beginning.
    pub truncated: bool,
}

/// Logits that hold something that is no number, or that is infinite: no probability can be made of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's logits are not numbers")]
pub struct NotNumbers;

/// Logits, and what makes probabilities of them.
struct Row {
    logits: Vec<f32>,
    top: f32,
    log_sum: f64,
}

impl Row {
    fn new(logits: &[f32]) -> Result<Row, NotNumbers> {
        let (top, log_sum) = normaliser(logits)?;
        Ok(Row { logits: logits.to_vec(), top, log_sum })
    }
}

/// The largest logit, and the log of the sum of exp(logit - largest).
fn normaliser(logits: &[f32]) -> Result<(f32, f64), NotNumbers> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - f64::from(top)).exp()).sum();
    // The largest passes over what is no number; the sum does not.
    if sum.is_finite() { Ok((top, sum.ln())) } else { Err(NotNumbers) }
}

fn log_probability(logits: &[f32], target: u32, (top, log_sum): (f32, f64)) -> f64 {
    f64::from(logits[target as usize]) - f64::from(top) - log_sum
}

/// Reads contexts and their continuations with one model. Tokens that the next text begins with too are not computed again:
/// the examples in front of all items, and the context of several choices.
pub struct Reader<'a> {
    model: &'a mut dyn TextModel,
    tokenizer: &'a Tokenizer,
    /// The tokens that the model holds.
    held: Vec<u32>,
    /// What follows the first so many of them.
    behind: Option<(usize, Row)>,
}

impl<'a> Reader<'a> {
    /// Forgets what the model was fed. Its weights must stay as they are.
    pub fn new(model: &'a mut dyn TextModel, tokenizer: &'a Tokenizer) -> Reader<'a> {
        model.reset();
        Reader { model, tokenizer, held: Vec::new(), behind: None }
    }

    /// Ids as lm-eval has them: special tokens by name, and the token that starts a text in front where the tokenizer's files
    /// ask for it and the text does not begin with it.
    fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = self.tokenizer.encode_with_special(text);
        let start = self.tokenizer.start_of_text();
        if self.tokenizer.roles().add_bos == Some(true) && ids.first() != Some(&start) {
            ids.insert(0, start);
        }
        ids
    }

    /// Log-likelihood of a continuation, tokenised as lm-eval does: spaces at the end of the context go over to the
    /// continuation; the continuation's ids are those of the whole text behind as many ids as the context has by itself, and
    /// they stand behind those of the context by itself, even where a token of the whole text reaches over the border; an
    /// empty context is the token that starts a text; what is too long loses its beginning. `None` where lm-eval refuses: where the
    /// tokenizer joins the continuation to the context's last token, so that no token is left to judge; where the context is spaces
    /// alone and no token stands in front; and where the continuation alone is longer than the model's context.
    ///
    /// `preamble` stands in front of the pair's context.
    pub fn log_likelihood(&mut self, preamble: &str, pair: &Pair) -> Result<Option<Likelihood>, NotNumbers> {
        let whole = format!("{preamble}{}", pair.context);
        let (context, spaces) = whole.split_at(whole.trim_end().len());
        let continuation = format!("{spaces}{}", pair.continuation);
        let (mut ids, start) = if whole.is_empty() {
            let start = [self.tokenizer.start_of_text()];
            ([&start[..], &self.tokenizer.encode_with_special(&continuation)].concat(), 1)
        } else {
            let (mut ids, whole) = (self.encode(context), self.encode(&format!("{context}{continuation}")));
            let start = ids.len();
            ids.extend(whole.into_iter().skip(start));
            (ids, start)
        };
        let (judged, most) = (ids.len() - start, self.model.context_len());
        if start == 0 || judged == 0 || judged > most {
            return Ok(None);
        }
        let too_long = ids.len().saturating_sub(most + 1);
        ids.drain(..too_long);
        let (context, targets) = ids.split_at(ids.len() - judged);
        self.judge(context, targets)
            .map(|(log_prob, greedy)| Some(Likelihood { log_prob, greedy, truncated: too_long > 0 }))
    }

    /// Log-probability of the targets behind a context, and whether each is the likeliest at its place.
    fn judge(&mut self, context: &[u32], targets: &[u32]) -> Result<(f64, bool), NotNumbers> {
        let (mut log_prob, mut greedy) = (0.0, true);
        let mut add = |logits: &[f32], target: u32, normaliser: (f32, f64)| {
            log_prob += log_probability(logits, target, normaliser);
            greedy &= logits.iter().position(|l| *l == normaliser.0) == Some(target as usize);
        };
        let row = self.row_behind(context)?;
        add(&row.logits, targets[0], (row.top, row.log_sum));
        // Nothing is judged behind the last.
        let fed = &targets[..targets.len() - 1];
        if !fed.is_empty() {
            self.go_back(context.len());
            let mut failed = None;
            self.model.feed_each(fed, &mut |i, logits| match normaliser(logits) {
                Ok(normaliser) => add(logits, targets[i + 1], normaliser),
                Err(error) => failed = Some(error),
            });
            self.held.extend(fed);
            failed.map_or(Ok(()), Err)?;
        }
        Ok((log_prob, greedy))
    }

    /// What follows a context, of which only those tokens are fed that the model does not hold.
    fn row_behind(&mut self, context: &[u32]) -> Result<&Row, NotNumbers> {
        let same = self.held.iter().zip(context).take_while(|(a, b)| a == b).count();
        let known = self.behind.take().filter(|(length, _)| same == context.len() && *length == same);
        let row = match known {
            Some((_, row)) => row,
            None => {
                // Logits come of a token that is fed.
                self.go_back(same.min(context.len() - 1));
                let rest = &context[self.held.len()..];
                self.held.extend(rest);
                Row::new(self.model.feed(rest))?
            }
        };
        Ok(&self.behind.insert((context.len(), row)).1)
    }

    fn go_back(&mut self, position: usize) {
        self.model.rewind(position);
        self.held.truncate(position);
    }
}

/// Negative log-likelihood, in nats, of every token after the first, given those before it: at least two tokens, of which
/// all but the last fit into the context.
pub fn negative_log_likelihood(model: &mut dyn TextModel, tokens: &[u32]) -> Result<f64, NotNumbers> {
    let (mut nll, mut failed) = (0.0, None);
    model.reset();
    model.feed_each(&tokens[..tokens.len() - 1], &mut |i, logits| match normaliser(logits) {
        Ok(normaliser) => nll -= log_probability(logits, tokens[i + 1], normaliser),
        Err(error) => failed = Some(error),
    });
    failed.map_or(Ok(nll), Err)
}
