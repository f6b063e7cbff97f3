//! Readers of files: from bytes in many wrappings to documents, one after the other, in bounded memory.
//!
//! A reader pushes what it finds into a [`Sink`]. The format is told by content; the name's ending decides where content
//! does not (JSON in a `.txt` is text). Whatever is wrong is reported to the sink with its place, and reading goes on behind
//! it where the format allows.

mod archive;
mod compressed;
mod detect;
mod html;
mod http;
mod json_long;
mod json_stream;
mod jsonl;
mod lines;
mod parquet;
mod parquet_pages;
mod parquet_rows;
mod records;
mod sources;
mod text;
mod warc;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

pub use records::read_records;
pub use sources::{SourceFile, expand, is_pattern};

use super::document::{Document, Flow, Origin, Problem, ProblemKind, Sink};
use crate::tokenizer::END_OF_TEXT;
use detect::{Format, detect, peek};

/// Layers of compression and archives inside each other that are opened.
const DEEPEST: usize = 4;

/// How to read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReadOptions {
    /// Field of JSON lines or column of Parquet files that holds the text; by default the first of [`TEXT_FIELDS`].
    pub field: Option<String>,
    /// What separates documents inside a text file.
    pub separator: String,
    /// Longest document in bytes: a longer text is cut at line ends.
    pub max_document: usize,
    /// Largest window of zstd, as a power of two, that may be allocated. What needs a larger one is reported and left out.
    pub zstd_window_log: u32,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions { field: None, separator: END_OF_TEXT.to_owned(), max_document: 16 << 20, zstd_window_log: 27 }
    }
}

/// Fields that hold the text in common data sets, in the order in which they are looked for.
pub const TEXT_FIELDS: [&str; 5] = ["text", "content", "raw_content", "document", "story"];

/// Reads one file of any known format.
pub fn read_file(path: &Path, name: &str, options: &ReadOptions, sink: &mut dyn Sink) -> Flow {
    let mut place = Place::new(name, options, sink);
    match File::open(path) {
        Ok(file) => place.file(file),
        Err(e) => place.report(ProblemKind::Unreadable, 0, 0, e.to_string()),
    }
}

/// Reads bytes in memory as if they were a file of this name. Formats that must be read from their end (zip, Parquet)
/// are reported as not supported.
pub fn read_bytes(bytes: &[u8], name: &str, options: &ReadOptions, sink: &mut dyn Sink) -> Flow {
    let mut bytes = bytes;
    Place::new(name, options, sink).stream(&mut bytes)
}

/// A source that is being read: its name, what is asked for, and where the findings go.
struct Place<'a> {
    source: Arc<str>,
    options: &'a ReadOptions,
    sink: &'a mut dyn Sink,
    depth: usize,
}

