//! `/corella/run`: the run that this server follows, from its files.

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
use crate::follow::{Choice, Followed};

/// Most rows of the log in one answer: more than a chart has room for.
const MOST_ROWS: usize = 2000;
/// Most updates whose samples are in one answer.
const MOST_SAMPLED: usize = 200;

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

/// The run that a server follows, and what it has read of it.
#[derive(Debug)]
pub struct LiveRun {
    files: RunFiles,
    log: Followed,
    samples: Followed,
}

impl LiveRun {
    /// Nothing of it is read yet.
    pub fn new(files: RunFiles) -> LiveRun {
        let log = Followed::new(&files.log, Choice::Even(MOST_ROWS));
        let samples = Followed::new(&files.samples, Choice::Early(MOST_SAMPLED));
        LiveRun { files, log, samples }
    }

    /// What is new to whoever knows updates up to `since`.
    fn news(&self, since: u64) -> Value {
        let heartbeat = document(&self.files.heartbeat);
        json!({
            "plan": std::fs::read_to_string(&self.files.plan).unwrap_or_default(),
            "log": self.log.rows(if since == 0 { 0 } else { since.saturating_add(1) }),
            // By this machine's clock, which may not be the page's.
            "silent": heartbeat["time"].as_f64().map(age),
            "heartbeat": heartbeat,
            // An update is logged before its samples are written.
            "samples": self.samples.rows(since),
        })
    }
}

/// Which part is wanted.
#[derive(Debug, Deserialize)]
pub struct Since {
    /// Only updates after this one, and samples from it on.
    #[serde(default)]
    since: u64,
}

/// Plan, log, samples and heartbeat of the run, of many rows a bounded number, and the seconds that this is old; null where no run is followed.
pub async fn run(
    State(app): State<Arc<App>>,
    query: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(Since { since }) =
        query.map_err(|_| ApiError::bad("since", "`since` must be a whole number: an update of the run"))?;
    let Some(run) = app.run.clone() else {
        return Ok(Json(Value::Null));
    };
    let read = tokio::task::spawn_blocking(move || run.news(since));
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
