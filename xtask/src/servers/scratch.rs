//! A folder for one test's servers, which goes away with its handle.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::port;

#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new folder under the system's folder for temporary files. Others may pass through it but not
    /// look into it: as root, Postgres runs as another user and has to get to its data.
    pub fn new(purpose: &str) -> Result<Self> {
        let name = format!("leadpulse-{purpose}-{}-{:08x}", std::process::id(), port::random());
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .with_context(|| format!("can't make {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
