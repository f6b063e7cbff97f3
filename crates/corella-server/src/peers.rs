//! Models of other servers beside the one that is loaded (`--peer`, `--chat-peer`): the playground puts their continuations of
//! the same text side by side, and any client reaches them through `/v1/completions` by their names.
//!
//! A server that only chats continues a text if the text is the beginning of its own answer (prefill); its chunks come
//! back in the shape of completions.

use std::str::FromStr;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::aside::Aside;
use crate::call::call;
use crate::error::ApiError;
use crate::fields::says_nothing;

/// What a model that was made to answer is told in front of the text.
const TASK: &str = "Continue the following text from the very place where it stops, as its author would. Write nothing but the \
    continuation.";

/// Longest error of another server that is read, in bytes.
const MOST_ERROR: usize = 1 << 20;
/// Characters of an error that is no JSON to show.
const SHOWN: usize = 200;

/// The variable that holds the key of the one other server there is.
const KEY: &str = "CORELLA_PEER_KEY";

/// A model that another server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name there, and here.
    pub name: String,
    /// The server, up to `/v1`.
    pub url: String,
    /// Whether it only offers chats.
    pub chat: bool,
    /// The key that it asks for.
    pub key: Option<String>,
}

/// `NAME=URL` is what names a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not NAME=URL, such as llama=http://127.0.0.1:8081")]
pub struct NoPeer(String);

/// Keys that would reach a server they are not meant for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKeys {
    /// One key, and several servers.
    #[error("{KEY} is one key, and there are {peers} peers: each would learn it")]
    Shared {
        /// How many servers there are.
        peers: usize,
        /// The variables that would hold the keys.
        variables: Vec<String>,
    },
    /// One variable, and two servers.
    #[error("{variable} is the key of both `{one}` and `{other}`: each would learn it")]
    OneName {
        /// The variable.
        variable: String,
        /// A peer.
        one: String,
        /// And the other.
        other: String,
    },
}

impl FromStr for Peer {
    type Err = NoPeer;

    fn from_str(text: &str) -> Result<Peer, NoPeer> {
        let wrong = || NoPeer(text.to_owned());
        let (name, url) = text.split_once('=').ok_or_else(wrong)?;
        let url = url.trim_end_matches('/').trim_end_matches("/v1");
        let scheme = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if name.is_empty() || scheme.is_none_or(str::is_empty) {
            return Err(wrong());
        }
        Ok(Peer { name: name.to_owned(), url: url.to_owned(), chat: false, key: None })
    }
}

impl Peer {
    /// The entry of `/v1/models`.
    pub fn model(&self) -> Value {
        json!({"id": self.name, "object": "model", "owned_by": self.url, "created": 0, "chat": self.chat})
    }

    /// The variable that holds its key and nobody else's.
    pub fn key_variable(&self) -> String {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("{KEY}_{}", self.name.chars().map(letter).collect::<String>())
    }

