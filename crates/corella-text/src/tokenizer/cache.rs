//! Ids of words that came before: most words of a text come again and again.

/// Longest piece, in bytes, that is kept: the key holds its bytes and its length.
const LONGEST: usize = 15;
/// Most ids of a piece that is kept.
const MOST_IDS: usize = 7;

/// A table of fixed size: a new piece takes the place of the old one with the same hash. So memory is bounded, and
/// nothing but time depends on what came before.
#[derive(Debug)]
pub struct PieceCache {
    entries: Vec<Entry>,
    shift: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The piece's bytes, its length in the last one; 0 where empty.
    key: u128,
    ids: [u32; MOST_IDS],
    len: u32,
}

/// A piece that may be kept.
#[derive(Clone, Copy)]
pub struct Key(u128);

impl Key {
    /// The key of `bytes[start..end]`, unless it is too long.
    #[inline]
    pub fn of(bytes: &[u8], start: usize, end: usize) -> Option<Key> {
        let len = end - start;
        if len > LONGEST {
            return None;
        }
        // Sixteen bytes at once where the text has them; what is behind the piece is cut off.
        let all = match bytes.get(start..start + 16).and_then(|b| <[u8; 16]>::try_from(b).ok()) {
            Some(all) => all,
            None => {
                let mut all = [0; 16];
                all[..len].copy_from_slice(&bytes[start..end]);
                all
            }
        };
        let kept = u128::from_le_bytes(all) & ((1 << (8 * len)) - 1);
        Some(Key(kept | (len as u128) << 120))
    }
}

impl PieceCache {
    /// A cache for a text of about so many bytes: from 256 to 32,768 pieces of 48 bytes.
    pub fn for_text(bytes: usize) -> Self {
        let bits = (bytes / 16).next_power_of_two().trailing_zeros().clamp(8, 15);
        let empty = Entry { key: 0, ids: [0; MOST_IDS], len: 0 };
        PieceCache { entries: vec![empty; 1 << bits], shift: 64 - bits }
    }

    #[inline]
    fn slot(&self, key: Key) -> usize {
        let (low, high) = (key.0 as u64, (key.0 >> 64) as u64);
        let mixed = (low ^ high.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> self.shift) as usize
    }

    /// The ids of a piece that was kept.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&[u32]> {
        let entry = &self.entries[self.slot(key)];
        if entry.key == key.0 { entry.ids.get(..entry.len as usize) } else { None }
    }

    /// Keeps the ids of a piece, unless they are too many.
    pub fn put(&mut self, key: Key, ids: &[u32]) {
        if ids.len() <= MOST_IDS {
            let slot = self.slot(key);
            let entry = &mut self.entries[slot];
            entry.key = key.0;
            entry.len = ids.len() as u32;
            entry.ids[..ids.len()].copy_from_slice(ids);
        }
    }
}
