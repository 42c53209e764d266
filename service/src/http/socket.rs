//! A client's socket that can still be written to after hyper has given the connection up: hyper closes
//! without a word when a request's head trickles, and a client should be told 408.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[derive(Debug, Clone)]
pub(super) struct Socket {
    /// Never contended: hyper has it, and after hyper's end the one who says 408.
    stream: Arc<Mutex<TcpStream>>,
    pub(super) head: Head,
}

/// Have bytes come of which no request has been made yet?
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    begun: Arc<AtomicBool>,
}

impl Head {
    /// The head is whole; what comes from now on is its body, or a next head once it is answered.
    pub(super) fn is_whole(&self) {
        self.begun.store(false, Ordering::Relaxed);
    }
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Arc::new(Mutex::new(stream)), head: Head::default() }
    }

    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a client that has begun a head and not ended it, if this is one; an idle one has asked nothing.
    pub(super) fn tell_too_slow(&self) -> bool {
        let begun = self.head.begun.load(Ordering::Relaxed);
        if begun {
            // A client that does not even read is not waited for.
            let _ = self.stream().try_write(TOO_SLOW);
        }
        begun
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        ready!(Pin::new(&mut *self.stream()).poll_read(cx, buf))?;
        if buf.filled().len() > filled {
            self.head.begun.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The socket is closed when the last handle is dropped, which is at once.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
