//! `/corella/trace`: which spans of a text stand in the training data. The index is the binary's business.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::fields::Fields;

/// Longest text that is traced, in bytes.
const MOST_TEXT: usize = 1 << 20;

/// A place in the training data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// Number of the document.
    pub document: u64,
    /// Text in front.
    pub before: String,
    /// The span itself.
    #[serde(rename = "match")]
    pub matched: String,
    /// Text behind.
    pub after: String,
}

/// A span that stands word for word in the training data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    /// Where it begins in the text, in UTF-16 units, as browsers count.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Its tokens.
    pub tokens: usize,
    /// How often the training data hold it.
    pub count: u64,
    /// Some of the places.
    pub documents: Vec<Place>,
    /// How the first of them goes on where the text does not.
    pub leaves: Option<String>,
}

/// Of a model that was trained elsewhere.
const NOT_AT_HAND: &str = "What this model was trained on is not known here.";

/// Finds spans.
pub trait Tracer: Send + Sync {
    /// The spans of a text, in order; or, where the training data cannot be searched, why, and what would help.
    fn spans(&self, text: &str) -> Result<Vec<Span>, String>;
}

/// The route.
pub async fn trace(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    app.served()?;
    let mut f = Fields::parse(&body)?;
    let text = f.string("text")?.unwrap_or_default();
    f.finish(&[])?;
    if text.len() > MOST_TEXT {
        return Err(ApiError::bad("text", format!("{} bytes; at most {MOST_TEXT} are traced", text.len())));
    }
    let traced = tokio::task::spawn_blocking(move || {
        let tracer = app.extras.get().and_then(|e| e.tracer.as_ref());
        tracer.map_or_else(|| Err(NOT_AT_HAND.to_owned()), |tracer| tracer.spans(&text))
    });
    match traced.await {
        Ok(Ok(spans)) => Ok(Json(json!({"spans": spans}))),
        Ok(Err(hint)) => Ok(Json(json!({"spans": null, "hint": hint}))),
        Err(_) => Err(ApiError::internal("the search failed")),
    }
}
