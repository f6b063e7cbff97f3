//! `/v1/chat/completions` on a base model: the conversation is written down as a transcript, and the model continues the
//! page. The page is shown in the answer; nothing else happens to the messages.

mod answer;
mod transcript;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use corella_infer::CacheScope;
use serde_json::{Value, json};

use self::answer::{About, ChatChunks, as_chat};
pub use self::transcript::Transcript;
use self::transcript::{begins_answer, messages};
use crate::app::App;
use crate::completions::{CompletionCall, Prompt, Show, collect, start, stream};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::served::Served;

/// The transcript in use.
pub async fn transcript(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"transcript": app.transcript, "stop": app.transcript.stop()}))
}

/// The route.
pub async fn completions(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let served = app.served()?;
    let (call, page, begun) = parse(&app, &served, &body, app.access.scope(&headers))?;
    let (show, streamed) = (call.show, call.stream);
    let running = start(&served, call)?;
    let about = About { page, stop: app.transcript.stop(), begun, seed: running.seed };
    if streamed {
        let chunks = ChatChunks::new(about, running.n);
        return Ok(stream(served, running, show, Box::new(chunks)));
    }
    let answer = collect(&served, running, show).await?;
    Ok(Json(as_chat(&answer, &about)).into_response())
}

/// The call, the page that it continues, and whether the answer was begun. The fields of a chat are those of a completion,
/// but for the prompt and three names.
fn parse(
    app: &App,
    served: &Served,
    body: &[u8],
    scope: CacheScope,
) -> Result<(CompletionCall, String, bool), ApiError> {
    let mut f = Fields::parse(body)?;
    let messages = messages(f.take("messages"))?;
    let (page, begun) = (app.transcript.page(&messages), begins_answer(&messages));
    for name in ["tools", "tool_choice", "response_format", "functions", "logprobs", "top_logprobs"] {
        if f.take(name).is_some_and(|value| value != json!(false)) {
            return Err(ApiError::bad(name, format!("`{name}` is not offered for a transcript; use /v1/completions")));
        }
    }
    let mut rest: serde_json::Map<String, Value> = f.entries().collect();
    if let Some(most) = rest.remove("max_completion_tokens") {
        rest.insert("max_tokens".to_owned(), most);
    }
    rest.entry("max_tokens").or_insert(json!(256));
    let mut call = CompletionCall::parse(Value::Object(rest).to_string().as_bytes(), scope, served.random_seed())?;
    call.prompts = vec![Prompt::Text(page.clone())];
    call.params.stop.push(app.transcript.stop());
    call.show = Show { progress: call.show.progress, usage: call.show.usage, ..Show::default() };
    Ok((call, page, begun))
}
