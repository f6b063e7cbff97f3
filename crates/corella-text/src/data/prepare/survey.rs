//! The first pass: every document is read, cleaned, judged and hashed; a record of fixed size for each goes to a file.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::super::DataError;
use super::super::clean::clean;
use super::super::document::{Document, Flow, Problem};
use super::super::duplicates::{Signature, SignedRecords, signature, text_hash};
use super::super::filters::Rule;
use super::parallel::ordered;
use super::state::{Folder, Progress, Stage};
use super::stream::{Item, cost, read_all};
use super::{Job, Watch};

/// Bytes of a record without its signature.
const FIXED: usize = 32;
/// Documents between two notes of the progress.
const NOTE_EVERY: u64 = 20_000;

/// What is remembered of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The rule that it broke.
    pub dropped: Option<Rule>,
    /// Bytes as read.
    pub bytes_in: u32,
    /// Bytes of what is left of it.
    pub bytes_out: u32,
    /// Lines that were cut.
    pub lines_cut: u32,
    /// Hash of what is left of it.
    pub hash: u128,
    /// Its signature, where near duplicates are looked for and it was not dropped.
    signature: Option<Signature>,
}

impl Record {
    /// Judges and hashes a document.
    fn of(job: &Job<'_>, document: &Document) -> Record {
        let options = job.options;
        let text = clean(&document.text, options.clean);
        let judged = options.filters.judge(&text);
        let dropped = judged.rejection.map(|r| r.rule);
        let keep = dropped.is_none();
        Record {
            dropped,
            bytes_in: small(document.text.len()),
            bytes_out: small(judged.text.len()),
            lines_cut: judged.lines_cut,
            hash: if keep { text_hash(&judged.text) } else { 0 },
            signature: (keep && options.near_duplicates.is_some()).then(|| signature(&judged.text)),
        }
    }

    /// The half of the hash that chooses documents to validate on.
    pub(super) fn lot(&self) -> u64 {
        (self.hash >> 64) as u64
    }

    fn to_bytes(&self, signed: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.dropped.map_or(0, |rule| rule as u32 + 1).to_le_bytes());
        for number in [self.bytes_in, self.bytes_out, self.lines_cut] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.hash.to_le_bytes());
        match &self.signature {
            Some(signature) => signature.to_bytes(out),
            None if signed => out.resize(out.len() + Signature::BYTES, 0),
            None => {}
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Record> {
        let word = |i: usize| u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]);
        let dropped = match word(0) {
            0 => None,
            number => Some(*Rule::ALL.get(number as usize - 1)?),
        };
        let mut hash = [0; 16];
        hash.copy_from_slice(&bytes[16..FIXED]);
        let signature = (bytes.len() > FIXED && dropped.is_none()).then(|| Signature::from_bytes(&bytes[FIXED..]));
        Some(Record {
            dropped,
            bytes_in: word(1),
            bytes_out: word(2),
            lines_cut: word(3),
            hash: u128::from_le_bytes(hash),
            signature,
        })
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The records of all documents, on disk.
pub(super) struct Survey {
    path: PathBuf,
    file: File,
    /// Whether records hold signatures.
    signed: bool,
    /// Documents.
    pub documents: u64,
}

