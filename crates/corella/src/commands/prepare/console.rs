//! What `prepare` shows: a line that is drawn over on a terminal, plain lines elsewhere, and the summary.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use corella_text::data::readers::SourceFile;
use corella_text::data::{Problem, ProblemKind, Report, Watch};
use corella_train::console::grouped;

use crate::units::megabytes;

/// Most problems that are shown one by one.
const PROBLEMS_SHOWN: u64 = 10;
/// Cells of the bar.
const BAR: usize = 24;

/// Draws the progress on standard error.
pub struct Console {
    terminal: bool,
    quiet: bool,
    /// Bytes of all files, and of those that were read.
    all: u64,
    read: u64,
    files: (usize, usize),
    problems: u64,
    /// Whether a record lacked a text.
    pub without_text: bool,
    /// Bytes of text of this pass: so far, and what it will be, where that is known.
    text: u64,
    of: Option<u64>,
    tokens: u64,
    documents: u64,
    started: Instant,
    drawn: Instant,
    line: bool,
}

impl Console {
    /// A console for these files; one that is quiet shows nothing.
    pub fn new(files: &[SourceFile], quiet: bool) -> Console {
        let all = files.iter().map(|f| std::fs::metadata(&f.path).map_or(0, |m| m.len())).sum();
        let now = Instant::now();
        Console {
            terminal: std::io::stderr().is_terminal(),
            quiet,
            all,
            read: 0,
            files: (0, files.len()),
            problems: 0,
            without_text: false,
            text: 0,
            of: None,
            tokens: 0,
            documents: 0,
            started: now,
            drawn: now,
            line: false,
        }
    }

    /// Leaves the last line.
    pub fn end(&mut self) {
        if self.line {
            eprintln!();
            self.line = false;
        }
    }

    fn draw(&mut self) {
        let every = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.quiet || self.drawn.elapsed() < every {
            return;
        }
        self.drawn = Instant::now();
        let rate = self.text as f64 / 1e6 / self.started.elapsed().as_secs_f64().max(1e-3);
        let (share, what) = match self.of {
            None => (
                self.read as f64 / self.all.max(1) as f64,
                format!("reading: {} of {} files, {} documents", self.files.0, self.files.1, grouped(self.documents)),
            ),
            Some(of) => (self.text as f64 / of.max(1) as f64, format!("tokenising: {} tokens", grouped(self.tokens))),
        };
        let text = format!("{what}, {} of text, {rate:.0} MB/s", megabytes(self.text));
        if self.terminal {
            let full = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
            eprint!("\r\x1b[2K[{}{}] {text}", "#".repeat(full), " ".repeat(BAR - full));
            let _ = std::io::stderr().flush();
            self.line = true;
        } else {
            eprintln!("{text}");
        }
    }
}

impl Watch for Console {
    fn surveyed(&mut self, documents: u64, bytes: u64) {
        (self.documents, self.text) = (documents, bytes);
        self.draw();
    }

    fn file_done(&mut self, bytes: u64) {
        self.read += bytes;
        self.files.0 += 1;
        self.draw();
    }

    fn problem(&mut self, problem: &Problem) {
        self.problems += 1;
        self.without_text |= problem.kind == ProblemKind::NoText;
        if !self.quiet && self.problems <= PROBLEMS_SHOWN {
            self.end();
            eprintln!("warning: {problem}");
            if self.problems == PROBLEMS_SHOWN {
                eprintln!("warning: more are only counted, in report.json");
            }
        }
    }

    fn begins_tokens(&mut self, report: &Report) {
        self.text = 0;
        self.of = Some(report.kept.bytes);
        self.started = Instant::now();
    }

    fn tokenised(&mut self, bytes: u64, tokens: u64) {
        self.text += bytes;
        self.tokens += tokens;
        self.draw();
    }

    fn goes_on(&mut self, documents: u64) {
        if !self.quiet {
            self.end();
            eprintln!("going on behind {} documents of an interrupted run", grouped(documents));
        }
    }
}

/// How many sources were left out as a whole: files, members of archives, or parts of a file.
pub fn left_out(report: &Report) -> u64 {
    let kinds = [ProblemKind::Unsupported, ProblemKind::NotText, ProblemKind::Unreadable];
    kinds.iter().filter_map(|kind| report.problems.get(kind)).map(|problems| problems.count).sum()
}

/// Whether more records lack a text than have one: then it has another name.
pub fn lacks_field(report: &Report) -> bool {
    report.problems.get(&ProblemKind::NoText).is_some_and(|problems| problems.count > report.read.documents)
}

/// What was read, dropped and wrong, with examples.
pub fn summary(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!("read      {} documents, {}", grouped(report.read.documents), megabytes(report.read.bytes)));
    for (rule, dropped) in &report.dropped {
        let tally = dropped.tally;
        line(format!("dropped   {} by {rule}, {}", grouped(tally.documents), megabytes(tally.bytes)));
        for example in &dropped.examples {
            let text: String = example.text.replace('\n', " ").chars().take(60).collect();
            let found = if example.found.is_empty() { String::new() } else { format!(": {}", example.found) };
            line(format!("            {}, record {}{found}: “{text}”", example.source, example.record));
        }
    }
    if report.lines_cut > 0 {
        line(format!("cut       {} lines of the documents kept", grouped(report.lines_cut)));
    }
    for (kind, problems) in &report.problems {
        let first = problems.examples.first().map(|e| format!(", first in {}: {}", e.source, e.found));
        line(format!("problems  {} × {kind}{}", grouped(problems.count), first.unwrap_or_default()));
    }
    line(format!("kept      {} documents, {}", grouped(report.kept.documents), megabytes(report.kept.bytes)));
    out
}
