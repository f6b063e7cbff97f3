//! A connection whose other side must read: a write that makes no progress for too long ends it.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream of bytes both ways, with a limit to how long the other side may leave what is written unread.
#[derive(Debug)]
pub struct Patience<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    /// `stream`, whose other side takes something at least every `limit` while there is something to take.
    pub fn new(stream: S, limit: Duration) -> Patience<S> {
        Patience { stream, limit, waiting: None }
    }

    /// What a write came to; one that has waited too long fails.
    fn within<T>(&mut self, context: &mut Context<'_>, written: Poll<Result<T>>) -> Poll<Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the other side does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(context, ended)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Time stands still while anything can be done and jumps to the next deadline when nothing can: no test waits.
    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_read_is_given_up_and_a_slow_one_is_not() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Patience::new(ours, LIMIT);
        let slow = tokio::spawn(async move {
            let mut some = [0; 16];
            for _ in 0..8 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                theirs.read_exact(&mut some).await.expect("bytes");
            }
            theirs
        });
        ours.write_all(&[1; 64 + 8 * 16]).await.expect("it reads, slowly");
        let silent = slow.await.expect("the other side");
        let begun = Instant::now();
        let error = ours.write_all(&[1; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() < LIMIT * 2, "{:?}", begun.elapsed());
        drop(silent);
    }

    #[tokio::test(start_paused = true)]
    async fn reading_has_no_limit_here() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Patience::new(ours, LIMIT);
        let late = tokio::spawn(async move {
            tokio::time::sleep(LIMIT * 10).await;
            theirs.write_all(b"x").await.expect("written");
        });
        assert_eq!(ours.read_u8().await.expect("a byte"), b'x');
        late.await.expect("the other side");
    }
}
