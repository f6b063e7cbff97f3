//! Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use corella_infer::{Field, RequestError};
use serde_json::{Value, json};

/// An answer that is not 2xx.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// One sentence for the person who sent the request.
    pub message: String,
    /// The parameter that is wrong.
    pub param: Option<String>,
    /// A word that programs can compare.
    pub code: &'static str,
    /// Seconds after which another try may succeed.
    pub retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None, code, retry_after: None }
    }

    /// 400: parameter `param` is wrong.
    pub fn bad(param: &str, message: impl Into<String>) -> ApiError {
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message);
        ApiError { param: Some(param.to_owned()), ..error }
    }

    /// The same about one of several prompts, of which the first has number 0.
    pub fn of_prompt(self, number: usize, of: usize) -> ApiError {
        ApiError { message: format!("prompt {} of {of}: {}", number + 1, self.message), ..self }
    }

    /// 400: the body as a whole is wrong.
    pub fn bad_body(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", message)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorized() -> ApiError {
        let message = "a key is needed: send the header `Authorization: Bearer KEY`";
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    /// 403: asked through a name that is not this machine's.
    pub fn foreign_host(host: &str) -> ApiError {
        let message = format!(
            "this server answers on this machine only, not under the name `{host}`; start it with --allow-host"
        );
        ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message)
    }

    /// 403: asked through no name.
    pub fn no_host() -> ApiError {
        let message = "this server answers on this machine only, under its names; the request has no `Host` header";
        ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message)
    }

    /// 403: asked by a page of another site.
    pub fn foreign_origin(origin: &str) -> ApiError {
        let message =
            format!("pages of `{origin}` may not ask this server; start it with --cors-origin {origin} if they may");
        ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message)
    }

    /// 404: no such path.
    pub fn no_such_path(path: &str) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {path}; see /openapi.json"))
    }

    /// 404: another model than the one that is loaded.
    pub fn no_such_model(asked: &str, loaded: &str) -> ApiError {
        let message = format!("model `{asked}` is not loaded; this server has `{loaded}`");
        let error = ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message);
        ApiError { param: Some("model".to_owned()), ..error }
    }

    /// 405.
    pub fn wrong_method() -> ApiError {
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "wrong_method",
            "this path does not take this method; see /openapi.json",
        )
    }

    /// 408: the body did not arrive in time.
    pub fn too_slow(seconds: u64) -> ApiError {
        let message = format!("the body did not arrive within {seconds} seconds");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// 408: a stream that was not read as fast as it came.
    pub fn unread() -> ApiError {
        let message = "the stream was given up: it was read more slowly than it was written, and too much was waiting";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "stream_not_read", message)
    }

    /// 413: the body is longer than `limit` bytes.
    pub fn too_large(limit: usize) -> ApiError {
        let message = format!("the body is longer than {limit} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// 415: the body is in a coding that is not taken.
    pub fn encoded(coding: &str) -> ApiError {
        let message = format!("the body is in the coding `{coding}`; send it as it is, without `Content-Encoding`");
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body_encoded", message)
    }

    /// 431: the head is longer than `limit` bytes.
    pub fn head_too_large(limit: usize) -> ApiError {
        let message = format!("the head of the request is longer than {limit} bytes");
        ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", message)
    }

    /// 429: as many requests wait as may.
    pub fn busy() -> ApiError {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", "the queue is full; try again soon");
        ApiError { retry_after: Some(1), ..error }
    }

    /// 500: the engine failed at this request.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// 502: another server, whose model was asked for, did not answer.
    pub fn peer(name: &str, why: &str) -> ApiError {
        ApiError::new(StatusCode::BAD_GATEWAY, "peer_failed", format!("the server of `{name}` did not answer: {why}"))
    }

    /// 502: another server, whose model was asked for, answered with what no client of this interface understands.
    pub fn peer_answer(name: &str, status: StatusCode, what: &str) -> ApiError {
        let message = format!("the server of `{name}` answered with status {}: {what}", status.as_u16());
        ApiError::new(StatusCode::BAD_GATEWAY, "peer_failed", message)
    }

    /// 503: the model is not there (yet).
    pub fn unavailable(message: impl Into<String>, retry_after: Option<u64>) -> ApiError {
        ApiError { retry_after, ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message) }
    }

    /// 503: no new work is taken any more.
    pub fn shutting_down(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
    }

    /// 503, or the last event of a stream: the server has waited for the answer as long as it was to.
    pub fn cut_off() -> ApiError {
        ApiError::shutting_down("the server has shut down before the answer was whole")
    }

    /// 400: the prompt is longer than the context; `tokens` says how long it is. Clients look for the code and for these words.
    pub fn too_long(tokens: impl fmt::Display, context: usize) -> ApiError {
        let message =
            format!("the prompt has {tokens} tokens, but this model's maximum context length is {context} tokens");
        let error = ApiError::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message);
        ApiError { param: Some("prompt".to_owned()), ..error }
    }

    /// The document.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 | 403 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> ApiError {
        if let RequestError::PromptTooLong { prompt, context } = error {
            return ApiError::too_long(prompt, context);
        }
        let field = error.field();
        let param = match field {
            // No parameter of a completion.
            Field::Lookup => None,
            Field::Prompt
            | Field::N
            | Field::BestOf
            | Field::MaxTokens
            | Field::MinTokens
            | Field::Stop
            | Field::StopTokenIds
            | Field::Logprobs
            | Field::PromptLogprobs
            | Field::Temperature
            | Field::TopK
            | Field::TopP
            | Field::MinP
            | Field::TypicalP
            | Field::RepetitionPenalty
            | Field::FrequencyPenalty
            | Field::PresencePenalty
            | Field::LogitBias => Some(field.name().to_owned()),
        };
        ApiError { param, ..ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", error.to_string()) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.body().to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
