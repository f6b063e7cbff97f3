//! Token healing: where a prompt ends inside what the model would write as one token (`http:`, a space at the end), its
//! last tokens are taken back, and the continuation begins with tokens that spell them again and may say more.
//!
//! Tokenizers cut a text from its beginning on, so the last tokens of a prompt are those of a text that ends there, which
//! training data seldom do. The name of the parameter is that of other servers.

use corella_text::tokenizer::Tokenizer;

/// Most tokens that are taken back.
const MOST: usize = 8;

/// How many of the last tokens to take back: as many as stand together at the beginning of a longer token. At least one
/// token stays.
pub fn taken_back(ids: &[u32], tokenizer: &Tokenizer) -> usize {
    let longest = ids.len().saturating_sub(1).min(MOST);
    let open = |back: &usize| {
        let ending = spelled(ids, *back, tokenizer);
        let goes_on = |id: u32| {
            let token = tokenizer.token_bytes(id);
            token.len() > ending.len() && token.starts_with(&ending) && !tokenizer.is_special(id)
        };
        let special = ids[ids.len() - back..].iter().any(|id| tokenizer.is_special(*id));
        !special && !ending.is_empty() && (0..tokenizer.vocab_size() as u32).any(goes_on)
    };
    (1..=longest).rev().find(open).unwrap_or(0)
}

/// The bytes of the last `back` tokens.
pub fn spelled(ids: &[u32], back: usize, tokenizer: &Tokenizer) -> Vec<u8> {
    (ids.len() - back..ids.len()).flat_map(|at| tokenizer.token_bytes_after(&ids[..at], ids[at])).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_a_longer_token_is_taken_back_and_nothing_else() {
        let gpt2 = Tokenizer::gpt2();
        let healed = |text: &str| {
            let mut ids = vec![gpt2.start_of_text()];
            ids.extend(gpt2.encode(text));
            let back = taken_back(&ids, &gpt2);
            String::from_utf8(spelled(&ids, back, &gpt2)).expect("text")
        };
        // The vocabulary has `://`, and words with a space in front.
        assert_eq!(healed("The link is http:"), ":");
        assert_eq!(healed("The cat sat on the mat and "), " ");
        // ` intern` is one token and begins ` international`.
        assert_eq!(healed("an intern"), " intern");
        assert_eq!(healed(""), "", "the token that marks the start stays");
        assert_eq!(taken_back(&[], &gpt2), 0);
    }

    #[test]
    fn a_border_inside_a_character_is_healed_in_bytes() {
        let gpt2 = Tokenizer::gpt2();
        let ids = [vec![gpt2.start_of_text()], gpt2.encode("日")].concat();
        let back = taken_back(&ids, &gpt2);
        let bytes = spelled(&ids, back, &gpt2);
        assert!("日".as_bytes().ends_with(&bytes));
    }
}
