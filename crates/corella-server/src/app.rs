//! The application: its routes in one table, and what every request passes through.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;

use crate::access::Access;
use crate::arrival;
use crate::chat::{self, Transcript};
use crate::completions::completions;
use crate::error::ApiError;
use crate::peers::Peer;
use crate::served::Served;
use crate::socket::Line;
use crate::{live, monitor, playground, tokens, trace};

/// Where loading stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Loading {
    /// Still reading: what it does, and how far it is (0 … 1) where that is known.
    Busy {
        /// For people.
        what: String,
        /// Share done.
        share: Option<f32>,
    },
    /// The model could not be loaded; a server that shows a run stays up, and says why.
    Failed(String),
}

/// What the binary brings beside the model. All of it is optional.
#[derive(Default)]
pub struct Extras {
    /// Demonstrations for the playground, in the shape of `/corella/demos`; the general ones if none.
    pub demos: Option<Value>,
    /// Finds where text comes from.
    pub tracer: Option<Box<dyn trace::Tracer>>,
    /// Models of other servers.
    pub peers: Vec<Peer>,
    /// What the model is made of, in the shape of `corella inspect --json`.
    pub anatomy: Option<Value>,
}

/// Everything that routes share.
pub struct App {
    served: OnceLock<Arc<Served>>,
    loading: RwLock<Loading>,
    draining: AtomicBool,
    /// Requests under way, streams included.
    active: Arc<AtomicUsize>,
    started: Instant,
    /// Who may ask.
    pub access: Access,
    /// The prompt that makes a chat of completions.
    pub transcript: Transcript,
    /// The run folder whose log is shown live.
    pub run: Option<PathBuf>,
    /// Demos, tracer, anatomy.
    pub extras: OnceLock<Extras>,
}

impl App {
    /// An application whose model is still to come.
    pub fn new(access: Access, transcript: Transcript, run: Option<PathBuf>) -> Arc<App> {
        Arc::new(App {
            served: OnceLock::new(),
            loading: RwLock::new(Loading::Busy { what: "loading the model".to_owned(), share: None }),
            draining: AtomicBool::new(false),
            active: Arc::default(),
            started: Instant::now(),
            access,
            transcript,
            run,
            extras: OnceLock::new(),
        })
    }

    /// Says how far loading is.
    pub fn loading(&self, now: Loading) {
        *self.loading.write().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
    }

    /// The model is there.
    pub fn ready(&self, served: Served, extras: Extras) {
        // The first model stays; there is one per server.
        let _ = self.extras.set(extras);
        let _ = self.served.set(Arc::new(served));
    }

    /// The model, or 503 with the reason.
    pub fn served(&self) -> Result<Arc<Served>, ApiError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable("the server is shutting down", None));
        }
        if let Some(served) = self.served.get() {
            return Ok(served.clone());
        }
        match &*self.loading.read().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Loading::Busy { what, share: Some(share) } => {
                Err(ApiError::unavailable(format!("{what}: {:.0} %", share * 100.0), Some(1)))
            }
            Loading::Busy { what, share: None } => Err(ApiError::unavailable(what.clone(), Some(1))),
            Loading::Failed(why) => Err(ApiError::unavailable(format!("the model could not be loaded: {why}"), None)),
        }
    }

    /// Models of other servers.
    pub fn peers(&self) -> &[Peer] {
        self.extras.get().map_or(&[], |extras| &extras.peers)
    }

    /// From now on no new work is taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        if let Some(served) = self.served.get() {
            served.close();
        }
    }

    /// Requests under way.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Every path that needs the key, if there is one, in the order of the documentation.
pub const ROUTES: [(&str, &str); 13] = [
    ("post", "/v1/completions"),
    ("post", "/v1/chat/completions"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("post", "/tokenize"),
    ("post", "/detokenize"),
    ("get", "/corella/anatomy"),
    ("get", "/corella/demos"),
    ("get", "/corella/run"),
    ("get", "/corella/transcript"),
    ("post", "/corella/trace"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
];

/// The application as a service, for a socket or for a test.
pub fn router(app: Arc<App>) -> Router {
    let keyed = Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/models", get(monitor::models))
        // Names of models may have slashes.
        .route("/v1/models/{*model}", get(monitor::model))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/corella/anatomy", get(playground::anatomy))
        .route("/corella/demos", get(playground::demos))
        .route("/corella/run", get(live::run))
        .route("/corella/transcript", get(chat::transcript))
        .route("/corella/trace", post(trace::trace))
        .route("/metrics", get(monitor::metrics))
        .route("/openapi.json", get(monitor::openapi))
        .route_layer(from_fn_with_state(app.clone(), arrived))
        .layer(from_fn_with_state(app.clone(), with_key));
    let open = Router::new()
        .route("/health", get(monitor::health))
        .merge(playground::routes())
        .route_layer(from_fn_with_state(app.clone(), arrived));
    keyed
        .merge(open)
        .fallback(|request: Request| async move { ApiError::no_such_path(request.uri().path()) })
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        // `arrived` has its own limit, and answers in the shape that clients expect.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app)
}

async fn with_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, ApiError> {
    app.access.check_key(request.headers())?;
    Ok(next.run(request).await)
}

/// What a request to a known path and method, with its key, passes through: the body's size and time, the count of what is
/// under way. What is refused before this has no body read.
async fn arrived(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, ApiError> {
    let request = arrival::whole(request).await?;
    let guard = Active::new(&app.active);
    let line = request.extensions().get::<Line>().cloned();
    let gone = async {
        match &line {
            Some(line) => line.closed().await,
            None => std::future::pending().await,
        }
    };
    // What is there at once is for a client that has closed its side and still reads, too; work goes on for nobody.
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = gone => return Err(ApiError::bad_body("the client has closed the connection")),
    };
    // A stream is under way until its body ends or is dropped.
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, Body::new(Guarded { body, _guard: guard })))
}

/// What every request passes through: the head's size, host name, origin and CORS.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = app.access.allowed_origin(request.headers());
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = match within(&app, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin, access-control-request-headers"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        // Clients send headers of their own about themselves; whoever may ask may send them.
        let usual = HeaderValue::from_static("authorization, content-type");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(usual));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

async fn within(app: &Arc<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    arrival::check_head(&request)?;
    app.access.check_host(request.headers())?;
    if Access::is_preflight(request.method(), request.headers()) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    app.access.check_origin(request.method(), request.headers())?;
    Ok(next.run(request).await)
}

/// Counts a request from the moment its body is there to the end of its body.
struct Active(Arc<AtomicUsize>);

impl Active {
    fn new(count: &Arc<AtomicUsize>) -> Active {
        count.fetch_add(1, Ordering::Relaxed);
        Active(count.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Guarded {
    body: Body,
    _guard: Active,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::Frame;
    use tower::ServiceExt;

    use super::*;

    fn app() -> Arc<App> {
        App::new(Access::default(), Transcript::default(), None)
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
        let app = App::new(access, Transcript::default(), None);
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
        let app = App::new(access, Transcript::default(), None);
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
}
