//! log.jsonl, samples.jsonl and events.jsonl: one object per line, appended.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};

use corella_model::formats::atomic::AtomicFile;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TrainError;
use crate::folder::same;

/// Most bytes that wait for a disk that takes nothing.
const LARGEST_BACKLOG: usize = 64 << 20;

/// A text written during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Updates made before.
    pub step: u64,
    /// What it continues.
    pub prompt: String,
    /// What the model added.
    pub text: String,
    /// Seed of the draw.
    pub seed: u64,
}

/// Something that happened to a run, for events.jsonl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Updates made before.
    pub step: u64,
    /// started, resumed, skipped, track (how it stands beside a reference curve), checkpoint, trouble, stopped, finished or failed.
    pub event: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// Seconds in the run, over all sessions.
    pub elapsed: f64,
    /// Seconds since 1970 by the wall's clock.
    pub time: f64,
}

/// Gives a file of lines that a beginning would drop another name beside it, `log-1.jsonl` and so on. Returns that name; `None`
/// where there is no line to keep.
pub fn set_aside(path: &Path) -> Result<Option<PathBuf>, TrainError> {
    let found = match fs::read(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::io(path)(error)),
    };
    if !found.split(|byte| *byte == b'\n').any(|line| serde_json::from_slice::<Value>(line).is_ok()) {
        return Ok(None);
    }
    let (stem, ending) = (path.file_stem().unwrap_or_default(), path.extension().unwrap_or_default());
    let name = |n: u64| format!("{}-{n}.{}", stem.to_string_lossy(), ending.to_string_lossy());
    let free = (1..).map(|n| path.with_file_name(name(n))).find(|kept| !kept.exists());
    let kept = free.unwrap_or_else(|| path.with_file_name(name(0)));
    fs::rename(path, &kept).map_err(TrainError::io(path))?;
    Ok(Some(kept))
}

/// A file of JSON lines that each carry a `step`.
///
/// Lines that a full disk does not take wait in memory and are tried again with the next one; half of a line never stays
/// in the file.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in the file.
    length: u64,
    /// The last line, where it was read or written, and its bytes in the file.
    last: Option<(Value, u64)>,
    backlog: Vec<u8>,
}

impl JsonLines {
    /// Opens the file for appending, after dropping every line beyond `step`: a resumed run writes those again. A run
    /// that begins (`None`) drops all.
    pub fn open(path: &Path, step: Option<u64>) -> Result<Self, TrainError> {
        // Twice line by line where something goes: a log of millions of updates is never held whole.
        let (mut last, mut length, mut whole) = (Vec::new(), 0, true);
        each_line(path, step, |line| match line {
            Line::Kept { text, as_written } => {
                whole &= as_written;
                length += text.len() as u64 + 1;
                last.clear();
                last.extend_from_slice(text);
                Ok(())
            }
            Line::Dropped => {
                whole = false;
                Ok(())
            }
        })
        .map_err(TrainError::io(path))?;
        if !whole {
            keep(path, step)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(TrainError::io(path))?;
        let last = serde_json::from_slice(&last).ok().map(|value| (value, last.len() as u64 + 1));
        Ok(JsonLines { path: path.to_path_buf(), file, length, last, backlog: Vec::new() })
    }

    /// Whether the file still stands under its name: somebody may have removed it, or put another in its place.
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| self.file.metadata().is_ok_and(|held| same(&found, &held)))
    }

    /// Appends one object. Where the disk takes nothing and too many lines wait, all that wait are given up: an error of its own.
    pub fn write(&mut self, object: &impl Serialize) -> Result<(), TrainError> {
        let value = to_value(object)?;
        let line = format!("{value}\n").into_bytes();
        self.last = Some((value, line.len() as u64));
        self.backlog.extend(line);
        let written = self.flush();
        if written.is_ok() || self.backlog.len() <= LARGEST_BACKLOG {
            return written;
        }
        let lines = self.backlog.iter().filter(|byte| **byte == b'\n').count();
        self.backlog.clear();
        self.last = None;
        Err(TrainError::LinesLost { path: self.path.clone(), lines })
    }

    /// The last line, where it is of this step.
    pub fn last_of(&self, step: u64) -> Option<&Value> {
        self.last.as_ref().map(|(value, _)| value).filter(|value| value["step"].as_u64() == Some(step))
    }

    /// Puts another object in the place of the last line.
    pub fn replace_last(&mut self, value: Value) -> Result<(), TrainError> {
        self.flush()?;
        if let Some((_, bytes)) = self.last.take() {
            self.length = self.length.saturating_sub(bytes);
            self.file.set_len(self.length).map_err(TrainError::io(&self.path))?;
        }
        self.write(&value)
    }

    /// Writes what waits.
    pub fn flush(&mut self) -> Result<(), TrainError> {
        match self.file.write_all(&self.backlog) {
            Ok(()) => {
                self.length += self.backlog.len() as u64;
                self.backlog.clear();
                Ok(())
            }
            Err(error) => {
                // Whatever part was taken: the lines are written whole later.
                let _ = self.file.set_len(self.length);
                Err(TrainError::io(&self.path)(error))
            }
        }
    }
}

