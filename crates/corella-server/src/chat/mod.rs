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
use corella_infer::{CacheScope, RequestLimits};
use serde_json::{Value, json};

use self::answer::{About, ChatChunks, as_chat};
pub use self::transcript::Transcript;
use self::transcript::{begins_answer, messages};
use crate::app::App;
use crate::completions::{CompletionCall, Prompt, Show, collect, start, stream};
use crate::error::ApiError;
use crate::fields::Fields;

/// Tokens of an answer, where nothing is said.
const MOST_TOKENS: u64 = 256;

/// The transcript in use.
pub async fn transcript(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"transcript": app.transcript, "stop": app.transcript.stop()}))
}

/// The route.
pub async fn completions(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let served = app.served()?;
    let (scope, seed) = (app.access.scope(&headers), served.random_seed());
    let aside = &served.aside;
    let parsed = aside.run(body.len(), || parse(&app.transcript, &body, served.limits(), scope, seed)).await?;
    let (call, page, begun) = parsed?;
    let (show, streamed, seed) = (call.show, call.stream, call.params.sample.seed);
    let running = aside.run(call.work(&served), || start(&served, call)).await?.map_err(of_messages)?;
    let about = About { page, stop: app.transcript.stop(), begun, seed, max_tokens: running.max_tokens };
    if streamed {
        let chunks = ChatChunks::new(about, running.n);
        return Ok(stream(served, running, show, Box::new(chunks)));
    }
    let mut whole = collect(&served, running, show).await?;
    let answer = serde_json::to_value(whole.document()).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(Json(as_chat(&answer, &about)).into_response())
}

/// A chat's prompt is its messages.
fn of_messages(error: ApiError) -> ApiError {
    let param = error.param.map(|param| if param == "prompt" { "messages".to_owned() } else { param });
    ApiError { param, ..error }
}

/// Fields of other servers, and of completions, that a transcript cannot follow.
const NOT_OFFERED: [&str; 14] = [
    "tools",
    "tool_choice",
    "response_format",
    "functions",
    "function_call",
    "logprobs",
    "top_logprobs",
    "prompt",
    "echo",
    "n_probs",
    "prompt_logprobs",
    "post_sampling_probs",
    "return_token_ids",
    "parse_special",
];

/// Whether a field that is not offered asks for nothing.
fn asks_nothing(name: &str, value: &Value) -> bool {
    match name {
        "tools" | "functions" => *value == json!([]),
        "tool_choice" | "function_call" => value == "none",
        "response_format" => *value == json!({"type": "text"}),
        "top_logprobs" => *value == json!(0),
        _ => *value == json!(false),
    }
}

/// The call, the page that it continues, and whether the answer was begun. The fields of a chat are those of a completion,
/// but for the prompt, what is shown of tokens, and a newer name.
fn parse(
    transcript: &Transcript,
    body: &[u8],
    limits: &RequestLimits,
    scope: CacheScope,
    seed: u64,
) -> Result<(CompletionCall, String, bool), ApiError> {
    let mut f = Fields::parse(body)?;
    let messages = messages(f.take("messages"))?;
    let (page, begun) = (transcript.page(&messages), begins_answer(&messages));
    for name in NOT_OFFERED {
        if f.take(name).is_some_and(|value| !asks_nothing(name, &value)) {
            return Err(ApiError::bad(name, format!("`{name}` is not offered for a transcript; use /v1/completions")));
        }
    }
    // It says how tools are called, and there are none.
    f.flag("parallel_tool_calls")?;
    let names = ["max_completion_tokens", "max_tokens", "n_predict"];
    let most = f.any_of(&names, |f, name| f.uint(name, 0..=u64::from(u32::MAX)))?.unwrap_or(MOST_TOKENS);
    let mut rest: serde_json::Map<String, Value> = f.entries().collect();
    rest.insert("max_tokens".to_owned(), json!(most));
    let mut call = CompletionCall::parse(Value::Object(rest).to_string().as_bytes(), limits, scope, seed)?;
    call.prompts = vec![Prompt::Text(page.clone())];
    let (own, most) = (transcript.stop(), limits.stops.saturating_sub(1));
    if !call.params.stop.contains(&own) {
        if call.params.stop.len() > most {
            let message =
                format!("{} stop strings: at most {most} beside that of the transcript", call.params.stop.len());
            return Err(ApiError::bad("stop", message));
        }
        call.params.stop.push(own);
    }
    let Show { skip_special, progress, usage, running_usage, .. } = call.show;
    call.show = Show { skip_special, progress, usage, running_usage, ..Show::default() };
    Ok((call, page, begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(field: &str, value: &Value) -> Result<CompletionCall, ApiError> {
        let body = json!({"messages": [{"role": "user", "content": "Hello"}], field: value}).to_string();
        parse(&Transcript::default(), body.as_bytes(), &RequestLimits::default(), CacheScope::default(), 0)
            .map(|(call, ..)| call)
    }

    #[test]
    fn what_a_transcript_cannot_follow_is_refused_by_its_name() {
        for (name, value) in [
            ("prompt", json!("a")),
            ("echo", json!(true)),
            ("n_probs", json!(3)),
            ("logprobs", json!(true)),
            ("prompt_logprobs", json!(1)),
            ("post_sampling_probs", json!(true)),
            ("return_token_ids", json!(true)),
            ("parse_special", json!(true)),
            ("tools", json!([{"type": "function"}])),
            ("tool_choice", json!("auto")),
            ("response_format", json!({"type": "json_object"})),
            ("suffix", json!("a")),
            ("grammar", json!("root")),
        ] {
            let error = parsed(name, &value).expect_err(name);
            assert_eq!(error.param.as_deref(), Some(name), "{}", error.message);
            assert!(parsed(name, &Value::Null).is_ok(), "{name}: null says nothing");
        }
        for (name, value) in [
            ("echo", json!(false)),
            ("parse_special", json!(false)),
            ("tools", json!([])),
            ("tool_choice", json!("none")),
            ("response_format", json!({"type": "text"})),
            ("parallel_tool_calls", json!(true)),
        ] {
            assert!(parsed(name, &value).is_ok(), "{name}: {value} asks for nothing");
        }
    }

    #[test]
    fn the_stop_strings_that_are_counted_are_those_that_were_sent() {
        let stops = |n: usize| json!((0..n).map(|i| format!("s{i}")).collect::<Vec<_>>());
        assert_eq!(parsed("stop", &stops(63)).expect("a call").params.stop.len(), 64);
        let error = parsed("stop", &stops(64)).expect_err("too many");
        assert!(error.message.starts_with("64 stop strings: at most 63"), "{}", error.message);
        let own = Transcript::default().stop();
        assert_eq!(parsed("stop", &json!(own)).expect("a call").params.stop, [own]);
    }

    #[test]
    fn null_is_as_good_as_nothing_and_every_name_of_the_length_counts() {
        for name in ["max_tokens", "max_completion_tokens", "n_predict"] {
            let most = |value: Value| parsed(name, &value).expect(name).params.max_tokens;
            assert_eq!((most(Value::Null), most(json!(0)), most(json!(7))), (256, 0, 7), "{name}");
            assert_eq!(parsed(name, &json!(-1)).expect_err(name).param.as_deref(), Some(name));
        }
        let body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, "n_predict": 6});
        let error = parse(
            &Transcript::default(),
            body.to_string().as_bytes(),
            &RequestLimits::default(),
            CacheScope::default(),
            0,
        );
        assert_eq!(error.expect_err("two values").param.as_deref(), Some("n_predict"));
    }
}
