//! Reading a body with a bound on its size, counted as it comes, on the time it may take, and on what all
//! bodies take of the memory together.

use std::{sync::Arc, time::Duration};

use axum::body::HttpBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use metrics::{Gauge, gauge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::answer::Refusal;

/// monday.com's largest captured webhook has 60 KB; this is what a message of the stream can hold.
pub const MAX_BYTES: usize = 1024 * 1024;

/// How much of a body that is not kept is still read, and for how long: a client that is cut off while
/// it sends sees a broken connection instead of the answer.
const DISCARD_BYTES: usize = 8 * MAX_BYTES;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// The memory that there is for the bodies of all requests. A body takes of it what has come, not what
/// was announced: who announces much and sends nothing keeps nobody out.
pub struct Room {
    bytes: Arc<Semaphore>,
    taken: Gauge,
}

/// What one body has taken; dropped, it is free again.
pub struct Taken {
    permit: Option<OwnedSemaphorePermit>,
    gauge: Gauge,
}

impl Room {
    pub fn new(bytes: usize) -> Self {
        let bytes = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Self { bytes, taken: gauge!("ingest_body_bytes") }
    }

    /// For a body of which nothing has come yet.
    pub fn for_one(&self) -> Taken {
        Taken { permit: None, gauge: self.taken.clone() }
    }

    fn has(&self, bytes: u64) -> bool {
        u64::try_from(self.bytes.available_permits()).is_ok_and(|free| free >= bytes)
    }

    fn take(&self, bytes: usize, taken: &mut Taken) -> Result<(), Refusal> {
        let count = u32::try_from(bytes).map_err(|_| Refusal::NoRoom)?;
        let more = Arc::clone(&self.bytes).try_acquire_many_owned(count);
        let more = more.map_err(|_| Refusal::NoRoom)?;
        match &mut taken.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        self.taken.increment(f64::from(count));
        Ok(())
    }
}

impl Taken {
    pub fn give_back(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.gauge.decrement(permit.num_permits() as f64);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A client that trickles holds a connection for `within`, and never a publish.
pub async fn read(
    mut body: impl HttpBody<Data = Bytes> + Unpin,
    within: Duration,
    room: &Room,
    taken: &mut Taken,
) -> Result<Bytes, Refusal> {
    match read_kept(&mut body, within, room, taken).await {
        Err(refusal @ (Refusal::BodyTooLarge | Refusal::NoRoom)) => {
            taken.give_back();
            discard(body).await;
            Err(refusal)
        }
        read => read,
    }
}

async fn read_kept(
    body: &mut (impl HttpBody<Data = Bytes> + Unpin),
    within: Duration,
    room: &Room,
    taken: &mut Taken,
) -> Result<Bytes, Refusal> {
    let announced = body.size_hint().lower();
    if announced > MAX_BYTES as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    if !room.has(announced) {
        return Err(Refusal::NoRoom);
    }
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
            return Err(Refusal::BodyTooLarge);
        }
        room.take(data.len(), taken)?;
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
pub async fn discard(mut body: impl HttpBody<Data = Bytes> + Unpin) {
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