impl Survey {
    /// Surveys the sources, or goes on with a survey that was interrupted.
    pub(super) fn take(job: &Job<'_>, folder: &Folder, watch: &mut dyn Watch) -> Result<Survey, DataError> {
        let path = folder.file("survey.bin");
        let signed = job.options.near_duplicates.is_some();
        let size = record_size(signed) as u64;
        let progress = folder.progress()?;
        let (mut done, mut complete) = match progress.stage {
            Stage::Survey { documents } => (documents, false),
            Stage::Shards { documents, .. } => (documents, true),
        };
        // Records that are gone would come back as zeros: documents that are kept, all with the same hash.
        if fs::metadata(&path).map_or(0, |file| file.len()) < done * size {
            (done, complete) = (0, false);
            folder.note(&Progress { stage: Stage::Survey { documents: 0 } })?;
        }
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
            file.set_len(done * size)?;
            Ok(file)
        };
        let file = open().map_err(DataError::io(&path))?;
        let mut survey = Survey { path, file, signed, documents: done };
        if !complete {
            survey.extend(job, folder, watch)?;
            folder.note(&Progress { stage: Stage::Shards { documents: survey.documents, done: None } })?;
        }
        Ok(survey)
    }

    /// Adds the documents that no record stands for yet.
    fn extend(&mut self, job: &Job<'_>, folder: &Folder, watch: &mut dyn Watch) -> Result<(), DataError> {
        let skip = self.documents;
        if skip > 0 {
            watch.goes_on(skip);
        }
        let mut failure: Option<DataError> = None;
        let mut out = BufWriter::with_capacity(1 << 18, &self.file);
        out.seek(SeekFrom::End(0)).map_err(DataError::io(&self.path))?;
        let (mut bytes, mut documents, mut text_bytes) = (Vec::new(), skip, 0u64);
        ordered(
            job.options.threads,
            job.options.in_flight(),
            |feed| {
                let mut number = 0;
                let _ = read_all(job, &mut |item| {
                    if let Item::Document(_) = &item {
                        number += 1;
                        if number <= skip {
                            return Flow::Continue(());
                        }
                    }
                    let cost = cost(&item);
                    feed.put(item, cost)
                });
            },
            |item| match item {
                Item::Document(document) => Surveyed::Record(Record::of(job, &document)),
                Item::Problem(problem) => Surveyed::Problem(problem),
                Item::FileDone { bytes } => Surveyed::FileDone { bytes },
            },
            |surveyed| {
                let step = || -> Result<(), DataError> {
                    match surveyed {
                        Surveyed::Record(record) => {
                            bytes.clear();
                            record.to_bytes(self.signed, &mut bytes);
                            out.write_all(&bytes).map_err(DataError::io(&self.path))?;
                            documents += 1;
                            text_bytes += u64::from(record.bytes_in);
                            if documents.is_multiple_of(NOTE_EVERY) {
                                out.flush().and_then(|()| self.file.sync_data()).map_err(DataError::io(&self.path))?;
                                folder.note(&Progress { stage: Stage::Survey { documents } })?;
                            }
                            watch.surveyed(documents, text_bytes);
                        }
                        Surveyed::Problem(problem) => {
                            watch.problem(&problem);
                            if job.options.strict && !problem.kind.harmless() {
                                return Err(DataError::Problem(problem));
                            }
                        }
                        Surveyed::FileDone { bytes } => watch.file_done(bytes),
                    }
                    Ok(())
                };
                match step() {
                    Ok(()) => Flow::Continue(()),
                    Err(e) => {
                        failure = Some(e);
                        Flow::Break(())
                    }
                }
            },
        );
        if let Some(failure) = failure {
            return Err(failure);
        }
        out.flush().and_then(|()| self.file.sync_data()).map_err(DataError::io(&self.path))?;
        self.documents = documents;
        Ok(())
    }

    /// The records in the order of the documents.
    pub(super) fn records(&self) -> Result<Records, DataError> {
        let file = File::open(&self.path).map_err(DataError::io(&self.path))?;
        Ok(Records {
            path: self.path.clone(),
            reader: BufReader::with_capacity(1 << 18, file),
            buffer: vec![0; record_size(self.signed)],
            left: self.documents,
        })
    }

    fn damaged(path: &Path) -> DataError {
        DataError::bad(path, "a record names a rule that does not exist; remove the folder and begin again")
    }
}

enum Surveyed {
    Record(Record),
    Problem(Problem),
    FileDone { bytes: u64 },
}

fn record_size(signed: bool) -> usize {
    FIXED + if signed { Signature::BYTES } else { 0 }
}

/// Records read one after the other.
pub(super) struct Records {
    path: PathBuf,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    left: u64,
}

impl Records {
    /// The next record; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Record>, DataError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.reader.read_exact(&mut self.buffer).map_err(DataError::io(&self.path))?;
        Record::from_bytes(&self.buffer).map(Some).ok_or_else(|| Survey::damaged(&self.path))
    }
}

impl SignedRecords for Survey {
    type Error = DataError;

    fn pass(&mut self, each: &mut dyn FnMut(u64, u128, Option<&Signature>)) -> Result<(), DataError> {
        let mut records = self.records()?;
        for i in 0..self.documents {
            if let Some(record) = records.next()?.filter(|r| r.dropped.is_none()) {
                each(i, record.hash, record.signature.as_ref());
            }
        }
        Ok(())
    }

    fn signature(&mut self, i: u64) -> Result<Signature, DataError> {
        let mut bytes = [0; Signature::BYTES];
        let mut read = || -> std::io::Result<()> {
            self.file.seek(SeekFrom::Start(i * record_size(true) as u64 + FIXED as u64))?;
            self.file.read_exact(&mut bytes)
        };
        read().map_err(DataError::io(&self.path))?;
        Ok(Signature::from_bytes(&bytes))
    }
}
