//! A file of JSON lines that another process writes, read as it grows: of each line only its place and its update are kept, so
//! that a question reads what is new to whoever asks, and no more rows than a page can show.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Longest line that is read, in bytes; nobody writes one.
const MOST_LINE: u64 = 16 << 20;

/// A file that is followed.
#[derive(Debug)]
pub struct Followed {
    path: PathBuf,
    /// Which rows an answer has where there are many.
    choice: Choice,
    seen: Mutex<Seen>,
}

/// Which of many rows are told.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// So many at most, in equal steps, those with a validation first of all, and the last hundred: what a chart and its figures show.
    Even(usize),
    /// All rows of so many updates at most, in equal factors: a run's texts change most at its beginning.
    Early(usize),
}

/// What was read of the file.
#[derive(Debug, Default)]
struct Seen {
    rows: Vec<Row>,
    /// Where the next line begins.
    end: u64,
    /// The last line: where it stands no more, another file has come in its place.
    last: Vec<u8>,
}

/// A line of the file.
#[derive(Clone, Copy, Debug)]
struct Row {
    step: u64,
    at: u64,
    length: u32,
    /// Whether the row has a validation.
    is_rare: bool,
}

/// What is read of a line where only its place is kept.
#[derive(Deserialize)]
struct Head {
    step: u64,
    #[serde(default)]
    val_loss: Option<IgnoredAny>,
}

impl Followed {
    /// Nothing of it is read yet.
    pub fn new(path: &Path, choice: Choice) -> Followed {
        Followed { path: path.to_path_buf(), choice, seen: Mutex::default() }
    }

    /// The rows of updates from `first` on, thinned where there are many. Nothing where the file cannot be read: it may come.
    pub fn rows(&self, first: u64) -> Vec<Value> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(mut file) = File::open(&self.path) else {
            *seen = Seen::default();
            return Vec::new();
        };
        // What is read until an error is told all the same.
        let _ = seen.catch_up(&mut file);
        let wanted: Vec<Row> = seen.rows.iter().filter(|row| row.step >= first).copied().collect();
        drop(seen);
        let told = match self.choice {
            Choice::Even(most) => evenly(&wanted, most),
            Choice::Early(most) => early(&wanted, most),
        };
        told.into_iter().filter_map(|row| row.read(&mut file)).collect()
    }
}

impl Seen {
    /// Reads what was written since the last time, whole lines only; all of it where the file is another one.
    fn catch_up(&mut self, file: &mut File) -> std::io::Result<()> {
        let length = file.metadata()?.len();
        if self.end > length || !self.still_there(file) {
            *self = Seen::default();
        }
        file.seek(SeekFrom::Start(self.end))?;
        let mut lines = BufReader::new(file.take(length - self.end));
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut lines).take(MOST_LINE).read_until(b'\n', &mut line)? as u64;
            if read == 0 || (line.last() != Some(&b'\n') && read < MOST_LINE) {
                // A line without its end is not there yet.
                return Ok(());
            }
            if let Ok(Head { step, val_loss }) = serde_json::from_slice(&line) {
                self.rows.push(Row { step, at: self.end, length: line.len() as u32, is_rare: val_loss.is_some() });
            }
            self.end += read;
            std::mem::swap(&mut self.last, &mut line);
        }
    }

    fn still_there(&self, file: &mut File) -> bool {
        let mut found = vec![0; self.last.len()];
        let at = self.end - self.last.len() as u64;
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut found)).is_ok() && found == self.last
    }
}

impl Row {
    fn read(self, file: &mut File) -> Option<Value> {
        let mut line = vec![0; self.length as usize];
        file.seek(SeekFrom::Start(self.at)).ok()?;
        file.read_exact(&mut line).ok()?;
        // Another process may have put another line there since.
        serde_json::from_slice(&line).ok().filter(|row: &Value| row["step"] == self.step)
    }
}

/// Rows at the end that are told in full: figures are means of them.
const RECENT: usize = 100;

fn evenly(rows: &[Row], most: usize) -> Vec<Row> {
    if rows.len() <= most {
        return rows.to_vec();
    }
    let rare: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].is_rare).collect();
    let half = most.saturating_sub(RECENT) / 2;
    let spread = |n: usize| (0..half.min(n)).map(move |i| i * n / half.min(n).max(1));
    let mut told: BTreeSet<usize> = spread(rows.len()).collect();
    told.extend(spread(rare.len()).map(|i| rare[i]));
    told.extend(rare.last());
    told.extend(rows.len().saturating_sub(RECENT)..rows.len());
    told.into_iter().map(|i| rows[i]).collect()
}

