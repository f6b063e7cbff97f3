//! Documents that stand in a corpus more than once, exactly or nearly.
//!
//! Exactly: the same words in the same order, whatever case and white space (XXH3, 128 bits). Nearly: MinHash signatures
//! (Broder 1997) of the sets of five-word shingles, looked up by locality-sensitive hashing in 14 bands of 8 rows, which are
//! FineWeb's parameters (Penedo et al. 2024): two documents whose shingle sets have a Jaccard similarity of s share a band
//! with probability 1 − (1 − s⁸)¹⁴: 0.56 at 0.7, 0.92 at 0.8, 0.9996 at 0.9. Where less than 0.7 is asked for, bands are shorter
//! ([`Bands`]): 28 of 4 rows for 0.5. Candidates are then compared by their whole
//! signatures. The first document of the corpus in each group is the one that stays.

mod bands;
mod exact;
mod minhash;
mod search;

pub use bands::{Bands, LEAST_SIMILARITY};
pub use exact::text_hash;
pub use minhash::{Signature, signature};
pub(super) use search::{Found, SignedRecords, find};