    /// Each with its key, as `variable` gives them: under its own name (empty: it asks for none), or, where there is one
    /// peer only, under the common one. No key goes to two servers.
    pub fn with_keys(peers: Vec<Peer>, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Peer>, NoKeys> {
        let own: Vec<Option<String>> = peers.iter().map(|peer| variable(&peer.key_variable())).collect();
        for (i, one) in peers.iter().enumerate().filter(|(i, _)| own[*i].as_ref().is_some_and(|key| !key.is_empty())) {
            let same = |other: &&Peer| other.name != one.name && other.key_variable() == one.key_variable();
            if let Some(other) = peers[i + 1..].iter().find(same) {
                let (variable, other) = (one.key_variable(), other.name.clone());
                return Err(NoKeys::OneName { variable, one: one.name.clone(), other });
            }
        }
        let common = variable(KEY).filter(|key| !key.is_empty());
        if common.is_some() && peers.len() > 1 && own.iter().any(Option::is_none) {
            let variables = peers.iter().map(Peer::key_variable).collect();
            return Err(NoKeys::Shared { peers: peers.len(), variables });
        }
        let with_key = |(peer, own): (Peer, Option<String>)| {
            let key = own.or_else(|| common.clone()).filter(|key| !key.is_empty());
            Peer { key, ..peer }
        };
        Ok(peers.into_iter().zip(own).map(with_key).collect())
    }

    /// What is sent for a request of `/v1/completions`, and where to.
    fn request(&self, mut body: Map<String, Value>) -> Result<(String, Value), ApiError> {
        if !self.chat {
            return Ok((format!("{}/v1/completions", self.url), Value::Object(body)));
        }
        let Some(Value::String(prompt)) = body.remove("prompt") else {
            return Err(ApiError::bad(
                "prompt",
                "a server of chats continues one text at a time: `prompt` must be a string",
            ));
        };
        let messages = json!([{"role": "user", "content": TASK}, {"role": "assistant", "content": prompt}]);
        body.insert("messages".to_owned(), messages);
        if body.remove("echo").is_some_and(|echo| !says_nothing(&echo)) {
            return Err(ApiError::bad("echo", not_of_chats(&self.name)));
        }
        // There, the number of alternatives has a field of its own.
        if let Some(top) = body.remove("logprobs").filter(|n| !says_nothing(n)) {
            body.insert("logprobs".to_owned(), json!(true));
            body.insert("top_logprobs".to_owned(), top);
        }
        Ok((format!("{}/v1/chat/completions", self.url), Value::Object(body)))
    }
}

/// What a client is told that asks a server of chats for what only completions show.
fn not_of_chats(name: &str) -> String {
    format!("`{name}` is the model of a server of chats, which offers neither `logprobs` nor `echo`")
}

/// The peer that a request is for.
pub fn named<'a>(peers: &'a [Peer], body: &[u8]) -> Option<&'a Peer> {
    #[derive(Deserialize)]
    struct Named {
        model: String,
    }
    let name = if peers.is_empty() { None } else { serde_json::from_slice::<Named>(body).ok() };
    name.and_then(|asked| peers.iter().find(|peer| peer.name == asked.model))
}

/// Passes a request on and its answer back as it comes. When the client leaves, the connection to the peer is closed.
pub async fn pass_on(peer: &Peer, body: &[u8], aside: &Aside) -> Result<Response, ApiError> {
    let request = || {
        let body =
            serde_json::from_slice(body).map_err(|e| ApiError::bad_body(format!("the body is not JSON: {e}")))?;
        peer.request(body)
    };
    let (url, body) = aside.run(body.len(), request).await??;
    let chat = peer.chat;
    let each = move |status: StatusCode, piece| {
        if chat && status.is_success() { as_completion_line(piece) } else { piece }
    };
    let answer = call(url, peer.key.clone(), body, each).await.map_err(|why| ApiError::peer(&peer.name, &why))?;
    let again = answer.retry_after.as_ref().and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
    let body = if answer.status.is_success() {
        answer.body
    } else {
        let refused = refusal(peer, answer.status, answer.body).await;
        refused.map_err(|error| ApiError { retry_after: again, ..error })?
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    if let Some(kind) = answer.kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(response)
}

/// What another server refused with, if it is in the shape that clients expect; of a server of chats with its name, since the
/// client asked for a completion.
async fn refusal(peer: &Peer, status: StatusCode, body: Body) -> Result<Body, ApiError> {
    if status.is_redirection() {
        let what = "a redirect, which is not followed; give --peer the address where it leads";
        return Err(ApiError::peer_answer(&peer.name, status, what));
    }
    let failed = |why: axum::Error| ApiError::peer(&peer.name, &why.to_string());
    let bytes = axum::body::to_bytes(body, MOST_ERROR).await.map_err(failed)?;
    let Ok(Value::Object(mut document)) = serde_json::from_slice(&bytes) else {
        let text = String::from_utf8_lossy(&bytes);
        let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
        let what = if words.is_empty() { "an empty page" } else { &words };
        return Err(ApiError::peer_answer(&peer.name, status, what));
    };
    let Some(error) = document.get_mut("error").and_then(Value::as_object_mut).filter(|_| peer.chat) else {
        return Ok(Body::from(bytes));
    };
    let shown = matches!(error.get("param").and_then(Value::as_str), Some("logprobs" | "top_logprobs"));
    let words = error.get("message").and_then(Value::as_str).unwrap_or_default();
    let message = if shown {
        error.insert("param".to_owned(), json!("logprobs"));
        not_of_chats(&peer.name)
    } else {
        format!("the server of chats of `{}` says: {words}", peer.name)
    };
    error.insert("message".to_owned(), json!(message));
    Ok(Body::from(Value::Object(document).to_string()))
}

/// A chat's answer, or a line of its stream, in the shape of a completion.
fn as_completion_line(line: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&line);
    let (front, document) = text.strip_prefix("data:").map_or(("", &*text), |rest| ("data: ", rest));
    let Ok(Value::Object(document)) = serde_json::from_str(document) else { return line };
    format!("{front}{}\n", as_completion(document)).into_bytes()
}

