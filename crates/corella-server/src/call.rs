//! A request to another server and its answer as it comes. Whoever drops the answer, or does not wait for it, closes the
//! connection: a model that writes for nobody costs its owner all the same.

use std::io::{BufRead, BufReader, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use futures_core::Stream;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use ureq::Agent;

/// Longest time until a server is found, and until it takes a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence in front of an answer and inside it: a long prompt is read without a word, and an answer that is no
/// stream comes when all of it is written.
const SILENCE: Duration = Duration::from_secs(600);
/// Pieces of an answer that wait for a slow client.
const WAITING: usize = 16;
/// Longest answer that is no stream, in bytes.
const MOST_ANSWER: u64 = 64 << 20;

type Piece = Result<Bytes, std::io::Error>;

/// An answer whose head is there.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its type.
    pub kind: Option<HeaderValue>,
    /// When to ask again, where it says so.
    pub retry_after: Option<HeaderValue>,
    /// What follows: lines of a stream, or all in one.
    pub body: Body,
}

/// Closes the connections of a request when it is dropped, so that the thread that waits for them ends.
struct HangUp(Agent);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.clone().shutdown();
    }
}

/// The pieces of an answer; the connection goes with them.
struct Pieces {
    received: mpsc::Receiver<Piece>,
    _line: HangUp,
}

impl Stream for Pieces {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.received.poll_recv(context)
    }
}

/// Whether a content type is that of server-sent events, in whatever case it is written.
pub fn is_stream(kind: &HeaderValue) -> bool {
    const STREAM: &[u8] = b"text/event-stream";
    kind.as_bytes().get(..STREAM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(STREAM))
}

/// Posts `body` to `url` and waits for the head of the answer; `each` may rewrite every line of a stream, or the whole of
/// another answer. The error is what the other side, or the way there, came to.
pub async fn call(
    url: String,
    key: Option<String>,
    body: Value,
    each: impl Fn(StatusCode, Vec<u8>) -> Vec<u8> + Send + 'static,
) -> Result<Answer, String> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        // A POST would become a GET there, and the key go to whoever is named.
        .max_redirects(0)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_per_write(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .build()
        .into();
    let line = HangUp(agent.clone());
    let (send_head, head) = oneshot::channel();
    let (send, received) = mpsc::channel::<Piece>(WAITING);
    tokio::task::spawn_blocking(move || match ask(&agent, &url, key.as_deref(), &body) {
        Err(error) => drop(send_head.send(Err(error.to_string()))),
        Ok(answer) => {
            let field = |name| answer.headers().get(name).cloned();
            let (status, kind, retry_after) =
                (answer.status(), field(header::CONTENT_TYPE), field(header::RETRY_AFTER));
            let stream = kind.as_ref().is_some_and(is_stream);
            let body = BufReader::new(answer.into_body().into_reader());
            let _ = send_head.send(Ok((status, kind, retry_after)));
            read(body, stream, |piece| send.blocking_send(piece.map(|piece| each(status, piece).into())).is_ok());
        }
    });
    let (status, kind, retry_after) = head.await.map_err(|_| "it was not asked".to_owned())??;
    Ok(Answer { status, kind, retry_after, body: Body::from_stream(Pieces { received, _line: line }) })
}

/// Reads to the end, or until `pass` finds that nobody listens. A stream goes line by line. What breaks off ends with an
/// error, lest a part be taken for the whole.
fn read(mut body: impl BufRead, stream: bool, mut pass: impl FnMut(Result<Vec<u8>, std::io::Error>) -> bool) {
    loop {
        let mut piece = Vec::new();
        let found = if stream {
            body.read_until(b'\n', &mut piece)
        } else {
            (&mut body).take(MOST_ANSWER).read_to_end(&mut piece)
        };
        if !piece.is_empty() && !pass(Ok(piece)) {
            return;
        }
        match found {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                pass(Err(error));
                return;
            }
        }
    }
}

fn ask(
    agent: &Agent,
    url: &str,
    key: Option<&str>,
    body: &Value,
) -> Result<ureq::http::Response<ureq::Body>, Box<ureq::Error>> {
    let mut request = agent.post(url).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    Ok(request.send(body.to_string())?)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    /// A request under way, and the server that it reached.
    async fn asked() -> (JoinHandle<Result<Answer, String>>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let answer = tokio::spawn(call(url, None, json!({"prompt": "x"}), |_, piece| piece));
        let (mut peer, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            request.push(peer.read_u8().await.expect("a byte"));
        }
        (answer, peer)
    }

    /// Whether the other side closes the connection soon.
    async fn closed(peer: &mut TcpStream) -> bool {
        timeout(Duration::from_secs(20), peer.read(&mut [0; 16])).await.is_ok_and(|read| !matches!(read, Ok(1..)))
    }

    #[tokio::test]
    async fn who_does_not_wait_for_a_silent_server_closes_the_connection() {
        let (answer, mut peer) = asked().await;
        answer.abort();
        assert!(closed(&mut peer).await, "the connection stays open");
    }

    #[tokio::test]
    async fn who_drops_an_answer_half_way_closes_the_connection() {
        let (answer, mut peer) = asked().await;
        let begun = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: a\n";
        peer.write_all(begun).await.expect("written");
        let mut answer = answer.await.expect("a task").expect("an answer");
        let piece = answer.body.frame().await.expect("a piece").expect("a piece").into_data().expect("bytes");
        assert_eq!(piece, "data: a\n");
        drop(answer);
        assert!(closed(&mut peer).await, "the connection stays open");
    }

    #[tokio::test]
    async fn the_head_of_an_answer_is_read_in_any_case() {
        let (answer, mut peer) = asked().await;
        let begun = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\nRETRY-AFTER: 7\r\n\r\ndata: a\n";
        peer.write_all(begun).await.expect("written");
        let mut answer = answer.await.expect("a task").expect("an answer");
        assert_eq!(answer.retry_after, Some(HeaderValue::from_static("7")));
        // The line comes while the rest of the answer is still to come.
        let piece = timeout(Duration::from_secs(20), answer.body.frame()).await.expect("in time").expect("a piece");
        assert_eq!(piece.expect("a piece").into_data().expect("bytes"), "data: a\n");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_nobody_goes_there() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let there = elsewhere.local_addr().expect("an address");
        let (answer, mut peer) = asked().await;
        let head = format!("HTTP/1.1 302 Found\r\nlocation: http://{there}/\r\ncontent-length: 0\r\n\r\n");
        peer.write_all(head.as_bytes()).await.expect("written");
        let answer = timeout(Duration::from_secs(20), answer).await.expect("an end").expect("a task");
        assert_eq!(answer.expect("an answer").status, StatusCode::FOUND);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_does_not_pass_for_a_whole_one() {
        let (answer, mut peer) = asked().await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\":").await.expect("written");
        drop(peer);
        let answer = answer.await.expect("a task").expect("an answer");
        assert!(answer.body.collect().await.is_err());
    }
}
