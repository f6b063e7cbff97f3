//! The body of a request, read whole within its limits, so that a slow or endless sender is answered before any work.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::ApiError;

/// Longest body, in bytes.
const MOST: usize = 16 << 20;
/// Longest head: path, names and values, in bytes. The connection itself takes up to twice as much.
pub const MOST_HEAD: usize = 64 << 10;
/// Longest time that a body may take to arrive.
pub const TIME: Duration = Duration::from_secs(30);

/// 431 to a head that is too long.
pub fn check_head(request: &Request) -> Result<(), ApiError> {
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if path + lines.sum::<usize>() > MOST_HEAD { Err(ApiError::head_too_large(MOST_HEAD)) } else { Ok(()) }
}

/// The same request with its body at hand. Only POST has one.
pub async fn whole(request: Request) -> Result<Request, ApiError> {
    if request.method() != Method::POST {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let coding = parts.headers.get(header::CONTENT_ENCODING).map(|coding| coding.to_str().unwrap_or_default());
    if let Some(coding) = coding.filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(ApiError::encoded(coding));
    }
    if body.size_hint().lower() > MOST as u64 {
        return Err(ApiError::too_large(MOST));
    }
    let read = Limited::new(body, MOST).collect();
    let bytes: Bytes = match tokio::time::timeout(TIME, read).await {
        Err(_) => return Err(ApiError::too_slow(TIME.as_secs())),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            return Err(ApiError::too_large(MOST));
        }
        Ok(Err(error)) => return Err(ApiError::bad_body(format!("the body broke off: {error}"))),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    Ok(Request::from_parts(parts, Body::from(bytes)))
}
