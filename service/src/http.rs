//! HTTP connections with a bound on everything: how many, how long a header may take, how long the end
//! may last. (`axum::serve` has no header time-out and waits for half-sent requests when it drains.)

mod files;
mod socket;
mod timer;

use std::{
    convert::Infallible,
    future::{Future, ready},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    http::{Request, StatusCode},
    response::Response,
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use metrics::counter;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use socket::Socket;
use timer::Timer;

/// The bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections at most; more wait in the kernel's queue.
    pub connections: usize,
    /// A request's head must be there within this time; an idle connection ends after it, too.
    pub header_timeout: Duration,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// How long requests in flight may go on after the service was told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout: Duration::from_secs(60),
            header_bytes: 64 * 1024,
            drain: Duration::from_secs(8),
        }
    }
}

/// Why no request could be made of what a client has sent. It has its answer already, unless it speaks another
/// protocol: HTTP/2's preface is hung up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHead {
    TooSlow,
    TooLarge,
    Malformed,
}

impl BadHead {
    /// What the client was told, if anything.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Malformed => StatusCode::BAD_REQUEST,
        }
    }

    /// The reason as a label of `http_connections_failed_total`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooSlow => "head_too_slow",
            Self::TooLarge => "head_too_large",
            Self::Malformed => "head_malformed",
        }
    }
}

/// Opens the port; the error says what to do about it.
pub async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("can't listen on {address}: set `{setting}` to a free address, or stop what listens there")
    })
}

/// Serves until `shutdown` is cancelled, then lets requests in flight end, for `limits.drain` at most.
/// `refused` is told of what never became a request; until it returns, the place among the open connections
/// is taken.
pub async fn serve<S, R, F>(
    listener: TcpListener,
    service: S,
    refused: R,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    R: Fn(BadHead) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let address = listener.local_addr()?;
    info!(addr = %address, "listening");
    files::make_room_for(limits.connections);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(limits.header_timeout).max_buf_size(limits.header_bytes.max(8192));
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, or a client that left at once: pause, do not spin or die.
                    warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let socket = socket_of(stream);
        let (service, head) = (service.clone(), socket.head.clone());
        let handler = service_fn(move |request| {
            head.is_whole();
            let (answer, head) = (service.call(request), head.clone());
            async move {
                let response = answer.await;
                head.is_whole();
                response
            }
        });
        let io = TokioIo::new(socket.clone());
        let connection =
            graceful.watch(builder.timer(Timer::default()).serve_connection(io, handler));
        let refused = refused.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await
                && let Some(head) = end(socket, &error)
            {
                refused(head).await;
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(limits.drain, graceful.shutdown()).await.is_err() {
        warn!(
            drain_ms = limits.drain.as_millis(),
            "connections were still open at the drain deadline"
        );
    }
    info!("drained");
    Ok(())
}

/// The same for a router of axum.
pub async fn serve_router(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve(listener, TowerToHyperService::new(router), only_counted, limits, shutdown).await
}

/// What never became a request is counted, as always, and nothing else is done about it.
pub fn only_counted(_: BadHead) -> impl Future<Output = ()> + Send {
    ready(())
}

fn socket_of(stream: TcpStream) -> Socket {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY not set");
    }
    Socket::new(stream)
}

/// A connection that ended without a request that a handler has seen: counted by its reason, closed, and
/// its head's fault, if that was the end of it.
fn end(socket: Socket, error: &hyper::Error) -> Option<BadHead> {
    let head = if error.is_timeout() {
        socket.tell_too_slow().then_some(BadHead::TooSlow)
    } else if error.is_parse_too_large() {
        Some(BadHead::TooLarge)
    } else {
        error.is_parse().then_some(BadHead::Malformed)
    };
    let reason = match head {
        Some(head) => head.reason(),
        // Nobody has asked anything.
        None if error.is_timeout() => "idle",
        None => "broken_off",
    };
    debug!(reason, %error, "connection ended");
    counter!("http_connections_failed_total", "reason" => reason).increment(1);
    head
}
