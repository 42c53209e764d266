//! A file between what is read at once and who takes it slowly: a snapshot ends as soon as Postgres has
//! told all, however long the client needs.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use tempfile::NamedTempFile;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::{download::Pieces, problem::Problem};

/// What is read of a file at once.
const PIECE: u64 = 128 * 1024;
/// A client that has not taken all by then gets no more; a million leads in this time are some 70 kB a second.
const WITHIN: Duration = Duration::from_secs(60 * 60);

/// The room that there is on disk for the files of one org, and of all orgs together.
#[derive(Clone)]
pub(super) struct Disk {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// What one file takes of it, until nobody has the file any more.
struct Taken {
    disk: Disk,
    kib: AtomicUsize,
}

pub(super) struct Writer {
    file: File,
    progress: watch::Sender<Progress>,
    taken: Arc<Taken>,
}

pub(super) struct Reader {
    file: File,
    at: u64,
    until: Instant,
    progress: watch::Receiver<Progress>,
    _taken: Arc<Taken>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    written: u64,
    whole: bool,
}

impl Disk {
    /// Of so many MiB, one of `parts` for each org that asks.
    pub(super) fn shares(mib: u32, parts: usize) -> impl Fn() -> Self {
        let kib = usize::try_from(mib).unwrap_or(usize::MAX).saturating_mul(1024);
        let kib = kib.min(Semaphore::MAX_PERMITS);
        let all = Arc::new(Semaphore::new(kib));
        move || Self { own: Arc::new(Semaphore::new(kib / parts)), all: Arc::clone(&all) }
    }

    /// A file without a name, which is gone when both ends are: nothing is left behind by a process that dies.
    pub(super) fn file(&self) -> Result<(Writer, Reader), Problem> {
        if self.own.available_permits().min(self.all.available_permits()) == 0 {
            tracing::warn!("no room for an export: `query_api.export_disk_mib` is used up");
            return Err(Problem::Unavailable);
        }
        let (writer, reader) = ends().map_err(|error| {
            tracing::warn!(%error, "no file for an export");
            Problem::Unavailable
        })?;
        let (progress, seen) = watch::channel(Progress::default());
        let taken = Arc::new(Taken { disk: self.clone(), kib: AtomicUsize::new(0) });
        let writer = Writer { file: writer, progress, taken: Arc::clone(&taken) };
        let until = Instant::now() + WITHIN;
        Ok((writer, Reader { file: reader, at: 0, until, progress: seen, _taken: taken }))
    }
}

fn ends() -> io::Result<(File, File)> {
    let named = NamedTempFile::new()?;
    let reader = named.reopen()?;
    Ok((File::from_std(named.into_file()), File::from_std(reader)))
}

impl Taken {
    fn take(&self, bytes: usize) -> anyhow::Result<()> {
        let kib = bytes.div_ceil(1024);
        let permits = u32::try_from(kib)?;
        let [own, all] =
            [&self.disk.own, &self.disk.all].map(|room| room.try_acquire_many(permits));
        let (own, all) = own
            .and_then(|own| Ok((own, all?)))
            .context("`query_api.export_disk_mib` is used up")?;
        own.forget();
        all.forget();
        self.kib.fetch_add(kib, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let kib = *self.kib.get_mut();
        self.disk.own.add_permits(kib);
        self.disk.all.add_permits(kib);
    }
}

impl Writer {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.progress.is_closed() {
            bail!("its client has gone away");
        }
        self.taken.take(bytes.len())?;
        self.file.write_all(bytes).await?;
        self.file.flush().await?;
        self.progress.send_modify(|progress| progress.written += bytes.len() as u64);
        Ok(())
    }

    /// A file that is left without this has broken off.
    pub(super) fn end(self) {
        self.progress.send_modify(|progress| progress.whole = true);
    }
}

impl Pieces for Reader {
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let Progress { written, whole } = *self.progress.borrow_and_update();
            if self.at < written {
                return self.piece(written - self.at).await.map(Some);
            }
            if whole {
                return Ok(None);
            }
            self.progress.changed().await.context("the file broke off")?;
        }
    }
}

impl Reader {
    async fn piece(&mut self, there: u64) -> anyhow::Result<Bytes> {
        if Instant::now() > self.until {
            bail!("its client has not taken it in {} s", WITHIN.as_secs());
        }
        let length = usize::try_from(there.min(PIECE))?;
        let mut piece = BytesMut::zeroed(length);
        self.file.read_exact(&mut piece).await?;
        self.at += length as u64;
        Ok(piece.freeze())
    }
}
