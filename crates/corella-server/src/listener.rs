//! The socket: connections in, graceful end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::access::Access;
use crate::app::{App, router};
use crate::arrival::MOST_HEAD;
use crate::patience::Patience;
use crate::places::Places;

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

/// Serves `app` until it is told to stop, then lets requests under way finish. `bound` is told the address.
pub fn serve(
    app: Arc<App>,
    options: &ListenOptions,
    stop: Stopped,
    bound: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
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
        accept(app, listener, stop.0, options.drain).await;
        Ok(())
    });
    // Dropping it would wait for threads that wait for others: a peer that is silent, a name that is looked up.
    runtime.shutdown_timeout(LAST_TIME);
    served
}

/// What a connection runs on.
type Io<S> = TokioIo<Patience<S>>;

/// A connection with its limits.
fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    service: TowerToHyperService<Router>,
) -> http1::Connection<Io<S>, TowerToHyperService<Router>> {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MOST_HEAD);
    builder.serve_connection(TokioIo::new(Patience::new(socket, WRITE_TIME)), service)
}

async fn accept(app: Arc<App>, listener: TcpListener, mut stop: watch::Receiver<bool>, drain: Duration) {
    let places = Places::new();
    let service = TowerToHyperService::new(router(app.clone()));
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
        let connection = connection(socket, service.clone());
        let mut stopping = stop.clone();
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                _ = connection.as_mut() => true,
                _ = stopping.wait_for(|stop| *stop) => false,
            };
            if !ended {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
            drop(taken);
        });
    }
    drop(listener);
    app.drain();
    let end = Instant::now() + drain;
    while app.active() > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::chat::Transcript;

    /// Time stands still while anything can be done and jumps to the next deadline when nothing can: no test waits.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_and_never_reads_loses_its_connection() {
        let app = App::new(Access::default(), Transcript::default(), None);
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let served = tokio::spawn(connection(ours, TowerToHyperService::new(router(app))));
        let begun = tokio::time::Instant::now();
        theirs.write_all(&b"GET /main.js HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20)).await.expect("sent");
        let ended = served.await.expect("a task");
        assert!(ended.is_err(), "it was not cut off");
        assert!(begun.elapsed() >= WRITE_TIME && begun.elapsed() < WRITE_TIME * 2, "{:?}", begun.elapsed());
    }
}
