//! Cursors: where a list goes on, signed, and good only for the filters that they were made for.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use subtle::ConstantTimeEq;
use tokio::sync::OnceCell;

use crate::problem::Problem;

const VERSION: u8 = 1;
const TAG: usize = 16;

/// A position in a list: the order's value and the ids that break ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position(pub(crate) [i64; 3]);

/// The key that all instances share. It is read when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Signer {
    secret: OnceCell<Vec<u8>>,
}

/// What a cursor is bound to: the org and the filters, order included.
pub(crate) fn binding(org: &str, filters: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(org);
    hash.update([0]);
    hash.update(filters);
    hash.finalize().into()
}

/// Cuts what was read beyond a page, which is one row if there is one: then the page's last row is given, after
/// which the next one begins.
pub(crate) fn cut<T>(rows: &mut Vec<T>, page: impl TryInto<usize>) -> Option<&T> {
    let page = page.try_into().unwrap_or(usize::MAX);
    let more = rows.len() > page;
    rows.truncate(page);
    rows.last().filter(|_| more)
}

impl Signer {
    pub(crate) async fn write(
        &self,
        pool: &PgPool,
        binding: &[u8; 32],
        position: Position,
    ) -> Result<String, Problem> {
        let mut bytes = vec![VERSION];
        bytes.extend(position.0.iter().flat_map(|value| value.to_be_bytes()));
        let tag = self.tag(pool, binding, &bytes).await?;
        bytes.extend(tag);
        Ok(BASE64.encode(bytes))
    }

    pub(crate) async fn read(
        &self,
        pool: &PgPool,
        binding: &[u8; 32],
        text: &str,
    ) -> Result<Position, Problem> {
        let invalid = || Problem::invalid("cursor", "is not one of this list with these filters");
        let bytes = BASE64.decode(text).map_err(|_| invalid())?;
        let (head, tag) = bytes.split_last_chunk::<TAG>().ok_or_else(invalid)?;
        let known = self.tag(pool, binding, head).await?;
        let [VERSION, rest @ ..] = head else { return Err(invalid()) };
        if !bool::from(known.ct_eq(tag)) || rest.len() != 24 {
            return Err(invalid());
        }
        let mut values = [0; 3];
        for (value, bytes) in values.iter_mut().zip(rest.as_chunks::<8>().0) {
            *value = i64::from_be_bytes(*bytes);
        }
        Ok(Position(values))
    }

    /// What tells this installation from every other one.
    pub(crate) async fn instance(&self, pool: &PgPool) -> Result<[u8; 16], Problem> {
        self.tag(pool, &[0; 32], b"instance").await
    }

    async fn tag(
        &self,
        pool: &PgPool,
        binding: &[u8; 32],
        bytes: &[u8],
    ) -> Result<[u8; TAG], Problem> {
        let secret = self.secret.get_or_try_init(|| async {
            sqlx::query_scalar::<_, Vec<u8>>(
                "select secret from instance_secret where name = 'cursor'",
            )
            .fetch_one(pool)
            .await
        });
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.await?)
            .map_err(|_| Problem::Internal)?
            .chain_update(binding);
        mac.update(bytes);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&full[..TAG]);
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cursor_is_good_for_its_filters_only_and_can_not_be_forged() {
        let pool = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
        let signer = Signer { secret: OnceCell::new_with(Some(vec![7; 32])) };
        let (mine, other) = (binding("a", "state=won"), binding("b", "state=won"));
        let position = Position([i64::MIN, 9001, -42]);
        let text = signer.write(&pool, &mine, position).await.unwrap();
        assert_eq!(signer.read(&pool, &mine, &text).await.unwrap(), position);
        assert!(signer.read(&pool, &other, &text).await.is_err());
        for place in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            // The last digit's spare bits must be zero: the decoder refuses others.
            assert!(signer.read(&pool, &mine, &forged).await.is_err(), "{place}");
        }
        assert!(signer.read(&pool, &mine, "").await.is_err());
    }
}