impl<'a> Place<'a> {
    fn new(name: &str, options: &'a ReadOptions, sink: &'a mut dyn Sink) -> Place<'a> {
        Place { source: name.into(), options, sink, depth: 0 }
    }

    /// The same for a member of this source.
    fn member(&mut self, name: &str) -> Place<'_> {
        let source = format!("{}!{name}", self.source).into();
        Place { source, options: self.options, sink: &mut *self.sink, depth: self.depth + 1 }
    }

    /// The same for what is inside a compression: its name without the ending.
    fn inside(&mut self) -> Place<'_> {
        Place { source: Arc::clone(&self.source), options: self.options, sink: &mut *self.sink, depth: self.depth + 1 }
    }

    fn file(&mut self, file: File) -> Flow {
        let mut reader = BufReader::with_capacity(1 << 16, &file);
        let format = reader.fill_buf().map(|head| detect(head, &self.source, self.depth));
        match format {
            Ok(Format::Zip) => archive::zip(self, &file),
            Ok(Format::Parquet) => parquet::read(self, &file),
            Ok(_) => self.stream(&mut reader),
            Err(e) => self.report(ProblemKind::Unreadable, 0, 0, e.to_string()),
        }
    }

    /// Reads a stream whose format is told by its first bytes.
    fn stream(&mut self, reader: &mut dyn BufRead) -> Flow {
        let head = match peek(reader) {
            Ok(head) => head,
            Err(e) => return self.broken(&e, 0, 0),
        };
        let format = detect(&head, &self.source, self.depth);
        let mut reader = BufReader::with_capacity(1 << 16, std::io::Read::chain(&head[..], reader));
        if self.depth >= DEEPEST && matches!(format, Format::Gzip | Format::Zstd | Format::Tar) {
            let what = format!("more than {DEEPEST} layers of compression and archives");
            return self.report(ProblemKind::Unsupported, 0, 0, what);
        }
        match format {
            Format::Empty => Flow::Continue(()),
            Format::Gzip => compressed::gzip(self, &mut reader),
            Format::Zstd => compressed::zstd(self, &mut reader),
            Format::Tar => archive::tar(self, &mut reader),
            Format::Warc => warc::read(self, &mut reader),
            Format::Json => json_stream::read(self, &mut reader),
            Format::Jsonl => jsonl::read(self, &mut reader),
            Format::Text => text::read(self, &mut reader),
            Format::Raw(what) => {
                self.report(ProblemKind::Raw, 0, 0, what)?;
                text::read(self, &mut reader)
            }
            Format::Zip | Format::Parquet => {
                let what = "zip and Parquet files inside another container are not read: unpack it first";
                self.report(ProblemKind::Unsupported, 0, 0, what)
            }
            Format::Unsupported(what) => self.report(ProblemKind::Unsupported, 0, 0, what),
            Format::Binary(what) => self.report(ProblemKind::NotText, 0, 0, what),
        }
    }

    fn origin(&self, record: u64, offset: u64) -> Origin {
        Origin { source: Arc::clone(&self.source), record, offset }
    }

    fn report(&mut self, kind: ProblemKind, record: u64, offset: u64, what: impl Into<String>) -> Flow {
        let origin = self.origin(record, offset);
        self.sink.problem(Problem { kind, origin, what: what.into() })
    }

    /// Reports an error of the stream itself.
    fn broken(&mut self, error: &std::io::Error, record: u64, offset: u64) -> Flow {
        use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        if compressed::is_window(error) {
            let what = format!("a larger --memory is needed: {error}");
            return self.report(ProblemKind::Unsupported, record, offset, what);
        }
        let kind = match error.kind() {
            _ if compressed::is_bomb(error) => ProblemKind::Bomb,
            UnexpectedEof | InvalidData | InvalidInput | Other => ProblemKind::Damaged,
            _ => ProblemKind::Unreadable,
        };
        self.report(kind, record, offset, error.to_string())
    }

    /// Hands a text on, cut where it is too long.
    fn document(&mut self, record: u64, offset: u64, text: String) -> Flow {
        let max = self.options.max_document;
        if text.len() > max {
            let what = format!("a text of {} bytes, more than {max}: cut at line ends", text.len());
            self.report(ProblemKind::Cut, record, offset, what)?;
            let mut rest = &text[..];
            let mut at = offset;
            while !rest.is_empty() {
                let (part, after) = rest.split_at(text::cut(rest.as_bytes(), max));
                self.hand_on(record, at, part.to_owned())?;
                at += part.len() as u64;
                rest = after;
            }
            return Flow::Continue(());
        }
        self.hand_on(record, offset, text)
    }

    fn hand_on(&mut self, record: u64, offset: u64, text: String) -> Flow {
        let origin = self.origin(record, offset);
        self.sink.document(Document { origin, text })
    }

    /// Hands bytes on; what is not UTF-8 is replaced and reported.
    fn bytes(&mut self, record: u64, offset: u64, bytes: Vec<u8>) -> Flow {
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => {
                let first = e.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(e.as_bytes()).into_owned();
                let count = e.as_bytes().utf8_chunks().filter(|c| !c.invalid().is_empty()).count();
                let what = format!("{count} places that are not UTF-8, the first at byte {first} of the document");
                self.report(ProblemKind::BadUtf8, record, offset, what)?;
                text
            }
        };
        self.document(record, offset, text)
    }
}
