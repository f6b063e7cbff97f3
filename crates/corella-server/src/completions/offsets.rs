//! Where the tokens of a choice stand in its text: OpenAI's `text_offset`, in characters.
//!
//! A token begins where the bytes before it end. One that begins inside a character has the offset of that character; one
//! that adds nothing to the text has the offset of what follows.

use std::collections::VecDeque;

use corella_text::tokenizer::Tokenizer;

/// The place that a choice has reached.
#[derive(Clone, Debug)]
pub struct Offsets {
    /// Characters written so far, the prompt's included if it is echoed.
    chars: usize,
    /// What healing took back of the prompt.
    owed: Vec<u8>,
    /// The offset of each of these bytes that no token has spelled yet.
    unspelled: VecDeque<usize>,
    /// What stands for the tokens so far.
    before: Vec<u32>,
    /// Special tokens that are drawn are not in the text.
    skip_special: bool,
}

impl Offsets {
    /// Before the continuation of `prompt`, whose first tokens spell again what is `owed`.
    pub fn new(prompt: &[u32], owed: Vec<u8>, skip_special: bool, tokenizer: &Tokenizer) -> Offsets {
        let mut before = Vec::new();
        prompt.iter().for_each(|id| follow(&mut before, *id, tokenizer));
        Offsets { chars: 0, unspelled: vec![0; owed.len()].into(), owed, before, skip_special }
    }

    /// The offsets of the prompt's tokens, whose text with what is owed stands in front of the choice.
    pub fn echo(&mut self, prompt: impl Iterator<Item = u32>, tokenizer: &Tokenizer) -> Vec<usize> {
        let (mut bytes, mut begins, mut before) = (Vec::new(), Vec::new(), Vec::new());
        for (at, id) in prompt.enumerate() {
            begins.push(bytes.len());
            // The token that marks the start is not in the text.
            if at > 0 || id != tokenizer.start_of_text() {
                bytes.extend(tokenizer.token_bytes_after(&before, id));
                follow(&mut before, id, tokenizer);
            }
        }
        let end = bytes.len();
        bytes.extend(&self.owed);
        let offsets = self.write(&bytes);
        self.unspelled = offsets[end..bytes.len()].iter().copied().collect();
        begins.into_iter().map(|at| offsets[at]).collect()
    }

    /// The offsets of drawn tokens that come next.
    pub fn next(&mut self, drawn: impl Iterator<Item = u32>, tokenizer: &Tokenizer) -> Vec<usize> {
        let mut bytes = Vec::new();
        // Where each begins: in what is owed, or in `bytes`.
        let mut begins = Vec::new();
        for id in drawn {
            let token = tokenizer.token_bytes_after(&self.before, id);
            follow(&mut self.before, id, tokenizer);
            begins.push(self.unspelled.front().copied().ok_or(bytes.len()));
            let spelled = token.len().min(self.unspelled.len());
            self.unspelled.drain(..spelled);
            if !(self.skip_special && tokenizer.is_special(id)) {
                bytes.extend(&token[spelled..]);
            }
        }
        let offsets = self.write(&bytes);
        begins.into_iter().map(|begin| begin.unwrap_or_else(|at| offsets[at])).collect()
    }

    /// The offset of each of `bytes`, which are written now, and of their end.
    fn write(&mut self, bytes: &[u8]) -> Vec<usize> {
        let mut offsets = Vec::with_capacity(bytes.len() + 1);
        for chunk in bytes.utf8_chunks() {
            for one in chunk.valid().chars() {
                offsets.extend(std::iter::repeat_n(self.chars, one.len_utf8()));
                self.chars += 1;
            }
            // Bytes that are no character are shown as one.
            if !chunk.invalid().is_empty() {
                offsets.extend(std::iter::repeat_n(self.chars, chunk.invalid().len()));
                self.chars += 1;
            }
        }
        offsets.push(self.chars);
        offsets
    }
}

