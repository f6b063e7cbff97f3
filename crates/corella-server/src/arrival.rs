//! The body of a request, read whole within its limits, so that a slow or endless sender is answered before any work.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Method;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::ApiError;

/// Longest body, in bytes.
const MOST: usize = 16 << 20;
/// Longest time that a body may take to arrive.
pub const TIME: Duration = Duration::from_secs(30);

/// The same request with its body at hand. Only POST has one.
pub async fn whole(request: Request) -> Result<Request, ApiError> {
    if request.method() != Method::POST {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
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
