//! One line for each request, where they are asked for: what came, what it was answered with, how long and how much that was.
//! Neither keys nor texts are in it.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub IpAddr);

/// A request whose answer is still to come.
#[derive(Debug)]
pub struct Entry {
    begun: Instant,
    client: Option<IpAddr>,
    method: String,
    path: String,
}

impl Entry {
    /// Of a request that came just now.
    pub fn new(request: &Request) -> Entry {
        Entry {
            begun: Instant::now(),
            client: request.extensions().get::<Client>().map(|client| client.0),
            method: request.method().to_string(),
            // What stands behind it may be anything.
            path: request.uri().path().to_owned(),
        }
    }

    /// The same answer, whose line is written when its last byte is handed over, or when it is given up.
    pub fn follow(self, response: Response) -> Response {
        let status = response.status().as_u16();
        response.map(|body| Body::new(Logged { body, entry: self, status, bytes: 0, whole: false }))
    }
}

/// A body that counts its bytes.
struct Logged {
    body: Body,
    entry: Entry,
    status: u16,
    bytes: usize,
    whole: bool,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => self.bytes += frame.data_ref().map_or(0, Bytes::len),
            Poll::Ready(None) => self.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let Entry { begun, client, method, path } = &self.entry;
        let client = client.map_or("-".to_owned(), |client| client.to_string());
        let broken = if self.whole || self.body.is_end_stream() { "" } else { " broken off" };
        let (status, bytes, time) = (self.status, self.bytes, begun.elapsed().as_secs_f64());
        eprintln!("{client} {method} {path} {status} {bytes} bytes {time:.3} s{broken}");
    }
}