/// Joins a token to those `before` it. What a token's bytes depend on is the last of these and whether all are special, so one
/// that is not and the last are enough.
fn follow(before: &mut Vec<u32>, id: u32, tokenizer: &Tokenizer) {
    before.retain(|id| !tokenizer.is_special(*id));
    before.truncate(1);
    before.push(id);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A choice as it is written: each stretch with its tokens.
    fn offsets_of(prompt: &[u32], drawn: &[u32], tokenizer: &Tokenizer, together: bool) -> Vec<usize> {
        let mut place = Offsets::new(prompt, Vec::new(), false, tokenizer);
        let mut offsets = place.echo(prompt.iter().copied(), tokenizer);
        let size = if together { drawn.len().max(1) } else { 1 };
        drawn.chunks(size).for_each(|part| offsets.extend(place.next(part.iter().copied(), tokenizer)));
        offsets
    }

    #[test]
    fn whole_characters_stand_where_the_offset_says() {
        let gpt2 = Tokenizer::gpt2();
        let start = gpt2.start_of_text();
        let (prompt, drawn) = (gpt2.encode("Zwölf Boxkämpfer"), gpt2.encode(" jagen Viktor quer durch Köln."));
        let ids = [&[start][..], &prompt, &drawn].concat();
        let text = gpt2.decode(&ids[1..]);
        let split = 1 + prompt.len();
        let offsets = offsets_of(&ids[..split], &ids[split..], &gpt2, true);
        assert_eq!(offsets[0], 0, "the token that marks the start has no text");
        for (id, offset) in ids[1..].iter().zip(&offsets[1..]) {
            let rest: String = text.chars().skip(*offset).collect();
            let token = String::from_utf8(gpt2.token_bytes(*id).to_vec()).expect("whole characters");
            assert!(rest.starts_with(&token), "{token:?} is not at {offset} of {text:?}");
        }
        assert_eq!(offsets_of(&ids[..split], &ids[split..], &gpt2, false), offsets, "token by token");
    }

    #[test]
    fn parts_of_a_character_have_the_offset_of_the_character() {
        let gpt2 = Tokenizer::gpt2();
        // 日 is e6 97 a5: two tokens, with `a` in front and `b` behind.
        let ids: Vec<u32> = ["a", "日", "b"].iter().flat_map(|text| gpt2.encode(text)).collect();
        assert_eq!(ids.len(), 4, "{ids:?}");
        assert_eq!(offsets_of(&ids, &[], &gpt2, true), [0, 1, 1, 2]);
        // The prompt ends inside the character: each half is shown as a character that cannot be shown.
        assert_eq!(offsets_of(&ids[..2], &ids[2..], &gpt2, true), [0, 1, 2, 3]);
    }

    #[test]
    fn tokens_that_spell_the_end_of_the_prompt_stand_where_it_stands() {
        let gpt2 = Tokenizer::gpt2();
        let ids = |text: &str| gpt2.encode(text);
        let (prompt, drawn) = (ids("an"), [ids(" international"), ids(" flight")].concat());
        let mut place = Offsets::new(&prompt, b" intern".to_vec(), false, &gpt2);
        assert_eq!(place.echo(prompt.iter().copied(), &gpt2), [0]);
        assert_eq!(place.next(drawn.iter().copied(), &gpt2), [2, 16], "an| international| flight");
        let mut place = Offsets::new(&prompt, b" intern".to_vec(), false, &gpt2);
        assert_eq!(place.next(drawn.iter().copied(), &gpt2), [0, 7], "ational| flight");
    }

    #[test]
    fn special_tokens_take_no_room_where_they_are_left_out() {
        let gpt2 = Tokenizer::gpt2();
        let drawn = [gpt2.encode("a"), vec![gpt2.end_of_text()], gpt2.encode("b")].concat();
        let next = |skip| Offsets::new(&[], Vec::new(), skip, &gpt2).next(drawn.iter().copied(), &gpt2);
        assert_eq!((next(true), next(false)), (vec![0, 1, 1], vec![0, 1, 14]));
    }
}
