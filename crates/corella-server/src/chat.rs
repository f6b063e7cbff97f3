//! `/v1/chat/completions` on a base model: the conversation is written down as a transcript, and the model continues the
//! page. The page is shown in the answer; nothing else happens to the messages.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use corella_infer::CacheScope;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::App;
use crate::completions::{CompletionCall, Prompt, Show, collect, start};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::served::Served;

/// How a conversation is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// The page's beginning, if the messages have no system message of their own.
    pub preamble: String,
    /// Name in front of the user's lines.
    pub human: String,
    /// Name in front of the model's lines.
    pub assistant: String,
}

impl Default for Transcript {
    fn default() -> Self {
        Transcript {
            preamble:
                "This is a conversation between a human and an assistant. The assistant is friendly and knows many \
                things.\n\nHuman: Hello! Who are you?\nAssistant: I am the assistant. Ask me anything you like."
                    .to_owned(),
            human: "Human".to_owned(),
            assistant: "Assistant".to_owned(),
        }
    }
}

impl Transcript {
    /// Where the model's turn ends: before it writes the human's next line.
    pub fn stop(&self) -> String {
        format!("\n{}:", self.human)
    }

    /// The page, up to the assistant's next line.
    fn page(&self, messages: &[Message]) -> String {
        let system: Vec<&str> = messages.iter().filter(|m| m.role == Role::System).map(|m| &*m.content).collect();
        let mut page = if system.is_empty() { self.preamble.clone() } else { system.join("\n\n") };
        for message in messages {
            let name = match message.role {
                Role::System => continue,
                Role::User => &self.human,
                Role::Assistant => &self.assistant,
            };
            page.push_str(&format!("\n{name}: {}", message.content.trim()));
        }
        page + &format!("\n{}:", self.assistant)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    role: Role,
    content: String,
}

fn messages(value: Option<Value>) -> Result<Vec<Message>, ApiError> {
    let wrong = |what: &str| ApiError::bad("messages", format!("`messages`: {what}"));
    let Some(Value::Array(list)) = value else { return Err(wrong("an array of messages is needed")) };
    let all: Vec<Message> = list
        .into_iter()
        .map(|item| {
            let role = match item["role"].as_str() {
                Some("system" | "developer") => Role::System,
                Some("user") => Role::User,
                Some("assistant") => Role::Assistant,
                _ => return Err(wrong("each needs a role: system, user or assistant")),
            };
            let content = content(&item["content"]).ok_or_else(|| wrong("each needs text as its content"))?;
            Ok(Message { role, content })
        })
        .collect::<Result<_, _>>()?;
    match all.last() {
        Some(last) if last.role == Role::User => Ok(all),
        _ => Err(wrong("the last must be the user's")),
    }
}

/// A string, or OpenAI's list of text parts.
fn content(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|p| (p["type"] == "text").then(|| p["text"].as_str()).flatten())
            .collect::<Option<String>>(),
        _ => None,
    }
}

/// The transcript in use.
pub async fn transcript(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"transcript": app.transcript, "stop": app.transcript.stop()}))
}

/// The route.
pub async fn completions(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let served = app.served()?;
    let (call, page) = parse(&app, &served, &body, app.access.scope(&headers))?;
    let show = call.show;
    let running = start(&served, call)?;
    let answer = collect(&served, running, show).await?;
    Ok(Json(as_chat(&answer, &page, &app.transcript)).into_response())
}

/// The fields of a chat are those of a completion, but for the prompt and three names.
fn parse(app: &App, served: &Served, body: &[u8], scope: CacheScope) -> Result<(CompletionCall, String), ApiError> {
    let mut f = Fields::parse(body)?;
    let page = app.transcript.page(&messages(f.take("messages"))?);
    if f.flag("stream")? {
        let message = "a transcript is not streamed here; stream the page itself from /v1/completions";
        return Err(ApiError::bad("stream", message));
    }
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
    call.show = Show::default();
    Ok((call, page))
}

fn as_chat(answer: &Value, page: &str, transcript: &Transcript) -> Value {
    let none = Vec::new();
    let choices: Vec<Value> = answer["choices"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .map(|c| {
            let text = c["text"].as_str().unwrap_or_default().trim();
            json!({
                "index": c["index"],
                "message": {"role": "assistant", "content": text},
                "logprobs": null,
                "finish_reason": c["finish_reason"],
            })
        })
        .collect();
    json!({
        "id": answer["id"], "object": "chat.completion", "created": answer["created"], "model": answer["model"],
        "system_fingerprint": answer["system_fingerprint"], "choices": choices, "usage": answer["usage"],
        "corella": {
            "note": "This is a base model. It continued the transcript below; no chat template was applied.",
            "prompt": page,
            "stop": transcript.stop(),
            "seed": answer["corella"]["seed"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_becomes_a_page_that_ends_with_the_assistants_name() {
        let t = Transcript { preamble: "A talk.".into(), human: "Q".into(), assistant: "A".into() };
        let list = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": [{"type": "text", "text": "Why?"}]}]);
        assert_eq!(t.page(&messages(Some(list)).expect("messages")), "A talk.\nQ: Hi\nA: Yes?\nQ: Why?\nA:");
        assert_eq!(t.stop(), "\nQ:");
        let own = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
        assert_eq!(t.page(&messages(Some(own)).expect("messages")), "Be brief.\nQ: Hi\nA:");
    }

    #[test]
    fn messages_without_a_question_are_refused() {
        for list in [
            json!(null),
            json!([]),
            json!([{"role": "user"}]),
            json!([{"role": "tool", "content": "x"}]),
            json!([{"role": "assistant", "content": "x"}]),
        ] {
            assert!(messages(Some(list)).is_err());
        }
    }
}
