//! Headers that only the holder of the key can read again: ChaCha20-Poly1305 under the digest of the
//! configured secret, with a random nonce in front.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use leadpulse_service::config::SecretRef;
use leadpulse_service::config::{Environment, Problem, Unusable};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

pub struct SealingKey(LessSafeKey);

impl SealingKey {
    /// Finds the key where the configuration says.
    pub fn resolve(
        secret: Option<&SecretRef>,
        environment: Environment<'_>,
    ) -> Result<Option<Self>, Unusable> {
        let Some(secret) = secret else { return Ok(None) };
        let unusable = |message| {
            Unusable(vec![Problem { place: "`ingest.quarantine_key`".to_owned(), message }])
        };
        let secret = secret.resolve(environment).map_err(unusable)?;
        Self::of(secret.expose_secret()).map(Some).ok_or_else(|| unusable("is unusable".to_owned()))
    }

    fn of(secret: &str) -> Option<Self> {
        let key = Sha256::digest(secret);
        UnboundKey::new(&CHACHA20_POLY1305, &key).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    pub(super) fn seal(&self, plain: &[u8]) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(unique, Aad::empty(), &mut sealed).ok()?;
        Some(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    pub(super) fn open(&self, sealed: &str) -> Option<Vec<u8>> {
        let bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = self.0.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens_what_it_sealed() {
        let (key, other) = (SealingKey::of("one").unwrap(), SealingKey::of("two").unwrap());
        let sealed = key.seal(b"Bearer x").unwrap();
        assert_eq!(key.open(&sealed).unwrap(), b"Bearer x");
        assert_ne!(sealed, key.seal(b"Bearer x").unwrap());
        assert_eq!(other.open(&sealed), None);
        let mut bytes = STANDARD.decode(&sealed).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(key.open(&STANDARD.encode(bytes)), None);
        assert_eq!(key.open("AAAA"), None);
    }
}
