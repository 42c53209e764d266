//! The text of a key: `lp_`, 256 random bits, and a checksum that tells a typing error from an unknown
//! key without asking the database.

use rand::{TryRngCore, rngs::OsRng};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

const MARK: &str = "lp_";
const SECRET_DIGITS: usize = 64;
const CHECK_DIGITS: usize = 8;
/// What may be shown of a key: enough to tell it from others, nothing of use.
const PREFIX: usize = MARK.len() + 8;

pub(super) struct NewKey {
    pub(super) text: SecretString,
    pub(super) prefix: String,
    pub(super) hash: [u8; 32],
}

pub(super) fn generate() -> anyhow::Result<NewKey> {
    let mut bits = [0_u8; 32];
    OsRng.try_fill_bytes(&mut bits)?;
    let body = format!("{MARK}{}", hex::encode(bits));
    let text = SecretString::from(format!("{body}{}", checksum(&body)));
    let prefix = body.chars().take(PREFIX).collect();
    let hash = Sha256::digest(text.expose_secret()).into();
    Ok(NewKey { text, prefix, hash })
}

/// The hash under which a key is stored; none for what can be no key.
pub(super) fn hash(text: &str) -> Option<[u8; 32]> {
    let shaped = text.is_ascii() && text.len() == MARK.len() + SECRET_DIGITS + CHECK_DIGITS;
    if !shaped || !text.starts_with(MARK) {
        return None;
    }
    let (body, check) = text.split_at(MARK.len() + SECRET_DIGITS);
    (checksum(body) == check).then(|| Sha256::digest(text).into())
}

fn checksum(body: &str) -> String {
    let digest = Sha256::digest(body);
    hex::encode(digest).chars().take(CHECK_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_and_a_typing_error_by_its_checksum() {
        let key = generate().unwrap();
        let text = key.text.expose_secret();
        assert_eq!(hash(text), Some(key.hash));
        assert!(text.starts_with(&key.prefix));
        assert_eq!(hash(&text.replace("lp_", "lq_")), None);
        assert_eq!(hash(&format!("{}0", &text[..text.len() - 1])).is_some(), text.ends_with('0'));
        for other in ["", "lp_", "lp_é", &text[1..]] {
            assert_eq!(hash(other), None, "{other}");
        }
    }
}
