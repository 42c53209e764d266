//! A body that is made while it is sent, by a task of its own: what the task holds, it holds for no longer
//! than its client may be silent.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::{sync::mpsc, time::timeout};

/// What a body is made of.
pub(crate) trait Pieces: Send + 'static {
    /// The next one; none after the last.
    fn next(&mut self) -> impl Future<Output = anyhow::Result<Option<Bytes>>> + Send;
}

/// The last one is none: a body without it has not ended well.
type Piece = anyhow::Result<Option<Bytes>>;

/// The status is sent before the body: a broken connection is the only way left to say that something failed.
/// A client that takes nothing for as long as `silence` has gone away.
pub(crate) fn body(pieces: impl Pieces, silence: Duration) -> Body {
    let (sender, taken) = mpsc::channel(1);
    tokio::spawn(send(pieces, sender, silence));
    Body::from_stream(stream::unfold(Some(taken), async |taken| {
        let mut taken = taken?;
        match taken.recv().await {
            Some(Ok(Some(piece))) => Some((Ok(piece), Some(taken))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(anyhow::anyhow!("the download was given up")), None)),
        }
    }))
}

async fn send(mut pieces: impl Pieces, sender: mpsc::Sender<Piece>, silence: Duration) {
    loop {
        let piece = pieces.next().await;
        if let Err(error) = &piece {
            tracing::warn!(error = format!("{error:#}"), "a download ends early");
        }
        let last = !matches!(piece, Ok(Some(_)));
        let taken = timeout(silence, sender.send(piece)).await;
        if !matches!(taken, Ok(Ok(()))) {
            tracing::warn!("a download ends early: its client takes nothing");
            return;
        }
        if last {
            return;
        }
    }
}
