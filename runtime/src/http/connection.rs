//! One connection's bytes: a peer that does not read is given up, and one that still sends is heard out.
//!
//! A refusal is often answered before the whole request has come. Closing a socket with bytes that nobody read
//! makes the kernel reset the connection, and the peer may lose the answer with it. So after the last byte was
//! written what still comes is read and dropped, for a bounded time and length.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Longest time that a peer is heard out: 20 MiB, the longest body, at 700 KiB/s.
const LINGER: Duration = Duration::from_secs(30);
/// Longest silence meanwhile.
const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// Most bytes that are dropped: the longest body, and what frames it.
const LINGER_BYTES: usize = 25 * 1024 * 1024;

/// A connection that was accepted.
pub(super) struct Connection {
    stream: TcpStream,
    /// Longest time in which the peer takes no byte of what is written.
    write_timeout: Duration,
    /// When to give up a write that has not gone on.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once our side is closed.
    lingering: Option<Lingering>,
}

struct Lingering {
    until: Instant,
    silent: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        Self { stream, write_timeout, stalled: None, lingering: None }
    }

    /// Bounds the time until a write goes on.
    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let lingering = match &mut this.lingering {
            Some(lingering) => lingering,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                this.lingering.insert(Lingering {
                    until: Instant::now() + LINGER,
                    silent: Box::pin(sleep(LINGER_SILENCE)),
                    bytes_left: LINGER_BYTES,
                })
            }
        };
        let mut dropped = [0; 16 * 1024];
        loop {
            let mut into = ReadBuf::new(&mut dropped);
            match Pin::new(&mut this.stream).poll_read(context, &mut into) {
                Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                    let Some(left) = lingering.bytes_left.checked_sub(into.filled().len()) else { break };
                    lingering.bytes_left = left;
                    lingering.silent = Box::pin(sleep_until(lingering.until.min(Instant::now() + LINGER_SILENCE)));
                    if Instant::now() >= lingering.until {
                        break;
                    }
                }
                // The peer closed its side too, or reset the connection.
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(lingering.silent.as_mut().poll(context));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::new(listener.accept().await.unwrap().0, Duration::from_millis(200)), peer)
    }

    #[tokio::test]
    async fn a_peer_that_still_sends_gets_the_answer() {
        let (mut connection, mut peer) = pair().await;
        let serving = tokio::spawn(async move {
            connection.write_all(b"refused").await.unwrap();
            connection.shutdown().await.unwrap();
        });
        // As many clients do: all of the body first, then the answer.
        peer.write_all(&vec![b'x'; 4_000_000]).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "refused");
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_sends_without_end_or_keeps_silent_is_given_up() {
        let (mut connection, mut peer) = pair().await;
        let sending = tokio::spawn(async move {
            let chunk = vec![b'x'; 1 << 20];
            let mut sent = 0;
            while peer.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        });
        connection.shutdown().await.unwrap();
        drop(connection);
        assert!(sending.await.unwrap() >= LINGER_BYTES / 2, "it was heard out");
        let (mut connection, silent) = pair().await;
        connection.shutdown().await.unwrap();
        drop(silent);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (mut connection, peer) = pair().await;
        let error = connection.write_all(&vec![b'x'; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(peer);
    }
}
