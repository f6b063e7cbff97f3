//! Finds duplicates among the records of a survey in a stated amount of memory.
//!
//! The records lie in a file and are read in their order, as often as needed: hashes are divided into as many parts as make
//! one part fit, and a part is sorted in memory. So ten times the documents take ten passes, not ten times the memory.

use super::bands::Bands;
use super::minhash::Signature;

/// What was found: a mark for each document.
#[derive(Clone, Debug, Default)]
pub(in crate::data) struct Found {
    /// Repeats an earlier document exactly.
    pub exact: Marks,
    /// Nearly repeats an earlier document.
    pub near: Marks,
}

/// One bit for each document.
#[derive(Clone, Debug, Default)]
pub(in crate::data) struct Marks(Vec<u64>);

impl Marks {
    fn of(documents: u64) -> Marks {
        Marks(vec![0; documents.div_ceil(64) as usize])
    }

    fn set(&mut self, i: u64) {
        self.0[(i / 64) as usize] |= 1 << (i % 64);
    }

    /// Whether document `i` is marked.
    pub fn has(&self, i: u64) -> bool {
        self.0.get((i / 64) as usize).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }
}

/// Access to the hashes of the documents that are still in.
pub(in crate::data) trait SignedRecords {
    /// What can go wrong.
    type Error;
    /// Calls `each` with number, hash and, where there are signatures, the bytes of the signature of every document.
    fn pass(&mut self, each: &mut dyn FnMut(u64, u128, Option<&Signature>)) -> Result<(), Self::Error>;
    /// The signature of one document.
    fn signature(&mut self, i: u64) -> Result<Signature, Self::Error>;
}

/// Marks duplicates among `documents` records. `near` is the similarity from which documents count as nearly the same.
pub(in crate::data) fn find<R: SignedRecords>(
    records: &mut R,
    documents: u64,
    near: Option<f64>,
    memory: usize,
) -> Result<Found, R::Error> {
    let mut found = Found { exact: Marks::of(documents), near: Marks::of(documents) };
    exact(records, documents, memory, &mut found.exact)?;
    if let Some(threshold) = near {
        near_duplicates(records, documents, threshold, memory, &mut found)?;
    }
    Ok(found)
}

/// Room for one of `parts` parts of so many entries, which hashes divide evenly but for chance. A table that grew would take
/// up to twice the memory that it fills, and three times while it moves.
fn room(entries: u64, parts: u64) -> usize {
    let mean = entries.div_ceil(parts);
    if parts == 1 { mean as usize } else { (mean + 6 * mean.isqrt() + 6) as usize }
}

fn exact<R: SignedRecords>(records: &mut R, documents: u64, memory: usize, marks: &mut Marks) -> Result<(), R::Error> {
    let entry = size_of::<(u128, u64)>() as u64;
    let parts = (documents * entry).div_ceil(memory.max(1) as u64).max(1);
    let mut part: Vec<(u128, u64)> = Vec::with_capacity(room(documents, parts));
    let parts = u128::from(parts);
    for p in 0..parts {
        part.clear();
        records.pass(&mut |i, hash, _| {
            if hash % parts == p {
                part.push((hash, i));
            }
        })?;
        part.sort_unstable();
        for pair in part.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            marks.set(pair[1].1);
        }
    }
    Ok(())
}

fn near_duplicates<R: SignedRecords>(
    records: &mut R,
    documents: u64,
    threshold: f64,
    memory: usize,
    found: &mut Found,
) -> Result<(), R::Error> {
    let bands = Bands::of(threshold);
    let entry = size_of::<(u64, u64)>() as u64;
    let band_bytes = (documents * entry).max(1);
    // As many bands at once as fit; if not even one does, a part of one.
    let together = ((memory as u64 / band_bytes) as usize).clamp(1, bands.count);
    let parts = band_bytes.div_ceil(memory.max(1) as u64).max(1);
    let all: Vec<usize> = (0..bands.count).collect();
    let mut tables: Vec<Vec<(u64, u64)>> = (0..together).map(|_| Vec::with_capacity(room(documents, parts))).collect();
    for (group, p) in all.chunks(together).flat_map(|group| (0..parts).map(move |p| (group, p))) {
        tables.iter_mut().for_each(Vec::clear);
        records.pass(&mut |i, _, signature| {
            let Some(signature) = signature.filter(|_| !found.exact.has(i)) else { return };
            for (table, band) in tables.iter_mut().zip(group) {
                let key = signature.band(*band, bands.rows);
                if key % parts == p {
                    table.push((key, i));
                }
            }
        })?;
        for table in &mut tables {
            table.sort_unstable();
            for bucket in table.chunk_by(|a, b| a.0 == b.0).filter(|bucket| bucket.len() > 1) {
                compare(records, bucket, threshold, &mut found.near)?;
            }
        }
    }
    Ok(())
}

/// Compares the documents of a bucket with its first one and with the one before. Which of them are marked already, by
/// another band, changes what is compared but not what is marked in the end.
fn compare<R: SignedRecords>(
    records: &mut R,
    bucket: &[(u64, u64)],
    threshold: f64,
    marks: &mut Marks,
) -> Result<(), R::Error> {
    let first = records.signature(bucket[0].1)?;
    let mut before = first.clone();
    for (_, i) in &bucket[1..] {
        let own = records.signature(*i)?;
        if own.similarity(&first) >= threshold || own.similarity(&before) >= threshold {
            marks.set(*i);
        }
        before = own;
    }
    Ok(())
}
