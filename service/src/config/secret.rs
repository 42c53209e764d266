//! Secrets stand in the environment or in files; the configuration says where.

use std::{fmt, fs, path::PathBuf};

use secrecy::SecretString;

use super::document::Environment;

/// Where a secret is to be found: `env:NAME` or `file:PATH`.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    Env(String),
    File(PathBuf),
}

impl SecretRef {
    /// Reads where it is to be found.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            // The text itself is not repeated: it may be the secret that somebody pasted here.
            _ => {
                Err("must be `env:NAME` or `file:PATH`; a secret does not stand in this file"
                    .into())
            }
        }
    }

    /// The secret itself, without the white space around it that editors leave in files.
    pub fn resolve(&self, environment: Environment<'_>) -> Result<SecretString, String> {
        let text = match self {
            Self::Env(name) => environment(name)
                .ok_or_else(|| format!("the environment variable {name} is not set"))?,
            Self::File(path) => fs::read_to_string(path)
                .map_err(|error| format!("the file {} can't be read: {error}", path.display()))?,
        };
        match text.trim() {
            "" => Err(format!("{self:?} is empty")),
            secret => Ok(SecretString::from(secret.to_owned())),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}
