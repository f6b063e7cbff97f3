//! Which documents are for validation: those on whose hash the lot falls, as long as that is near the part that was asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// By what factor the documents on which the lot falls may miss the part that was asked for, before one is cut.
const SLACK: f64 = 2.0;
/// Documents that are remembered by their size. Only a few can be so large that the lot misses by much.
const REMEMBERED: usize = 1024;

/// What becomes of a document that is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    Train,
    Val,
    /// Its end is for validation: this part of it.
    Split(f64),
}

/// Counts documents for a [`Choice`], in memory that does not grow with their number.
#[derive(Debug)]
pub(super) struct Lots {
    fraction: f64,
    documents: u64,
    bytes: u64,
    chosen: u64,
    chosen_bytes: u64,
    /// Lot, number and bytes of the document with the lowest lot, and of that with the highest.
    lowest: (u64, u64, u64),
    highest: (u64, u64, u64),
    /// Bytes and number of the largest document.
    longest: (u64, u64),
    /// Bytes and numbers of the largest documents on which the lot falls, the smallest of them on top.
    largest: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Lots {
    /// Before the first document; this part of all is asked for.
    pub(super) fn new(fraction: f64) -> Lots {
        let (lowest, highest, longest) = ((u64::MAX, 0, 0), (0, 0, 0), (0, 0));
        let (documents, bytes, chosen, chosen_bytes) = (0, 0, 0, 0);
        Lots { fraction, documents, bytes, chosen, chosen_bytes, lowest, highest, longest, largest: BinaryHeap::new() }
    }

    /// Counts a document of so many bytes.
    pub(super) fn add(&mut self, number: u64, lot: u64, bytes: u64) {
        self.documents += 1;
        self.bytes += bytes;
        if self.documents == 1 || lot < self.lowest.0 {
            self.lowest = (lot, number, bytes);
        }
        self.highest = self.highest.max((lot, number, bytes));
        self.longest = self.longest.max((bytes, number));
        if falls(lot, self.fraction) {
            self.chosen += 1;
            self.chosen_bytes += bytes;
            self.largest.push(Reverse((bytes, number)));
            if self.largest.len() > REMEMBERED {
                self.largest.pop();
            }
        }
    }

    /// Documents so far.
    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    /// Decides over all that were counted. A single document is cut in two; of several, never all are for validation and,
    /// where a part is asked for, never none.
    ///
    /// By its hash a document is there or not there as a whole, and of a few large ones that may be most of the text, or next to
    /// nothing. Where it is more than twice what was asked for, the largest are trained on and the last of those is cut; where it
    /// is less than half, the largest of all is cut, if it is long enough.
    pub(super) fn decide(self) -> Choice {
        let mut choice = Choice { fraction: self.fraction, taken: None, left: Vec::new(), cut: None };
        if self.fraction <= 0.0 {
            return choice;
        }
        let (_, lowest, lowest_bytes) = self.lowest;
        if self.documents == 1 {
            choice.cut = Some((lowest, self.fraction));
            return choice;
        }
        let (mut for_val, mut largest) = (self.chosen_bytes, self.largest);
        if self.chosen == 0 {
            choice.taken = Some(lowest);
            for_val = lowest_bytes;
            largest.push(Reverse((lowest_bytes, lowest)));
        }
        let wanted = self.bytes as f64 * self.fraction;
        let (longest_bytes, longest) = self.longest;
        let missing = (wanted - for_val as f64) / longest_bytes as f64;
        if SLACK * (for_val as f64) < wanted && missing <= 0.5 {
            choice.cut = Some((longest, missing));
            return choice;
        }
        if for_val as f64 <= SLACK * wanted {
            choice.left.extend((self.chosen == self.documents).then_some(self.highest.1));
            return choice;
        }
        for Reverse((bytes, number)) in largest.into_sorted_vec() {
            let others = for_val - bytes;
            let rest = wanted - others as f64;
            if rest >= 1.0 {
                choice.cut = Some((number, rest / bytes as f64));
                break;
            }
            // Nothing of a document can be less than a character: the only one stays whole.
            if others == 0 {
                break;
            }
            choice.left.push(number);
            for_val = others;
        }
        choice.left.sort_unstable();
        choice
    }
}

/// Says of every document where it belongs. It follows from the documents alone, not from who asks.
#[derive(Debug)]
pub(super) struct Choice {
    fraction: f64,
    /// For validation although the lot falls on none.
    taken: Option<u64>,
    /// To train on although the lot falls on them, by their numbers.
    left: Vec<u64>,
    /// The document that is cut, and what part of it is for validation.
    cut: Option<(u64, f64)>,
}

impl Choice {
    /// Where document `number` belongs.
    pub(super) fn of(&self, number: u64, lot: u64) -> Part {
        match self.cut {
            Some((cut, part)) if cut == number => Part::Split(part),
            _ if self.left.binary_search(&number).is_ok() => Part::Train,
            _ if self.taken == Some(number) || falls(lot, self.fraction) => Part::Val,
            _ => Part::Train,
        }
    }
}

/// Whether the lot falls on a document: by its hash, so that the choice does not move when others are added.
fn falls(lot: u64, fraction: f64) -> bool {
    // Exact: 53 bits of the hash as a number in 0 .. 1.
    ((lot >> 11) as f64 / (1u64 << 53) as f64) < fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes for validation of documents with these lots (in hundredths) and bytes.
    fn for_val(documents: &[(u64, u64)], fraction: f64) -> (f64, Vec<Part>) {
        let mut lots = Lots::new(fraction);
        let lot = |hundredths: u64| u64::MAX / 1000 * (10 * hundredths + 5);
        for ((hundredths, bytes), number) in documents.iter().zip(0..) {
            lots.add(number, lot(*hundredths), *bytes);
        }
        let choice = lots.decide();
        let parts: Vec<Part> =
            documents.iter().zip(0..).map(|((hundredths, _), number)| choice.of(number, lot(*hundredths))).collect();
        let bytes = documents.iter().zip(&parts).map(|((_, bytes), part)| match part {
            Part::Train => 0.0,
            Part::Val => *bytes as f64,
            Part::Split(part) => *bytes as f64 * part,
        });
        (bytes.sum(), parts)
    }

    #[test]
    fn few_documents_give_no_more_than_was_asked_for() {
        // A book and a note, whichever of them the lot falls on.
        assert_eq!(for_val(&[(2, 300_000), (50, 5_000)], 0.05).0, 15_250.0);
        let (bytes, parts) = for_val(&[(50, 300_000), (2, 5_000)], 0.05);
        assert!(bytes.round() == 15_250.0 && matches!(parts[..], [Part::Split(_), Part::Val]), "{bytes}: {parts:?}");
        // It falls on none: five equal ones, of which one would be a fifth.
        let equal = [(60, 1000), (50, 1000), (40, 1000), (30, 1000), (20, 1000)];
        assert_eq!(for_val(&equal, 0.05).0, 250.0);
        assert_eq!(for_val(&equal, 0.05).1[4], Part::Split(0.25));
        // It falls on three of four: the largest two are trained on, one of them but for its end.
        let (bytes, parts) = for_val(&[(1, 500), (2, 400), (3, 30), (90, 1070)], 0.05);
        assert_eq!((bytes.round(), parts[0], parts[2]), (100.0, Part::Train, Part::Val));
        assert!(matches!(parts[1], Part::Split(part) if (part - 70.0 / 400.0).abs() < 1e-9), "{parts:?}");
        // On all of them, and nearly all is asked for: one is trained on.
        assert_eq!(for_val(&[(1, 100), (2, 100)], 0.9).1, [Part::Val, Part::Train]);
        assert_eq!(for_val(&[(1, 100), (2, 100)], 0.0).0, 0.0);
        // On one of fifty that are as long as each other: no other is long enough to be cut.
        let fifty: Vec<(u64, u64)> = (0..50).map(|i| (4 + i, 100)).collect();
        assert_eq!(for_val(&fifty, 0.05).0, 100.0);
        // Less than a byte is asked for.
        assert_eq!(for_val(&[(10, 100), (20, 100)], 1e-9).1, [Part::Val, Part::Train]);
    }

    #[test]
    fn of_many_documents_the_lot_alone_decides() {
        let many: Vec<(u64, u64)> = (0..1000).map(|i| (i * 37 % 100, 100 + i % 7)).collect();
        let (_, parts) = for_val(&many, 0.05);
        assert!(parts.iter().zip(&many).all(|(part, (lot, _))| (*part == Part::Val) == (*lot < 5)));
        // One that is as large as all others, and the small ones keep their places.
        let with_a_book: Vec<(u64, u64)> = many.iter().copied().chain([(1, 100_000)]).collect();
        let (bytes, with) = for_val(&with_a_book, 0.05);
        assert!(with[..1000] == parts[..] && matches!(with[1000], Part::Split(_)), "{:?}", with[1000]);
        let all: u64 = with_a_book.iter().map(|(_, bytes)| bytes).sum();
        assert!((bytes / all as f64 - 0.05).abs() < 1e-6);
    }
}
