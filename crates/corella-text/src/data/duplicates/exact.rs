//! A hash of what a text says, whatever its case and white space.

use twox_hash::xxhash3_128::Hasher;

/// XXH3 (128 bits) of the lower-case words, one space between them.
pub fn text_hash(text: &str) -> u128 {
    let mut hasher = Hasher::new();
    let mut buffer = String::with_capacity(1 << 12);
    for word in text.split_whitespace() {
        if word.is_ascii() {
            let start = buffer.len();
            buffer.push_str(word);
            buffer[start..].make_ascii_lowercase();
        } else {
            buffer.extend(word.chars().flat_map(char::to_lowercase));
        }
        buffer.push(' ');
        if buffer.len() >= 1 << 11 {
            hasher.write(buffer.as_bytes());
            buffer.clear();
        }
    }
    hasher.write(buffer.as_bytes());
    hasher.finish_128()
}

#[cfg(test)]
mod tests {
    use super::text_hash;

    #[test]
    fn case_and_white_space_do_not_count_and_everything_else_does() {
        assert_eq!(text_hash("The Fox\n\n ÉTÉ"), text_hash("the fox été "));
        assert_ne!(text_hash("the fox"), text_hash("the fox."));
        assert_ne!(text_hash("the fox"), text_hash("thefox"));
        let long = "word ".repeat(10_000);
        assert_eq!(text_hash(&long), text_hash(&long.to_uppercase()));
        assert_ne!(text_hash(&long), text_hash(&long[5..]));
    }
}
