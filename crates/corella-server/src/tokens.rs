//! `/tokenize` and `/detokenize`, by llama.cpp's names, and by vLLM's.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use corella_text::tokenizer::Tokenizer;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::app::App;
use crate::completions::token_text;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::served::Served;

/// Text to ids; with `with_pieces` each with its text, or its bytes where it is part of a character.
pub async fn tokenize(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let served = app.served()?;
    let text = served.aside.run(body.len(), || tokens(&served, &body)).await??;
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}

fn tokens(served: &Served, body: &[u8]) -> Result<String, ApiError> {
    let mut f = Fields::parse(body)?;
    let (content, prompt) = (f.string("content")?, f.string("prompt")?);
    // vLLM's names, with its default and its answer, beside llama.cpp's.
    let as_vllm = prompt.is_some() && content.is_none();
    let text = match (content, prompt) {
        (Some(text), None) | (None, Some(text)) => text,
        (Some(_), Some(_)) => return Err(ApiError::bad("prompt", "`content` and `prompt` are names of one text")),
        (None, None) => return Err(ApiError::bad("content", "`content`, or `prompt`, is the text to tokenise")),
    };
    let named = f.any_of(&["add_special", "add_special_tokens"], |f, name| f.flag_if_given(name))?;
    let special = named.unwrap_or(as_vllm);
    let strings = f.flag("return_token_strs")?;
    let pieces = f.flag("with_pieces")?;
    let by_name = f.flag("parse_special")?;
    served.check_model(f.string("model")?.as_deref())?;
    f.finish(&[])?;
    let ids = if by_name { served.encode_with_special(&text, special) } else { served.encode(&text, special) };
    let strs = strings.then(|| ids.iter().map(|id| token_text(*id, &served.tokenizer)).collect());
    let tokens = Tokens {
        list: (&ids, pieces.then_some(&served.tokenizer)),
        count: as_vllm.then_some(ids.len()),
        max_model_len: as_vllm.then(|| served.context()),
        token_strs: strs,
    };
    serde_json::to_string(&tokens).map_err(|error| ApiError::internal(error.to_string()))
}

/// The answer, written as it is gone through: a text of megabytes has millions of tokens.
#[derive(Serialize)]
struct Tokens<'a> {
    #[serde(rename = "tokens", serialize_with = "with_pieces")]
    list: (&'a [u32], Option<&'a Tokenizer>),
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_strs: Option<Vec<String>>,
}

/// A token's text, or its bytes where they are no text of their own.
#[derive(Serialize)]
#[serde(untagged)]
enum Piece<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// Ids alone, or each with its piece where there is a tokenizer.
fn with_pieces<S: Serializer>((ids, tokenizer): &(&[u32], Option<&Tokenizer>), to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Token<'a> {
        id: u32,
        piece: Piece<'a>,
    }
    let Some(tokenizer) = tokenizer else { return to.collect_seq(*ids) };
    to.collect_seq(ids.iter().map(|id| {
        let bytes = tokenizer.token_bytes(*id);
        Token { id: *id, piece: std::str::from_utf8(bytes).map_or(Piece::Bytes(bytes), Piece::Text) }
    }))
}

/// Ids to text.
pub async fn detokenize(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let served = app.served()?;
    served.aside.run(body.len(), || text(&served, &body)).await?.map(Json)
}

fn text(served: &Served, body: &[u8]) -> Result<Value, ApiError> {
    let mut f = Fields::parse(body)?;
    let ids = f.ids("tokens")?;
    served.check_model(f.string("model")?.as_deref())?;
    f.finish(&[])?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= served.vocabulary()) {
        let message = format!("token {id} is outside the vocabulary of {}", served.vocabulary());
        return Err(ApiError::bad("tokens", message));
    }
    Ok(json!({"content": served.tokenizer.decode(&ids)}))
}
