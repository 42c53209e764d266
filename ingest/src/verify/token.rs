//! An unguessable last segment of the URL: all that a webhook of a personal token has.

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{Keyed, Rejected, Secret};

/// Characters of a token: it is all that stands between a stranger and the stream.
pub(super) const SHORTEST: usize = 16;

#[derive(Debug)]
pub(crate) struct PathToken {
    /// Digests have one length, so comparing them tells nothing about the token's.
    digests: Vec<Keyed<[u8; 32]>>,
}

impl PathToken {
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let digests =
            secrets.iter().map(|secret| Keyed::new(secret, digest(secret.secret.expose_secret())));
        Self { digests: digests.collect() }
    }

    pub(super) fn check(
        &self,
        token_digest: Option<&[u8; 32]>,
        now: DateTime<Utc>,
    ) -> Result<(), Rejected> {
        let given = token_digest.ok_or(Rejected::Missing)?;
        let mut known = Choice::from(0);
        for secret in self.digests.iter().filter(|secret| secret.holds_at(now)) {
            known |= secret.key.ct_eq(given);
        }
        bool::from(known).then_some(()).ok_or(Rejected::Signature)
    }

    /// Also of tokens that have ended.
    pub(super) fn knows(&self, digest: &[u8; 32]) -> bool {
        self.digests.iter().any(|secret| bool::from(secret.key.ct_eq(digest)))
    }
}

pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn secret(text: &str, until: Option<&str>) -> Secret {
        let until = until.map(|at| leadpulse_nats::instant::parse(at).unwrap());
        Secret { label: "x".into(), secret: SecretString::from(text.to_owned()), until }
    }

    #[test]
    fn only_a_current_token_is_known() {
        let verifier = PathToken::new(&[
            secret("old-token", Some("2026-03-01T00:00:00Z")),
            secret("new-token", None),
        ]);
        let at = |text| leadpulse_nats::instant::parse(text).unwrap();
        let check = |token: &str, now| verifier.check(Some(&digest(token)), at(now));
        let (before, after) = ("2026-02-28T23:59:59Z", "2026-03-01T00:00:01Z");
        assert_eq!(check("old-token", before), Ok(()));
        assert_eq!(check("new-token", before), Ok(()));
        assert_eq!(check("old-token", after), Err(Rejected::Signature));
        assert_eq!(check("new-token", after), Ok(()));
        for wrong in ["", "new-toke", "new-token ", "new-tokeN"] {
            assert_eq!(check(wrong, after), Err(Rejected::Signature), "{wrong}");
        }
        assert_eq!(verifier.check(None, at(after)), Err(Rejected::Missing));
    }
}
