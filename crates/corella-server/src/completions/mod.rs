//! `POST /v1/completions`: text in, continuation out. Never a chat template.

mod backlog;
mod document;
mod extent;
mod heal;
mod offsets;
mod request;
mod response;
mod run;
mod stream;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

pub use document::Entry;
pub use request::{CompletionCall, Prompt, Show};
pub use response::{Stretch, token_text};
pub use run::{collect, start};
pub use stream::{Chunks, stream};

use self::stream::CompletionChunks;
use crate::app::App;
use crate::error::ApiError;
use crate::peers;

/// The route.
pub async fn completions(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let served = app.served()?;
    let aside = &served.aside;
    if let Some(peer) = aside.run(body.len(), || peers::named(app.peers(), &body)).await? {
        return peers::pass_on(peer, &body, aside).await;
    }
    let (scope, seed) = (app.access.scope(&headers), served.random_seed());
    let call = aside.run(body.len(), || CompletionCall::parse(&body, served.limits(), scope, seed)).await??;
    let (show, streamed) = (call.show, call.stream);
    let running = aside.run(call.work(&served), || start(&served, call)).await??;
    if streamed {
        let chunks = CompletionChunks::new(served.clone(), &running, show);
        return Ok(stream(served, running, show, Box::new(chunks)));
    }
    let mut whole = collect(&served, running, show).await?;
    let text = served.aside.run(whole.size(), || whole.document().text()).await??;
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}
