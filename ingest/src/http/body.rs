//! Reading a body with a bound on its size, counted as it comes, and on the time it may take.

use std::time::Duration;

use axum::body::HttpBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::Refusal;

/// monday.com's largest captured webhook has 60 KB; this is what a message of the stream can hold.
pub const MAX_BYTES: usize = 1024 * 1024;

/// How much of a body that is too large is still read, and for how long: a client that is cut off while
/// it sends sees a broken connection instead of the answer.
const DISCARD_BYTES: usize = 8 * MAX_BYTES;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// A client that trickles holds a connection for `within`, and never a publish.
pub async fn read<B>(mut body: B, within: Duration) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let deadline = Instant::now() + within;
    // The usual webhook comes in one piece and is not copied.
    let (mut only, mut joined) = (Bytes::new(), BytesMut::new());
    while !body.is_end_stream() {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Refusal::BodyTooSlow),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Refusal::BodyBroken),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers carry nothing that anybody here reads.
        let Ok(data) = frame.into_data() else { continue };
        if only.len().max(joined.len()) + data.len() > MAX_BYTES {
            discard(body).await;
            return Err(Refusal::BodyTooLarge);
        }
        if only.is_empty() {
            only = data;
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&only);
        }
        joined.extend_from_slice(&data);
    }
    Ok(if joined.is_empty() { only } else { joined.freeze() })
}

/// Reads on for a while without keeping anything.
async fn discard(mut body: impl HttpBody<Data = Bytes> + Unpin) {
    let reading = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            if size > left {
                break;
            }
            left -= size;
        }
    };
    // The end of the time is as good as the end of the body here.
    let _ = timeout(DISCARD_WITHIN, reading).await;
}
