//! `/corella/run`: the run that this server follows, from its folder.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

/// Longest part of a log that is read for one answer.
const MOST_LOG: u64 = 64 << 20;

/// Which part is wanted.
#[derive(Debug, Deserialize)]
pub struct Since {
    /// Only updates after this one, and samples from it on.
    #[serde(default)]
    since: u64,
}

/// Plan, log, samples and heartbeat of the run folder; null where no run is followed.
pub async fn run(State(app): State<Arc<App>>, Query(Since { since }): Query<Since>) -> Result<Json<Value>, ApiError> {
    let Some(dir) = app.run.clone() else {
        return Ok(Json(Value::Null));
    };
    let read = tokio::task::spawn_blocking(move || {
        let from = |first: u64, rows: Vec<Value>| -> Vec<Value> {
            rows.into_iter().filter(|row| row["step"].as_u64().is_some_and(|step| step >= first)).collect()
        };
        let next = if since == 0 { 0 } else { since.saturating_add(1) };
        json!({
            "plan": std::fs::read_to_string(dir.join("run.toml")).unwrap_or_default(),
            "log": from(next, rows(&dir.join("log.jsonl"))),
            "heartbeat": document(&dir.join("heartbeat.json")),
            // An update is logged before its samples are written.
            "samples": from(since, rows(&dir.join("samples.jsonl"))),
        })
    });
    read.await.map(Json).map_err(|_| ApiError::internal("the run folder could not be read"))
}

/// A file that is one JSON document; null where there is none.
fn document(path: &Path) -> Value {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The rows of a JSON-lines file that another process may be writing: a line without its end is not there yet.
fn rows(path: &Path) -> Vec<Value> {
    let small = std::fs::metadata(path).is_ok_and(|m| m.len() <= MOST_LOG);
    let text = if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    text.split_inclusive('\n').filter(|l| l.ends_with('\n')).filter_map(|l| serde_json::from_str(l).ok()).collect()
}
