//! MinHash signatures by one permutation: one hash per shingle instead of one per shingle and row.
//!
//! Each shingle's hash chooses a bin and, in it, a value; a bin keeps its smallest (Li, Owen and Zhang 2012). A bin that
//! stayed empty takes the value of another, chosen by a sequence that depends on the bin alone (Shrivastava 2017), so that
//! two signatures agree in a bin with a probability equal to the Jaccard similarity of the sets.

use crate::splitmix::splitmix;

/// Bins of a signature.
pub(super) const BINS: usize = 112;
/// Words of a shingle.
const SHINGLE: usize = 5;

/// The smallest values of the bins, 16 bits of each: two that differ agree by chance once in 65,536.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature(pub [u16; BINS]);

impl Signature {
    /// Bytes on disk.
    pub(in crate::data) const BYTES: usize = 2 * BINS;

    /// Estimates the Jaccard similarity of the shingle sets.
    pub fn similarity(&self, other: &Signature) -> f64 {
        let equal = self.0.iter().zip(&other.0).filter(|(a, b)| a == b).count();
        equal as f64 / BINS as f64
    }

    /// A number for band `band` of so many rows: equal bands, equal numbers.
    pub(super) fn band(&self, band: usize, rows: usize) -> u64 {
        self.0[band * rows..(band + 1) * rows].iter().fold(band as u64, |h, v| mix(h ^ u64::from(*v)))
    }

    pub(in crate::data) fn to_bytes(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    }

    pub(in crate::data) fn from_bytes(bytes: &[u8]) -> Signature {
        let mut values = [0; BINS];
        for (value, pair) in values.iter_mut().zip(bytes.chunks_exact(2)) {
            *value = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Signature(values)
    }
}

/// The signature of a text. Words are runs of letters and digits, in lower case; a character of a script without spaces is a
/// word by itself. A text shorter than a shingle is one shingle; of one without words, all its characters are.
pub fn signature(text: &str) -> Signature {
    let mut bins = [u32::MAX; BINS];
    let mut filled = [false; BINS];
    let mut last = [0u64; SHINGLE];
    let mut count = 0usize;
    let mut put = |last: &[u64; SHINGLE], count: usize| {
        // The oldest word first, whatever place of the ring it has.
        let hash = mix((0..SHINGLE)
            .fold(0u64, |h, i| (h.rotate_left(25) ^ last[(count + i) % SHINGLE]).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let bin = ((u128::from(hash) * BINS as u128) >> 64) as usize;
        bins[bin] = bins[bin].min(hash as u32);
        filled[bin] = true;
    };
    for_each_word(text, |word| {
        last[count % SHINGLE] = word;
        count += 1;
        if count >= SHINGLE {
            put(&last, count);
        }
    });
    if count == 0 {
        last[0] = text.split_whitespace().fold(0, |h, piece| piece.chars().fold(h, |h, c| mix(h ^ u64::from(c))));
    }
    if count < SHINGLE {
        put(&last, count);
    }
    let mut values = [0u16; BINS];
    for (bin, value) in values.iter_mut().enumerate() {
        let mut from = bin;
        let mut step = bin as u64;
        while !filled[from] {
            step = mix(step ^ 0x51ed_270b_0f1e_2d3c);
            from = ((u128::from(step) * BINS as u128) >> 64) as usize;
        }
        // Smallest values are small: mixing spreads them over all 16 bits.
        *value = mix(u64::from(bins[from])) as u16;
    }
    Signature(values)
}

/// Hashes of the words.
fn for_each_word(text: &str, mut word: impl FnMut(u64)) {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    let feed = |hash: u64, c: u32| (hash ^ u64::from(c)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = START;
    for c in text.chars() {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() {
                hash = feed(hash, u32::from(c.to_ascii_lowercase()));
                continue;
            }
        } else if c.is_alphanumeric() {
            if !is_unspaced(c) {
                hash = c.to_lowercase().fold(hash, |h, c| feed(h, u32::from(c)));
                continue;
            }
            if hash != START {
                word(hash);
            }
            hash = feed(START, u32::from(c));
        }
        if hash != START {
            word(hash);
            hash = START;
        }
    }
    if hash != START {
        word(hash);
    }
}

/// Kana, Chinese characters, and other scripts that put no spaces between words.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x9fff | 0x20000..=0x3ffff)
}

/// The first number from the seed `x`.
fn mix(mut x: u64) -> u64 {
    splitmix(&mut x)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::signature;

    /// The similarity by its definition.
    fn jaccard(a: &str, b: &str) -> f64 {
        let set = |t: &str| -> HashSet<Vec<String>> {
            let words: Vec<String> = t.split_whitespace().map(str::to_owned).collect();
            words.windows(5).map(<[String]>::to_vec).collect()
        };
        let (a, b) = (set(a), set(b));
        a.intersection(&b).count() as f64 / a.union(&b).count() as f64
    }

    #[test]
    fn the_estimate_follows_the_true_similarity_for_long_and_short_texts() {
        for words in [40, 200, 2000] {
            for percent in [0, 1, 2, 5, 10, 30] {
                let (mut error, trials) = (0.0, 20);
                for trial in 0..trials {
                    let word = |i: usize| format!("w{}", (i + 1) * (trial * 7919 + 13) % 100_003);
                    let a: Vec<String> = (0..words).map(word).collect();
                    let mut b = a.clone();
                    (0..words * percent / 100).for_each(|k| b[k * 37 % words] = format!("x{k}"));
                    let (a, b) = (a.join(" "), b.join(" "));
                    error += signature(&a).similarity(&signature(&b)) - jaccard(&a, &b);
                }
                let mean = error / trials as f64;
                assert!(mean.abs() < 0.03, "{words} words, {percent} % changed: off by {mean:.3} on average");
            }
        }
    }

    #[test]
    fn case_and_punctuation_do_not_count() {
        assert_eq!(signature("The quick, brown fox jumps over!"), signature("the Quick brown fox; jumps over"));
        assert_eq!(signature("one").similarity(&signature("one")), 1.0);
        assert!(signature("one").similarity(&signature("two")) < 0.2);
        assert_eq!(signature("* * *").similarity(&signature("***")), 1.0);
        assert!(signature("* * *").similarity(&signature("--- ---")) < 0.2);
        assert_eq!(signature("日本語の文章です"), signature("日本語 の 文章です"));
    }
}
