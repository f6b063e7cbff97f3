//! A client's socket, of which can be asked whether the client has left.

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The socket, for the one who reads and writes.
#[derive(Debug)]
pub struct Socket {
    read: Arc<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

/// A look at the socket, for those who work for the client.
#[derive(Clone, Debug)]
pub struct Line(Arc<OwnedReadHalf>);

impl Socket {
    /// A connection that was accepted.
    pub fn new(stream: TcpStream) -> Socket {
        let (read, write) = stream.into_split();
        Socket { read: Arc::new(read), write }
    }

    /// A look at it.
    pub fn line(&self) -> Line {
        Line(self.read.clone())
    }
}

impl Line {
    /// Whether it tells here that a client has closed its side.
    pub const TELLS: bool = cfg!(any(target_os = "linux", target_os = "android"));

    /// Waits until the client has closed its side. What it sent before may still be unread: a line break behind a body, or
    /// another request, behind which whoever reads would see the end only after the answer.
    pub async fn closed(&self) {
        // Waiting for bytes would be over at once where some are unread. Waiting for urgent ones, which are never asked for
        // on this socket, ends with the end alone.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.0.ready(tokio::io::Interest::PRIORITY).await.is_ok_and(|ready| ready.is_read_closed()) {
            return;
        }
        // Elsewhere only the reader notices.
        std::future::pending().await
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let stream: &TcpStream = (*self.read).as_ref();
        loop {
            ready!(stream.poll_read_ready(context))?;
            match stream.try_read(into.initialize_unfilled()) {
                Ok(bytes) => {
                    into.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.write).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
