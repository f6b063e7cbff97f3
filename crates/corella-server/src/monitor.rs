//! What operators ask: health, models, metrics, the interface's description.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::peers::Peer;

/// 200 once the model answers; 503 with the progress before, and while the server shuts down.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    match app.served() {
        Ok(served) => Json(json!({"status": "ok", "model": served.name})).into_response(),
        Err(error) => error.into_response(),
    }
}

/// The model that is loaded, then those of other servers.
pub async fn models(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let own = app.served()?.model();
    let data: Vec<Value> = std::iter::once(own).chain(app.peers().iter().map(Peer::model)).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// One of them by its name.
pub async fn model(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let served = app.served()?;
    let Path(name) = name.map_err(|_| ApiError::bad("model", "the name of a model is UTF-8, and this is none"))?;
    match app.peers().iter().find(|peer| peer.name == name) {
        Some(peer) => Ok(Json(peer.model())),
        None => served.check_model(Some(&name)).map(|()| Json(served.model())),
    }
}

/// The interface's description.
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], crate::openapi::DOCUMENT).into_response()
}

/// Prometheus' text format. Counters that only grow are `_total`.
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let served = app.served()?;
    let snapshot = serde_json::to_value(served.metrics()).unwrap_or_default();
    const GAUGES: [&str; 7] = ["queued", "waiting", "running", "occupied", "pages", "pages_held", "pages_idle"];
    let mut text = String::new();
    for (name, value) in snapshot.as_object().into_iter().flatten() {
        let gauge = GAUGES.contains(&name.as_str());
        let (suffix, kind) = if gauge { ("", "gauge") } else { ("_total", "counter") };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE corella_{name}{suffix} {kind}\ncorella_{name}{suffix} {value}");
    }
    let _ = writeln!(text, "# TYPE corella_http_active gauge\ncorella_http_active {}", app.active());
    let _ =
        writeln!(text, "# TYPE corella_uptime_seconds gauge\ncorella_uptime_seconds {:.1}", app.uptime().as_secs_f64());
    app.responses.write(&mut text);
    served.times.write(&mut text);
    if let Some(bytes) = resident_bytes() {
        let name = "process_resident_memory_bytes";
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {bytes}");
    }
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// Memory of this process that is in use, where the system says so (Linux).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
