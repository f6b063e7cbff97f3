//! Text as tokens arrive, never half a character.

use super::Tokenizer;

/// Turns a stream of ids into text.
#[derive(Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    pending: Vec<u8>,
    /// The next token begins the text: the space that encoding put in front of it is not shown.
    at_start: bool,
}

impl StreamDecoder {
    /// A decoder of ids that go on from others.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        StreamDecoder { tokenizer: tokenizer.clone(), pending: Vec::new(), at_start: false }
    }

    /// A decoder of ids that begin a text.
    pub fn at_start(tokenizer: &Tokenizer) -> Self {
        StreamDecoder { at_start: tokenizer.prefixes_space(), ..StreamDecoder::new(tokenizer) }
    }

    /// The characters that this token completes.
    pub fn push(&mut self, id: u32) -> String {
        let token = self.tokenizer.token_bytes(id);
        self.pending.extend_from_slice(token.strip_prefix(b" ").filter(|_| self.at_start).unwrap_or(token));
        self.at_start &= self.tokenizer.is_special(id);
        let mut out = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(text) => {
                    out.push_str(text);
                    self.pending.clear();
                    return out;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    out.push_str(&String::from_utf8_lossy(&self.pending[..valid]));
                    // Bytes that can never become a character are replaced; an unfinished one waits.
                    let Some(bad) = error.error_len() else {
                        self.pending.drain(..valid);
                        return out;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.pending.drain(..valid + bad);
                }
            }
        }
    }

    /// What is left at the end of the text.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}
