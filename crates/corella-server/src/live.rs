//! `/corella/run`: the run that this server follows, from its files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

/// Longest part of a log that is read for one answer: its end.
const MOST_LOG: u64 = 64 << 20;

/// Where a run that goes on writes what is shown of it.
#[derive(Clone, Debug)]
pub struct RunFiles {
    /// Its plan, as text.
    pub plan: PathBuf,
    /// JSON lines, one per update.
    pub log: PathBuf,
    /// JSON lines, one per sample.
    pub samples: PathBuf,
    /// A JSON document that says how it is.
    pub heartbeat: PathBuf,
}

/// Which part is wanted.
#[derive(Debug, Deserialize)]
pub struct Since {
    /// Only updates after this one, and samples from it on.
    #[serde(default)]
    since: u64,
}

/// Plan, log, samples and heartbeat of the run, and the seconds that this is old; null where no run is followed.
pub async fn run(
    State(app): State<Arc<App>>,
    query: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(Since { since }) =
        query.map_err(|_| ApiError::bad("since", "`since` must be a whole number: an update of the run"))?;
    let Some(files) = app.run.clone() else {
        return Ok(Json(Value::Null));
    };
    let read = tokio::task::spawn_blocking(move || {
        let from = |first: u64, rows: Vec<Value>| -> Vec<Value> {
            rows.into_iter().filter(|row| row["step"].as_u64().is_some_and(|step| step >= first)).collect()
        };
        let next = if since == 0 { 0 } else { since.saturating_add(1) };
        let heartbeat = document(&files.heartbeat);
        json!({
            "plan": std::fs::read_to_string(&files.plan).unwrap_or_default(),
            "log": from(next, rows(&files.log, MOST_LOG)),
            // By this machine's clock, which may not be the page's.
            "silent": heartbeat["time"].as_f64().map(age),
            "heartbeat": heartbeat,
            // An update is logged before its samples are written.
            "samples": from(since, rows(&files.samples, MOST_LOG)),
        })
    });
    read.await.map(Json).map_err(|_| ApiError::internal("the run folder could not be read"))
}

/// Seconds since a time of the wall's clock.
fn age(time: f64) -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| (now.as_secs_f64() - time).max(0.0))
}

/// A file that is one JSON document; null where there is none.
fn document(path: &Path) -> Value {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The rows in the last `most` bytes of a JSON-lines file that another process may be writing: a line without its end is not
/// there yet.
fn rows(path: &Path, most: u64) -> Vec<Value> {
    let text = end_of(path, most).unwrap_or_default();
    text.split_inclusive('\n').filter(|l| l.ends_with('\n')).filter_map(|l| serde_json::from_str(l).ok()).collect()
}

/// The last `most` bytes of a file, from the first line that begins in them.
fn end_of(path: &Path, most: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    // One byte more shows whether a line begins there.
    let from = len.saturating_sub(most.saturating_add(1));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(len - from).read_to_end(&mut bytes)?;
    let cut =
        if from == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1) };
    Ok(String::from_utf8_lossy(&bytes[cut..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_that_is_too_long_the_last_lines_are_shown() {
        let path = std::env::temp_dir().join(format!("corella-live-{}.jsonl", std::process::id()));
        let lines: String = (1..=5).map(|step| format!("{{\"step\":{step}}}\n")).collect();
        std::fs::write(&path, lines.clone() + "{\"step\":6").expect("written");
        // Each line has 11 bytes, and 9 of the sixth are there.
        let steps = |most| rows(&path, most).iter().map(|row| row["step"].as_u64()).collect::<Vec<_>>();
        assert_eq!(steps(1000), [Some(1), Some(2), Some(3), Some(4), Some(5)]);
        assert_eq!(steps(9 + 22), [Some(4), Some(5)]);
        assert_eq!(steps(9 + 21), [Some(5)]);
        assert!(steps(9).is_empty());
        std::fs::remove_file(&path).expect("removed");
    }
}
