//! `/tokenize` and `/detokenize`, by llama.cpp's names.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::fields::Fields;

/// Text to ids; with `with_pieces` each with its text, or its bytes where it is part of a character.
pub async fn tokenize(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let served = app.served()?;
    let mut f = Fields::parse(&body)?;
    let Some(text) = f.string("content")? else {
        return Err(ApiError::bad("content", "`content` is the text to tokenise"));
    };
    let special = f.flag("add_special")?;
    let pieces = f.flag("with_pieces")?;
    let by_name = f.flag("parse_special")?;
    served.check_model(f.string("model")?.as_deref())?;
    f.finish(&[])?;
    let ids = if by_name { served.encode_with_special(&text, special) } else { served.encode(&text, special) };
    if !pieces {
        return Ok(Json(json!({"tokens": ids})));
    }
    let piece = |id: &u32| {
        let bytes = served.tokenizer.token_bytes(*id);
        let piece = std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), |text| json!(text));
        json!({"id": id, "piece": piece})
    };
    Ok(Json(json!({"tokens": ids.iter().map(piece).collect::<Vec<_>>()})))
}

/// Ids to text.
pub async fn detokenize(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let served = app.served()?;
    let mut f = Fields::parse(&body)?;
    let ids = f.ids("tokens")?;
    served.check_model(f.string("model")?.as_deref())?;
    f.finish(&[])?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= served.vocabulary()) {
        let message = format!("token {id} is outside the vocabulary of {}", served.vocabulary());
        return Err(ApiError::bad("tokens", message));
    }
    Ok(Json(json!({"content": served.tokenizer.decode(&ids)})))
}
