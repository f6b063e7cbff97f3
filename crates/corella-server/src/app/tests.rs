//! Requests to the application, without a socket.

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tower::ServiceExt;

use super::*;

fn app() -> Arc<App> {
    App::new(Access::default(), Transcript::default(), None, false)
}

async fn answer(app: &Arc<App>, method: &str, path: &str, body: Body) -> (StatusCode, Option<HeaderValue>, Value) {
    let request = Request::builder().method(method).uri(path).body(body).expect("a request");
    let response = router(app.clone()).oneshot(request).await.expect("an answer");
    let (status, wait) = (response.status(), response.headers().get(header::RETRY_AFTER).cloned());
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (status, wait, serde_json::from_slice(&bytes).expect("JSON"))
}

#[tokio::test]
async fn while_the_model_loads_everything_says_503_and_how_far_it_is() {
    let app = app();
    app.loading(Loading::Busy { what: "loading the model".to_owned(), share: Some(0.25) });
    for (method, path) in
        [("GET", "/health"), ("GET", "/v1/models"), ("GET", "/corella/anatomy"), ("POST", "/v1/completions")]
    {
        let (status, wait, body) = answer(&app, method, path, Body::from("{}")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(wait, Some(HeaderValue::from_static("1")), "{path}");
        assert_eq!(body["error"]["message"], "loading the model: 25 %");
    }
    app.loading(Loading::Failed("no such file".to_owned()));
    let (status, wait, body) = answer(&app, "GET", "/health", Body::empty()).await;
    assert_eq!((status, wait), (StatusCode::SERVICE_UNAVAILABLE, None));
    assert_eq!(body["error"]["message"], "the model could not be loaded: no such file");
}

/// Time stands still while anything can be done and jumps to the next deadline when nothing can: no test waits.
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_in_time_is_answered_with_408() {
    let begun = tokio::time::Instant::now();
    let drops = dripping(Duration::from_secs(4));
    let (status, _, body) = answer(&app(), "POST", "/v1/completions", Body::new(StreamBody::new(drops))).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(body["error"]["code"], "request_timeout");
    assert!(begun.elapsed() >= arrival::TIME && begun.elapsed() < arrival::TIME * 2, "{:?}", begun.elapsed());
}

/// What is refused anyway is refused at once, whatever is still to come of its body.
#[tokio::test(start_paused = true)]
async fn no_body_is_read_before_path_method_and_key_are_known() {
    let access = Access { keys: vec!["secret".to_owned()], ..Access::default() };
    let app = App::new(access, Transcript::default(), None, false);
    for (path, expected) in [
        ("/v1/completions", StatusCode::UNAUTHORIZED),
        ("/v1/models", StatusCode::METHOD_NOT_ALLOWED),
        ("/nothing", StatusCode::NOT_FOUND),
        ("/main.js", StatusCode::METHOD_NOT_ALLOWED),
        ("/health", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let begun = tokio::time::Instant::now();
        let drops = dripping(Duration::from_secs(4));
        let (status, _, _) = answer(&app, "POST", path, Body::new(StreamBody::new(drops))).await;
        assert_eq!((status, begun.elapsed()), (expected, Duration::ZERO), "{path}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_is_refused_and_the_own_page_is_not() {
    for (origin, expected) in [
        ("https://b.example", StatusCode::FORBIDDEN),
        ("null", StatusCode::FORBIDDEN),
        // There is no model in this test.
        ("http://localhost:8080", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let head = Request::builder().method("POST").uri("/v1/completions").header(header::HOST, "localhost:8080");
        let request = head.header(header::ORIGIN, origin).body(Body::from("{}")).expect("a request");
        let response = router(app()).oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), expected, "{origin}");
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(body["error"]["code"] == "origin_not_allowed", expected == StatusCode::FORBIDDEN, "{body}");
    }
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_send_what_its_client_sends_and_read_when_to_come_back() {
    let access = Access { origins: vec!["https://a.example".to_owned()], ..Access::default() };
    let app = App::new(access, Transcript::default(), None, false);
    let sent = "authorization,content-type,x-stainless-lang,x-stainless-retry-count";
    for (origin, allowed) in [("https://a.example", true), ("https://b.example", false)] {
        let head = Request::builder().method("OPTIONS").uri("/v1/completions").header(header::ORIGIN, origin);
        let head = head.header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
        let head = head.header(header::ACCESS_CONTROL_REQUEST_HEADERS, sent);
        let request = head.body(Body::empty()).expect("a request");
        let response = router(app.clone()).oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let of = |name| response.headers().get(name).map(|value| value.to_str().expect("text"));
        assert_eq!(of(header::ACCESS_CONTROL_ALLOW_HEADERS), allowed.then_some(sent));
        assert_eq!(of(header::ACCESS_CONTROL_EXPOSE_HEADERS), allowed.then_some("retry-after"));
        assert_eq!(of(header::ACCESS_CONTROL_MAX_AGE), allowed.then_some("600"));
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_and_a_body_in_a_coding_are_named() {
    let ask = |name: &'static str, value: String, body: &'static str| async move {
        let head = Request::builder().method("POST").uri("/v1/completions").header(name, value);
        let request = head.body(Body::from(body)).expect("a request");
        let response = router(app()).oneshot(request).await.expect("an answer");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice::<Value>(&bytes).expect("JSON")["error"]["code"].clone())
    };
    let long = ask("x-long", "y".repeat(70_000), "{}").await;
    assert_eq!(long, (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large".into()));
    let coded = ask("content-encoding", "gzip".to_owned(), "\u{1f}").await;
    assert_eq!(coded, (StatusCode::UNSUPPORTED_MEDIA_TYPE, "body_encoded".into()));
    // There is no model in this test.
    for (name, value) in [("content-encoding", "identity".to_owned()), ("x-long", "y".repeat(60_000))] {
        assert_eq!(ask(name, value, "{}").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_refused_by_its_name() {
    let (status, _, body) = answer(&app(), "GET", "/corella/run?since=abc", Body::empty()).await;
    assert_eq!((status, &body["error"]["param"]), (StatusCode::BAD_REQUEST, &"since".into()));
    let request = Request::builder().uri("/corella/run?since=3").body(Body::empty()).expect("a request");
    let response = router(app()).oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
}

/// A body that sends a byte again and again, and never ends.
fn dripping(pause: Duration) -> impl futures_core::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send {
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while send.send(Ok(Frame::data(Bytes::from_static(b" ")))).is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    tokio_stream::wrappers::UnboundedReceiverStream::new(receive)
}