/// A line of a file, without its end.
enum Line<'a> {
    /// It is kept; `as_written` where its end in the file is the usual one.
    Kept {
        /// The line.
        text: &'a [u8],
        /// Whether nothing of it changes.
        as_written: bool,
    },
    /// It is beyond the step, torn, or no object with a step.
    Dropped,
}

/// What of a line tells whether it is kept; the rest is only looked at for its syntax.
#[derive(Deserialize)]
struct Numbered {
    step: u64,
}

/// Calls `see` for every line, in order. A file that is not there has none.
fn each_line(
    path: &Path,
    step: Option<u64>,
    mut see: impl FnMut(Line<'_>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut file = match File::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 20, file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Bytes, not text: a line may be cut inside a character.
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let ended = line.strip_suffix(b"\n");
        let text = ended.unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let number = serde_json::from_slice::<Numbered>(text).ok().map(|found| found.step);
        let stays = number.is_some_and(|number| step.is_some_and(|step| number <= step));
        let as_written = ended.is_some_and(|ended| ended.len() == text.len());
        see(if stays { Line::Kept { text, as_written } } else { Line::Dropped })?;
    }
}

/// Leaves in the file only the lines that are kept. A power cut leaves all lines or these.
fn keep(path: &Path, step: Option<u64>) -> Result<(), TrainError> {
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::new(AtomicFile::create(path)?);
        each_line(path, step, |line| match line {
            Line::Kept { text, .. } => out.write_all(text).and_then(|()| out.write_all(b"\n")),
            Line::Dropped => Ok(()),
        })?;
        out.into_inner().map_err(IntoInnerError::into_error)?.commit()
    };
    write().map_err(TrainError::io(path))
}

