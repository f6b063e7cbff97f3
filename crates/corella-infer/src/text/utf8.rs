//! Bytes in, whole characters out.

/// Turns a stream of bytes into text; an unfinished character waits for its rest.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The start of a character: at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// The characters that `bytes` complete. Bytes that can never become one turn into U+FFFD, as in
    /// [`String::from_utf8_lossy`].
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut out = String::new();
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(bad) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[bad..];
                }
            }
        }
        let left = rest.len();
        self.pending.drain(..self.pending.len() - left);
        out
    }

    /// Bytes that wait.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What is left at the end of the text: U+FFFD for an unfinished character.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}
