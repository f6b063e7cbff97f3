//! The application: its routes in one table, and what every request passes through.

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
use tokio::sync::watch;

use crate::access::Access;
use crate::arrival;
use crate::call::is_stream;
use crate::chat::{self, Transcript};
use crate::completions::completions;
use crate::error::ApiError;
use crate::live::{LiveRun, RunFiles};
use crate::peers::Peer;
use crate::requests_log::Entry;
use crate::served::Served;
use crate::socket::Line;
use crate::tally::Responses;
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
    /// Set when what is under way is waited for no longer.
    cut: watch::Sender<bool>,
    /// Answers by status.
    pub(crate) responses: Responses,
    /// Whether each request gets a line on stderr.
    logs: bool,
    /// Who may ask.
    pub access: Access,
    /// The prompt that makes a chat of completions.
    pub transcript: Transcript,
    /// The run whose log is shown live.
    pub run: Option<Arc<LiveRun>>,
    /// Demos, tracer, anatomy.
    pub extras: OnceLock<Extras>,
}

impl App {
    /// An application whose model is still to come. `logs`: whether each request gets a line on stderr.
    pub fn new(access: Access, transcript: Transcript, run: Option<RunFiles>, logs: bool) -> Arc<App> {
        Arc::new(App {
            served: OnceLock::new(),
            loading: RwLock::new(Loading::Busy { what: "loading the model".to_owned(), share: None }),
            draining: AtomicBool::new(false),
            active: Arc::default(),
            started: Instant::now(),
            cut: watch::Sender::new(false),
            responses: Responses::default(),
            logs,
            access,
            transcript,
            run: run.map(|files| Arc::new(LiveRun::new(files))),
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
    pub(crate) fn served(&self) -> Result<Arc<Served>, ApiError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(ApiError::shutting_down("the server is shutting down"));
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

    /// What is under way is waited for no longer: each answer that is not whole ends with an error. Returns how many there are.
    pub fn cut(&self) -> usize {
        let active = self.active();
        self.cut.send_replace(true);
        active
    }

    /// Ends when what is under way is cut off.
    fn cut_off(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut cut = self.cut.subscribe();
        async move {
            if cut.wait_for(|cut| *cut).await.is_err() {
                // The application is gone, and nobody is left to be told.
                std::future::pending().await
            }
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
    let closed = || {
        let line = line.clone();
        async move {
            match line {
                Some(line) => line.closed().await,
                None => std::future::pending().await,
            }
        }
    };
    // What is there at once is for a client that has closed its side and still reads, too; work goes on for nobody.
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = closed() => return Err(ApiError::bad_body("the client has closed the connection")),
        () = app.cut_off() => return Err(ApiError::cut_off()),
    };
    // A stream is under way until its body ends or is dropped.
    let (parts, body) = response.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let cut: Option<Ending> = kind.is_some_and(is_stream).then(|| Box::pin(app.cut_off()) as Ending);
    Ok(Response::from_parts(
        parts,
        Body::new(Guarded { body, gone: Box::pin(closed()), cut, is_cut: false, _guard: guard }),
    ))
}

/// What every request passes through: the head's size, host name, origin and CORS.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let entry = app.logs.then(|| Entry::new(&request));
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
    app.responses.add(response.status());
    match entry {
        Some(entry) => entry.follow(response),
        None => response,
    }
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

/// Something that ends once.
type Ending = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

struct Guarded {
    body: Body,
    /// Ends when the client has left: nothing is waited for then.
    gone: Ending,
    /// Of a stream: ends when it is cut off, which it says itself. What comes whole breaks off before its announced end.
    cut: Option<Ending>,
    is_cut: bool,
    _guard: Active,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        if self.is_cut {
            return std::task::Poll::Ready(None);
        }
        if self.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(context).is_ready()) {
            self.is_cut = true;
            // The work ends with its body. Of another server's stream half an event may have been passed on.
            self.body = Body::empty();
            let last = format!("\n\ndata: {}\n\n", ApiError::cut_off().body());
            return std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(last.into()))));
        }
        let frame = std::pin::Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.gone.as_mut().poll(context).is_ready() {
            let left = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
            return std::task::Poll::Ready(Some(Err(axum::Error::new(left))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        // What is left of a stream that may still be cut off is not known before its end.
        if self.cut.is_some() { self.is_cut } else { self.body.is_end_stream() }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