/// A chat's document or chunk as a completion's.
fn as_completion(mut chat: Map<String, Value>) -> Value {
    if let Some(Value::Array(choices)) = chat.get_mut("choices") {
        for choice in choices {
            let part = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
            let text = part["content"].as_str().unwrap_or_default();
            *choice = json!({
                "index": choice["index"], "text": text, "finish_reason": choice["finish_reason"],
                "logprobs": choice["logprobs"]["content"].as_array().map(|tokens| lists(tokens)),
            });
        }
        chat.insert("object".to_owned(), json!("text_completion"));
    }
    Value::Object(chat)
}

/// The log-probabilities of a chat's tokens as parallel lists.
fn lists(tokens: &[Value]) -> Value {
    let each = |name: &str| tokens.iter().map(|t| t[name].clone()).collect::<Vec<_>>();
    let top = |t: &Value| -> Map<String, Value> {
        let all = t["top_logprobs"].as_array().into_iter().flatten();
        all.filter_map(|a| Some((a["token"].as_str()?.to_owned(), a["logprob"].clone()))).collect()
    };
    let tops: Vec<_> = tokens.iter().map(top).collect();
    json!({"tokens": each("token"), "token_logprobs": each("logprob"), "top_logprobs": tops})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_and_an_address() {
        let peer: Peer = "llama=http://127.0.0.1:8081/v1/".parse().expect("a peer");
        assert_eq!((&*peer.name, &*peer.url), ("llama", "http://127.0.0.1:8081"));
        for wrong in ["llama", "=http://a", "llama=127.0.0.1:8081", "llama=http://", "llama=ftp://a"] {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_text_becomes_the_beginning_of_a_chats_answer_and_its_chunks_completions() {
        let peer = Peer { chat: true, .."c=https://chat.example".parse().expect("a peer") };
        let Value::Object(body) = json!({"prompt": "Once upon", "max_tokens": 4, "logprobs": 2}) else { return };
        let (url, sent) = peer.request(body).expect("a request");
        assert_eq!(url, "https://chat.example/v1/chat/completions");
        assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": "Once upon"}));
        assert_eq!((&sent["logprobs"], &sent["top_logprobs"]), (&json!(true), &json!(2)));
        assert!(peer.request(Map::from_iter([("prompt".to_owned(), json!([1, 2]))])).is_err());

        let chunk = json!({"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": " a"},
            "finish_reason": null, "logprobs": {"content": [{"token": " a", "logprob": -1.0,
            "top_logprobs": [{"token": " a", "logprob": -1.0}, {"token": " the", "logprob": -2.0}]}]}}]});
        let line = as_completion_line(format!("data: {chunk}\n").into_bytes());
        let line = String::from_utf8(line).expect("text");
        let document: Value = serde_json::from_str(line.strip_prefix("data: ").expect("an event")).expect("JSON");
        let choice = &document["choices"][0];
        assert_eq!((&choice["text"], &document["object"]), (&json!(" a"), &json!("text_completion")));
        assert_eq!(choice["logprobs"]["top_logprobs"][0], json!({" a": -1.0, " the": -2.0}));
        assert_eq!(as_completion_line(b"data: [DONE]\n".to_vec()), b"data: [DONE]\n");
    }

    #[test]
    fn each_key_goes_to_one_server() {
        let of = |names: &[&str], set: &[(&str, &str)]| {
            let peers = names.iter().map(|name| format!("{name}=http://x").parse().expect("a peer")).collect();
            let value = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            Peer::with_keys(peers, value).map(|peers| peers.into_iter().map(|peer| peer.key).collect::<Vec<_>>())
        };
        let key = |text: &str| Some(text.to_owned());
        assert_eq!(of(&["a"], &[("CORELLA_PEER_KEY", "k")]), Ok(vec![key("k")]));
        assert_eq!(of(&["a"], &[("CORELLA_PEER_KEY", "")]), Ok(vec![None]));
        let own = ("CORELLA_PEER_KEY_LLAMA_3_1", "mine");
        assert_eq!(of(&["Llama-3.1", "b"], &[own]), Ok(vec![key("mine"), None]));
        assert_eq!(of(&["Llama-3.1"], &[own, ("CORELLA_PEER_KEY", "k")]), Ok(vec![key("mine")]));
        let all = [("CORELLA_PEER_KEY_A", "1"), ("CORELLA_PEER_KEY_B", ""), ("CORELLA_PEER_KEY", "k")];
        assert_eq!(of(&["a", "b"], &all), Ok(vec![key("1"), None]));
        let shared = of(&["a", "b"], &[("CORELLA_PEER_KEY", "k"), ("CORELLA_PEER_KEY_A", "1")]);
        assert!(matches!(shared, Err(NoKeys::Shared { peers: 2, .. })), "{shared:?}");
        let one_name = of(&["a-b", "a_b"], &[("CORELLA_PEER_KEY_A_B", "1")]);
        assert!(matches!(one_name, Err(NoKeys::OneName { .. })), "{one_name:?}");
    }

    #[tokio::test]
    async fn what_a_peer_refuses_with_comes_in_the_shape_that_clients_expect() {
        let peer: Peer = "c=https://chat.example".parse().expect("a peer");
        let refused = async |peer: &Peer, status: StatusCode, text: &str| {
            let body = refusal(peer, status, Body::from(text.to_owned())).await?;
            Ok::<_, ApiError>(axum::body::to_bytes(body, 1000).await.expect("all of it"))
        };
        for (status, text, word) in [
            (StatusCode::FOUND, "{}", "a redirect"),
            (StatusCode::NOT_FOUND, "<html>\n no such page", "404: <html> no such page"),
            (StatusCode::BAD_GATEWAY, "", "502: an empty page"),
        ] {
            let error = refused(&peer, status, text).await.expect_err(text);
            assert_eq!((error.status, error.code), (StatusCode::BAD_GATEWAY, "peer_failed"));
            assert!(error.message.contains("`c`") && error.message.contains(word), "{}", error.message);
        }
        let own = r#"{"error": {"message": "no", "param": "top_logprobs"}}"#;
        assert_eq!(refused(&peer, StatusCode::BAD_REQUEST, own).await.expect("as it is"), own);
        let chat = Peer { chat: true, ..peer };
        let told = refused(&chat, StatusCode::BAD_REQUEST, own).await.expect("JSON");
        let told: Value = serde_json::from_slice(&told).expect("JSON");
        let words = told["error"]["message"].as_str().expect("a sentence");
        assert!(words.contains("`c`") && words.contains("neither `logprobs` nor `echo`"), "{words}");
        assert_eq!(told["error"]["param"], "logprobs");
        let echo = chat.request(Map::from_iter([("prompt".to_owned(), json!("a")), ("echo".to_owned(), json!(true))]));
        let error = echo.expect_err("a chat's prompt is no part of its answer");
        assert!(error.param.as_deref() == Some("echo") && error.message.contains("`c`"), "{}", error.message);
    }

    #[test]
    fn a_request_goes_to_the_peer_that_it_names() {
        let peers = ["a=http://x", "b=http://y"].map(|text| text.parse().expect("a peer"));
        assert_eq!(named(&peers, br#"{"model": "b", "prompt": ""}"#), Some(&peers[1]));
        assert_eq!(named(&peers, br#"{"model": "c"}"#), None);
        assert_eq!(named(&peers, b"{}"), None);
        assert_eq!(named(&peers, b"no JSON"), None);
    }
}
