//! How signatures are cut into bands so that texts of the similarity asked for meet in one of them.

use super::minhash::BINS;

/// Least similarity that can be asked for: below it bands would be so short that texts which have nothing to do with each other
/// met in most of them.
pub const LEAST_SIMILARITY: f64 = 0.4;
/// Rows of a band from [`USUAL_FROM`] on, which with 14 bands are FineWeb's parameters.
const USUAL: usize = 8;
const USUAL_FROM: f64 = 0.7;
/// Below that: the probability with which two texts of just the similarity asked for have to meet.
const FOUND: f64 = 0.8;

/// Bands of so many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bands {
    /// How many there are.
    pub count: usize,
    /// Bins of each.
    pub rows: usize,
}

impl Bands {
    /// The bands for a similarity of at least [`LEAST_SIMILARITY`]: as long as they may be, since of shorter ones more pairs meet
    /// that are then compared for nothing.
    pub fn of(similarity: f64) -> Bands {
        let of_rows = |rows: usize| Bands { count: BINS / rows, rows };
        if similarity >= USUAL_FROM {
            return of_rows(USUAL);
        }
        let found = (2..USUAL).rev().map(of_rows).find(|bands| bands.probability(similarity) >= FOUND);
        found.unwrap_or(of_rows(2))
    }

    /// Probability that two texts of this similarity have a band in common.
    pub fn probability(self, similarity: f64) -> f64 {
        1.0 - (1.0 - similarity.powi(self.rows as i32)).powi(self.count as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bands, LEAST_SIMILARITY};

    #[test]
    fn bands_are_as_long_as_the_similarity_allows() {
        for (similarity, count, rows) in
            [(1.0, 14, 8), (0.7, 14, 8), (0.69, 18, 6), (0.65, 22, 5), (0.6, 22, 5), (0.5, 28, 4), (0.4, 37, 3)]
        {
            let bands = Bands::of(similarity);
            println!("{similarity}: {bands:?}, {:.3}", bands.probability(similarity));
            assert_eq!((bands.count, bands.rows), (count, rows), "{similarity}");
        }
        let mut similarity = LEAST_SIMILARITY;
        while similarity < 0.7 {
            assert!(Bands::of(similarity).probability(similarity) >= 0.8, "{similarity}");
            similarity += 0.001;
        }
    }
}
