//! The socket: connections in, graceful end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tower::{Service, ServiceExt};

use crate::access::Access;
use crate::app::{App, router};
use crate::arrival::MOST_HEAD;
use crate::heard::{Asked, Heard};
use crate::patience::Patience;
use crate::places::Places;
use crate::requests_log::Client;
use crate::socket::{Line, Socket};

/// Longest time that the head of a request may take to arrive.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest time that a client may read nothing of what is written to it.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Time that work on other threads has to notice that the server has ended.
const LAST_TIME: Duration = Duration::from_secs(1);

/// What can go wrong with the socket.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address that others reach, without a key.
    #[error("{0} can be reached from other machines, and no key is set")]
    Exposed(IpAddr),
    /// The runtime could not be started.
    #[error("cannot start the server: {0}")]
    Runtime(std::io::Error),
}

/// Where to listen, and for how long to wait at the end.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Listen on an address that others reach although no key is set.
    pub allow_exposed: bool,
    /// Time that requests under way have to finish when the server shuts down.
    pub drain: Duration,
}

impl ListenOptions {
    /// Whether it may listen there: an address that others reach needs a key, or somebody who wants it without.
    pub fn check(&self, access: &Access) -> Result<(), ServeError> {
        let ip = self.address.ip();
        let safe = ip.is_loopback() || !access.keys.is_empty() || self.allow_exposed;
        if safe { Ok(()) } else { Err(ServeError::Exposed(ip)) }
    }
}

/// Ends a server from anywhere. Dropping it ends the server too.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<bool>);

/// What a server listens to for its end.
#[derive(Clone, Debug)]
pub struct Stopped(watch::Receiver<bool>);

impl Shutdown {
    /// A pair.
    pub fn new() -> (Shutdown, Stopped) {
        let (send, receive) = watch::channel(false);
        (Shutdown(send), Stopped(receive))
    }

    /// Lets the server finish what is under way, and end.
    pub fn now(&self) {
        // Nobody listening means that it has ended.
        let _ = self.0.send(true);
    }
}

/// Serves `app` until it is told to stop, then lets requests under way finish; returns how many were cut off because they took
/// longer than they have for that. `bound` is told the address.
pub fn serve(
    app: Arc<App>,
    options: &ListenOptions,
    stop: Stopped,
    bound: impl FnOnce(SocketAddr),
) -> Result<usize, ServeError> {
    options.check(&app.access)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let served = runtime.block_on(async {
        let listen = |source| ServeError::Listen { address: options.address, source };
        let listener = TcpListener::bind(options.address).await.map_err(listen)?;
        bound(listener.local_addr().map_err(listen)?);
        Ok(accept(app, listener, stop.0, options.drain).await)
    });
    // Dropping it would wait for threads that wait for others: a peer that is silent, a name that is looked up.
    runtime.shutdown_timeout(LAST_TIME);
    served
}

/// What answers requests.
trait Answers:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<A> Answers for A where
    A: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// What a connection runs on.
type Io<S> = TokioIo<Patience<S>>;

/// A connection with its limits.
fn connection<S: AsyncRead + AsyncWrite + Unpin, A: Answers>(
    socket: S,
    service: TowerToHyperService<A>,
) -> http1::Connection<Io<S>, TowerToHyperService<A>> {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MOST_HEAD);
    // Whoever closes the side on which it writes is still answered with what is there at once. Where the line tells nobody
    // that a client has left, the reader has to.
    builder.half_close(Line::TELLS);
    builder.serve_connection(TokioIo::new(Patience::new(socket, WRITE_TIME)), service)
}

