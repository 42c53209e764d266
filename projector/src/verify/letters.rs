//! Dead letters of the present stream: each is one of its messages, and whoever waits behind one waits there, too.

use anyhow::Result;
use async_nats::jetstream::stream::RawMessageErrorKind;
use sqlx::{PgConnection, Row};

use super::{Difference, Ground, Verdict};
use crate::{
    reader::ReadError,
    refold::Pass,
    store::{PROJECTION, this_stream},
};

/// Letters whose message is fetched and compared.
const FETCHED: i64 = 1000;

/// A message that nobody can read must wait for an operator.
pub(super) fn unreadable(pass: &Pass, verdict: &mut Verdict) {
    for message in &pass.unreadable {
        verdict.note(Difference::whole(
            "dead letter",
            message.seq.to_string(),
            message.reason.clone(),
        ));
    }
}

pub(super) async fn compare(
    ground: &Ground<'_>,
    snapshot: &mut PgConnection,
    verdict: &mut Verdict,
) -> Result<()> {
    let rows = sqlx::query(concat!(
        "select seq, coalesce(org_id, ''), payload from dead_letter
         where projection = $1 and resolved_at is null and ($2::text is null or org_id = $2) and ",
        this_stream!(),
        "
         order by seq limit $3"
    ))
    .bind(PROJECTION)
    .bind(ground.scope.org.as_deref())
    .bind(FETCHED)
    .fetch_all(snapshot)
    .await?;
    for row in rows {
        let seq: i64 = row.try_get(0)?;
        let payload: Vec<u8> = row.try_get(2)?;
        let message = ground.stream.get_raw_message(u64::try_from(seq)?).await;
        verdict.letters += 1;
        let said = match message {
            Ok(message) if message.payload == payload => continue,
            Ok(_) => "another message",
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => "no message",
            Err(error) => return Err(ReadError::Nats(error.to_string()).into()),
        };
        verdict.note(Difference {
            org_id: row.try_get(1)?,
            field: "payload",
            table: Some(format!("{} bytes", payload.len())),
            ..Difference::whole("dead letter", seq.to_string(), said.to_owned())
        });
    }
    Ok(())
}
