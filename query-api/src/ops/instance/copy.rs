//! The stream out as NDJSON and in from it, with constant memory: piece by piece to a client, and through
//! a file from one, because a file that broke off must be known as such before anything is published.

use std::{fs::File, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use projector::ops::{
    audit::{Act, audited},
    transfer::{self, Export, Mask, Part, SHORTEST},
};
use secrecy::SecretString;
use serde_json::json;
use tokio::{io::AsyncWriteExt, task::spawn_blocking, time::timeout};

use super::{super::report::told, Command, begin, turn, work::Turn};
use crate::{
    asked::Asked,
    download::{self, Pieces},
    problem::Problem,
    state::App,
};

/// Bytes of a file that is sent; larger ones are for the command line.
const MOST: u64 = 1 << 30;
/// The key of the pseudonyms; without one, a key is made up for the file and forgotten.
const MASK_KEY: &str = "leadpulse-mask-key";
/// Who has not sent all after this does not keep the turn of long work from others.
const WHOLE: Duration = Duration::from_secs(30 * 60);

pub(crate) async fn export(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let (since, until) = (command.edge("from_seq", "since"), command.edge("to_seq", "until"));
    let part = Part { since, until, select: command.select() };
    let packed = command.params.choice("compression", &[("none", false), ("zstd", true)], false);
    let key = command.mask_key();
    let arguments = json!({ "part": format!("{part:?}"), "masked": key.is_some() });
    let act = command.act("export", arguments, None);
    let app = command.finish()?;
    let mask = key.map(|key| Mask::new(key, &app.ops.config)).transpose().map_err(told)?;
    let turn = turn(&app)?;
    let export = Export::open(&app.ops, &part, mask, packed).await.map_err(told)?;
    // It changes nothing, but what leaves the house is written down.
    audited(&app.ops.pool, &act, async { Ok(json!({ "begun": true })) }).await.map_err(told)?;
    let body = download::body(Copy { export, _turn: turn }, silence(&app));
    let form = if packed { "application/zstd" } else { "application/x-ndjson" };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(form)),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
    ];
    Ok((headers, body).into_response())
}

impl Command {
    /// What names are masked with, if they are to be. A key without `mask=true` is a mistake that would let
    /// out what should stay.
    fn mask_key(&mut self) -> Option<SecretString> {
        let sent =
            self.headers.get(MASK_KEY).map(|key| key.to_str().unwrap_or_default().to_owned());
        if sent.as_ref().is_some_and(|key| key.len() < SHORTEST) {
            self.params.fault(MASK_KEY, format!("has fewer than {SHORTEST} characters"));
        }
        match (self.flag("mask"), sent) {
            (true, Some(key)) => Some(key.into()),
            (true, None) => Some(hex::encode(rand::random::<[u8; 32]>()).into()),
            (false, Some(_)) => {
                self.params.fault("mask", "must be true: there is a key to mask with");
                None
            }
            (false, None) => None,
        }
    }
}

/// The other side of a transfer that is silent for so long has gone away.
fn silence(app: &App) -> Duration {
    app.ops.config.query_api.transfer_silence
}

/// It has its turn until it ends, or until its client has gone away.
struct Copy {
    export: Export,
    _turn: Turn,
}

impl Pieces for Copy {
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        Ok(self.export.next().await?.map(Bytes::from))
    }
}

/// A request with a body, as it comes in.
pub(crate) struct Sent {
    asked: Asked,
    body: Body,
}

impl FromRequest<Arc<App>> for Sent {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        Ok(Self { asked: Asked::from_request_parts(&mut parts, app).await?, body })
    }
}

pub(crate) async fn import(Sent { asked, body }: Sent) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    command.confirmed();
    let (reason, allow_masked) = (command.needed_reason(), command.flag("allow_masked"));
    let act = command.act("import", json!({}), Some(reason));
    let app = command.finish()?;
    let turn = turn(&app)?;
    let file =
        timeout(WHOLE, save(body, silence(&app))).await.map_err(|_| Problem::Unavailable)??;
    let again = file.try_clone().map_err(|error| no_room(&error))?;
    let checked = spawn_blocking(move || transfer::check(again)).await;
    let checked = checked.map_err(|_| Problem::Internal)?.map_err(told)?.allow_mixing(allow_masked);
    let messages = checked.messages;
    let arguments =
        json!({ "head": checked.head, "messages": messages, "allow_masked": allow_masked });
    let act = Act { arguments, ..act };
    begin(&app, act, turn, |tools, report| async move {
        tools.check_schema().await?;
        let mut file = file;
        std::io::Seek::rewind(&mut file).context("the file can't be read again")?;
        transfer::import(&tools, file, &checked, &|done| report("importing", done, messages)).await
    })
    .await
}

/// The body in a file without a name: it is gone with the process.
async fn save(body: Body, silence: Duration) -> Result<File, Problem> {
    let file = tempfile::tempfile().map_err(|error| no_room(&error))?;
    let mut file = tokio::fs::File::from_std(file);
    let (mut pieces, mut length) = (body.into_data_stream(), 0_u64);
    loop {
        let piece = timeout(silence, pieces.next()).await.map_err(|_| Problem::Unavailable)?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|_| Problem::Refused("the body broke off".into()))?;
        length += piece.len() as u64;
        if length > MOST {
            let text = format!("the file is larger than {MOST} bytes: `projector import` takes it");
            return Err(Problem::Refused(text));
        }
        file.write_all(&piece).await.map_err(|error| no_room(&error))?;
    }
    file.flush().await.map_err(|error| no_room(&error))?;
    let mut file = file.into_std().await;
    std::io::Seek::rewind(&mut file).map_err(|error| no_room(&error))?;
    Ok(file)
}

fn no_room(error: &std::io::Error) -> Problem {
    tracing::warn!(%error, "a file that was sent can't be kept");
    Problem::Unavailable
}