fn to_value(object: &impl Serialize) -> Result<Value, TrainError> {
    serde_json::to_value(object).map_err(|e| TrainError::Plan { field: "log", what: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_step_and_broken_ones_go_and_the_last_can_be_replaced() {
        let path = std::env::temp_dir().join(format!("corella-lines-{}.jsonl", std::process::id()));
        fs::write(&path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4,\"lo").expect("written");
        let mut lines = JsonLines::open(&path, Some(2)).expect("opened");
        assert_eq!(lines.last_of(2), Some(&serde_json::json!({"step": 2})));
        lines.replace_last(serde_json::json!({"step": 2, "val_loss": 0.5})).expect("replaced");
        lines.write(&serde_json::json!({"step": 3})).expect("written");
        assert_eq!(
            fs::read_to_string(&path).expect("read"),
            "{\"step\":1}\n{\"step\":2,\"val_loss\":0.5}\n{\"step\":3}\n"
        );
        JsonLines::open(&path, None).expect("opened");
        assert_eq!(fs::read_to_string(&path).expect("read"), "", "a run that begins has no lines");
        fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_line_cut_inside_a_character_goes_and_those_around_it_stay() {
        let path = std::env::temp_dir().join(format!("corella-torn-{}.jsonl", std::process::id()));
        fs::write(
            &path,
            b"{\"step\":1,\"text\":\"\xc3\xa9\"}\n{\"step\":2,\"text\":\"\xc3\n{\"step\":3}\n{\"text\":\"\xe2\x82",
        )
        .expect("written");
        let lines = JsonLines::open(&path, Some(9)).expect("opened");
        assert_eq!(lines.last_of(3), Some(&serde_json::json!({"step": 3})));
        assert_eq!(fs::read_to_string(&path).expect("text"), "{\"step\":1,\"text\":\"é\"}\n{\"step\":3}\n");
        fs::remove_file(&path).expect("removed");
    }

    /// A line that others wrote is as long as it is, not as we would write it; and numbers keep their last bit.
    #[test]
    fn a_line_read_is_replaced_by_its_length_in_the_file() {
        let path = std::env::temp_dir().join(format!("corella-length-{}.jsonl", std::process::id()));
        fs::write(&path, "{\"step\":1}\n{ \"step\" : 2, \"loss\" : 2.30 }\n").expect("written");
        let mut lines = JsonLines::open(&path, Some(2)).expect("opened");
        lines.replace_last(serde_json::json!({"step": 2, "loss": 2.3})).expect("replaced");
        assert_eq!(fs::read_to_string(&path).expect("read"), "{\"step\":1}\n{\"loss\":2.3,\"step\":2}\n");
        fs::remove_file(&path).expect("removed");
        for bits in (0..20_000u64).map(|i| 0x3ff0_0000_0000_0000 + i * 0x0000_0157_9bdf_0247) {
            let number = f64::from_bits(bits);
            let read: f64 = serde_json::from_str(&serde_json::to_string(&number).expect("JSON")).expect("JSON");
            assert_eq!(read.to_bits(), bits, "{number}");
        }
    }

    /// A file that others hold goes on as it was until the new one is whole, and nothing is left beside it.
    #[test]
    fn lines_are_dropped_in_a_new_file_that_takes_the_place_of_the_old() {
        let dir = std::env::temp_dir().join(format!("corella-kept-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        let path = dir.join("log.jsonl");
        // Another session's, or somebody's.
        fs::write(dir.join("log.jsonl.partial"), "mine").expect("written");
        fs::write(&path, "{\"step\":1}\n{\"step\":2}\n").expect("written");
        let before = fs::metadata(&path).expect("there");
        let lines = JsonLines::open(&path, Some(1)).expect("opened");
        assert!(!same(&before, &fs::metadata(&path).expect("there")) && lines.is_there());
        assert_eq!(fs::read_to_string(&path).expect("read"), "{\"step\":1}\n");
        assert_eq!(fs::read_to_string(dir.join("log.jsonl.partial")).expect("read"), "mine");
        assert_eq!(fs::read_dir(&dir).expect("listed").count(), 2);
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn lines_that_are_given_up_are_an_error_of_their_own() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).expect("a disk that is full");
        let mut lines = JsonLines { path, file, length: 0, last: None, backlog: Vec::new() };
        let first = lines.write(&serde_json::json!({"step": 1})).expect_err("it is full");
        assert!(first.is_full_disk() && lines.last_of(1).is_some(), "{first}");
        lines.backlog.resize(LARGEST_BACKLOG, b'\n');
        let waiting = lines.backlog.iter().filter(|byte| **byte == b'\n').count();
        match lines.write(&serde_json::json!({"step": 2})) {
            Err(TrainError::LinesLost { lines, .. }) => assert_eq!(lines, waiting + 1),
            other => panic!("{other:?}"),
        }
        assert!(lines.backlog.is_empty() && lines.last_of(2).is_none(), "what is lost is not replaced in the file");
    }
}