/// Returns how many requests were cut off.
async fn accept(app: Arc<App>, listener: TcpListener, mut stop: watch::Receiver<bool>, drain: Duration) -> usize {
    let places = Places::new();
    let service = router(app.clone());
    // Each connection holds an end of it, so it closes with the last of them.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let place = places.next().await;
                (place, listener.accept().await)
            } => accepted,
            // A dropped sender stops the server too.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (Some(place), Ok((socket, client))) = accepted else {
            // Out of file handles, or a connection that was closed at once: a pause, then on.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Some(taken) = places.take(place, client.ip()) else { continue };
        // Tokens are small; they must not wait for a full packet.
        let _ = socket.set_nodelay(true);
        let asked = Asked::default();
        let socket = Socket::new(socket);
        let line = socket.line();
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(line.clone());
            request.extensions_mut().insert(Client(client.ip()));
            request
        });
        let connection = connection(Heard::new(socket, asked.clone()), TowerToHyperService::new(service));
        let (stopping, open) = (stop.clone(), open.clone());
        tokio::spawn(async move {
            attend(connection, &asked, stopping).await;
            drop((taken, open));
        });
    }
    drop(listener);
    app.drain();
    drop(open);
    // Not until requests are answered but until their answers are written: the last bytes of a long one take their time.
    if tokio::time::timeout(drain, all_closed.recv()).await.is_ok() {
        return 0;
    }
    let cut = app.cut();
    // Each is told so.
    let _ = tokio::time::timeout(LAST_TIME, all_closed.recv()).await;
    cut
}

/// Serves a connection to its end. When the server stops, what was begun on it is finished; a connection on which nothing
/// is under way ends at once.
async fn attend<S: AsyncRead + AsyncWrite + Unpin, A: Answers>(
    connection: http1::Connection<Io<S>, TowerToHyperService<A>>,
    asked: &Asked,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    // One that has been silent so far would be waited for: browsers open some in advance.
    if asked.yet() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::chat::Transcript;

    fn service() -> TowerToHyperService<Router> {
        TowerToHyperService::new(router(App::new(Access::default(), Transcript::default(), None, false)))
    }

    /// A connection over `bytes` of pipe that is attended to, and the client's end of it.
    fn attended(bytes: usize, stop: watch::Receiver<bool>) -> (tokio::task::JoinHandle<()>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(bytes);
        let asked = Asked::default();
        let connection = connection(Heard::new(ours, asked.clone()), service());
        (tokio::spawn(async move { attend(connection, &asked, stop).await }), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_written_or_sent_is_finished_when_the_server_stops() {
        let (send, stop) = watch::channel(false);
        let (reads, mut client) = attended(64, stop.clone());
        client.write_all(b"GET /main.js HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        let mut answer = vec![0; 64];
        client.read_exact(&mut answer).await.expect("it begins");
        let (sends, mut late) = attended(4096, stop);
        let body = b"{\"prompt\": \"a\"}";
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        late.write_all(head.as_bytes()).await.expect("sent");
        late.write_all(&body[..4]).await.expect("sent");
        tokio::time::sleep(Duration::from_secs(1)).await;
        send.send(true).expect("they listen");
        tokio::time::sleep(Duration::from_secs(5)).await;
        client.read_to_end(&mut answer).await.expect("all of it");
        reads.await.expect("it ends");
        let text = String::from_utf8(answer).expect("text");
        let (head, sent) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}", sent.len())), "{head}");
        late.write_all(&body[4..]).await.expect("sent");
        let mut answer = String::new();
        late.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        sends.await.expect("it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_on_which_nothing_is_under_way_end_at_once_when_the_server_stops() {
        let (send, stop) = watch::channel(false);
        let (silent, _client) = attended(4096, stop.clone());
        let (kept, mut client) = attended(4096, stop);
        client.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        client.read_exact(&mut [0; 64]).await.expect("an answer");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stopped = tokio::time::Instant::now();
        send.send(true).expect("they listen");
        silent.await.expect("it ends");
        kept.await.expect("it ends");
        assert_eq!(stopped.elapsed(), Duration::ZERO);
    }

    /// Time stands still while anything can be done and jumps to the next deadline when nothing can: no test waits.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_and_never_reads_loses_its_connection() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let served = tokio::spawn(connection(ours, service()));
        let begun = tokio::time::Instant::now();
        theirs.write_all(&b"GET /main.js HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20)).await.expect("sent");
        let ended = served.await.expect("a task");
        assert!(ended.is_err(), "it was not cut off");
        assert!(begun.elapsed() >= WRITE_TIME && begun.elapsed() < WRITE_TIME * 2, "{:?}", begun.elapsed());
    }
}
