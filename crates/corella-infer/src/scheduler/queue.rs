//! Who waits, and who of them is next.

use std::collections::{BTreeMap, HashMap};

use super::job::Job;
use crate::sequence::Sequence;

/// Waiting continuations of one request, by their number.
type Samples = BTreeMap<usize, Sequence>;

/// Continuations that wait for a place or for pages: by submission, by request.
#[derive(Debug, Default)]
pub(super) struct Queue {
    submissions: BTreeMap<u64, BTreeMap<u64, Samples>>,
}

/// How many continuations are under way of each submission, and of each request.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    submissions: HashMap<u64, usize>,
    jobs: HashMap<u64, usize>,
}

/// A request in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    submission: u64,
    job: u64,
}

impl UnderWay {
    /// Counts those that run.
    pub fn new(running: &[Sequence], jobs: &BTreeMap<u64, Job>) -> UnderWay {
        let mut under_way = UnderWay::default();
        for seq in running {
            under_way.add(Turn { submission: jobs[&seq.job].submission, job: seq.job });
        }
        under_way
    }

    /// One more is under way.
    pub fn add(&mut self, turn: Turn) {
        *self.submissions.entry(turn.submission).or_default() += 1;
        *self.jobs.entry(turn.job).or_default() += 1;
    }

    fn of(counts: &HashMap<u64, usize>, number: u64) -> usize {
        counts.get(&number).copied().unwrap_or(0)
    }
}

impl Queue {
    /// A continuation waits.
    pub fn push(&mut self, submission: u64, seq: Sequence) {
        self.submissions.entry(submission).or_default().entry(seq.job).or_default().insert(seq.sample, seq);
    }

    /// The next: of the submission with the fewest under way, the request with the fewest; the oldest among equals.
    pub fn next(&self, under_way: &UnderWay) -> Option<(Turn, &Sequence)> {
        let fewest = |(number, _): &(&u64, _)| UnderWay::of(&under_way.submissions, **number);
        let (&submission, jobs) = self.submissions.iter().min_by_key(fewest)?;
        let mut next: Option<(usize, u64, &Samples)> = None;
        for (&job, samples) in jobs {
            let count = UnderWay::of(&under_way.jobs, job);
            if next.is_none_or(|(least, ..)| count < least) {
                next = Some((count, job, samples));
            }
            // As no more requests have something under way than there are places, this comes soon however many wait.
            if count == 0 {
                break;
            }
        }
        let (_, job, samples) = next?;
        let (_, seq) = samples.first_key_value()?;
        Some((Turn { submission, job }, seq))
    }

    /// Takes the first continuation of a request out.
    pub fn take(&mut self, turn: Turn) -> Option<Sequence> {
        let jobs = self.submissions.get_mut(&turn.submission)?;
        let samples = jobs.get_mut(&turn.job)?;
        let seq = samples.pop_first().map(|(_, seq)| seq);
        if samples.is_empty() {
            self.remove(turn.submission, turn.job);
        }
        seq
    }

    /// Takes all continuations of a request out. They hold no pages.
    pub fn remove(&mut self, submission: u64, job: u64) {
        if let Some(jobs) = self.submissions.get_mut(&submission) {
            jobs.remove(&job);
            if jobs.is_empty() {
                self.submissions.remove(&submission);
            }
        }
    }

    /// Whether any of another submission waits.
    pub fn holds_others(&self, submission: u64) -> bool {
        self.submissions.keys().any(|other| *other != submission)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.submissions.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }

    /// All that wait.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.submissions.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values)
    }
}
