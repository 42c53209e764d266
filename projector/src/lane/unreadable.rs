//! Dead letters that were no envelope when they came: read once more when an operator asks for it, by a
//! projector that may know more.

use sqlx::PgPool;

use crate::{
    event::{self, Meaning},
    mapping::Mapping,
    reader::envelope_of,
    store::{self, Unread},
};

/// What can be read now becomes a letter of its lead, which the lane applies, or is done at once.
pub async fn read_again(pool: &PgPool, mapping: &Mapping) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    for Unread { seq, payload } in store::unread_requested(&mut connection).await? {
        let envelope = match envelope_of(&payload) {
            Ok(envelope) => envelope,
            Err(reason) => {
                store::settle_unread(&mut connection, seq, Some(&reason)).await?;
                continue;
            }
        };
        match event::decode(&envelope, seq.unsigned_abs(), None, mapping) {
            Meaning::Lead(_) => store::name_unread(&mut connection, seq, &envelope).await?,
            Meaning::User(user) => {
                store::upsert_users(&mut connection, &[user]).await?;
                store::settle_unread(&mut connection, seq, None).await?;
            }
            Meaning::Nothing(_) => store::settle_unread(&mut connection, seq, None).await?,
        }
    }
    Ok(())
}