fn early(rows: &[Row], most: usize) -> Vec<Row> {
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect::<BTreeSet<_>>().into_iter().collect();
    let mut told = BTreeSet::new();
    let mut at = 0; // Counted from 1.
    for left in (0..most.min(steps.len())).rev() {
        let factor = if at == 0 { 1.0 } else { (steps.len() as f64 / at as f64).powf(1.0 / (left + 1) as f64) };
        let next = if left == 0 { steps.len() } else { (at as f64 * factor).round() as usize };
        at = next.max(at + 1).min(steps.len());
        told.insert(steps[at - 1]);
    }
    rows.iter().filter(|row| told.contains(&row.step)).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Log(PathBuf);

    impl Log {
        fn new(name: &str) -> Log {
            Log(std::env::temp_dir().join(format!("corella-follow-{name}-{}.jsonl", std::process::id())))
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0, text).expect("written");
        }

        fn append(&self, text: &str) {
            let mut file = File::options().append(true).open(&self.0).expect("opened");
            file.write_all(text.as_bytes()).expect("written");
        }
    }

    impl Drop for Log {
        fn drop(&mut self) {
            // A test that fails leaves nothing behind either.
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn lines(steps: std::ops::RangeInclusive<u64>) -> String {
        steps.map(|step| format!("{{\"step\":{step}}}\n")).collect()
    }

    fn steps(rows: &[Value]) -> Vec<u64> {
        rows.iter().filter_map(|row| row["step"].as_u64()).collect()
    }

    #[test]
    fn only_what_is_new_is_read_and_a_file_in_place_of_another_from_its_beginning() {
        let log = Log::new("new");
        let followed = Followed::new(&log.0, Choice::Even(1000));
        assert!(followed.rows(0).is_empty(), "it is not there yet");
        log.write(&(lines(1..=4) + "no JSON\n{\"step\":5"));
        assert_eq!(steps(&followed.rows(0)), [1, 2, 3, 4]);
        // What was read is not read again: a line that is damaged since keeps its place.
        let mut file = File::options().write(true).open(&log.0).expect("opened");
        file.write_all(b"{\"step\":X").expect("written");
        log.append(",\"loss\":1}\n");
        assert_eq!(steps(&followed.rows(0)), [2, 3, 4, 5]);
        assert_eq!(steps(&followed.rows(3)), [3, 4, 5]);
        assert_eq!(followed.rows(5)[0]["loss"], 1);
        assert!(followed.rows(6).is_empty());
        // A resumed run drops lines and writes others, be they as long together.
        log.write(&lines(1..=9));
        assert_eq!(steps(&followed.rows(0)), (1..=9).collect::<Vec<_>>());
        log.write(&lines(1..=2));
        assert_eq!(steps(&followed.rows(0)), [1, 2]);
    }

    #[test]
    fn of_many_rows_a_bounded_number_is_told_with_the_validations_and_the_end() {
        let log = Log::new("many");
        let row = |step: u64| match step % 1000 {
            0 => format!("{{\"step\":{step},\"loss\":2.5,\"val_loss\":2.5}}\n"),
            _ => format!("{{\"step\":{step},\"loss\":2.5}}\n"),
        };
        log.write(&(1..=20_000).map(row).collect::<String>());
        let followed = Followed::new(&log.0, Choice::Even(600));
        let told = followed.rows(0);
        assert!(told.len() <= 600 && told.len() > 300, "{}", told.len());
        assert_eq!(told.iter().filter(|row| row["val_loss"].is_f64()).count(), 20);
        let found = steps(&told);
        assert_eq!((found[0], &found[found.len() - 100..]), (1, &(19_901..=20_000).collect::<Vec<_>>()[..]));
        assert_eq!(steps(&followed.rows(19_990)).len(), 11);
        let texts = Followed::new(&log.0, Choice::Early(50));
        let found = steps(&texts.rows(0));
        assert_eq!((found.len(), &found[..4], found[49]), (50, &[1, 2, 3, 4][..], 20_000));
    }
}
