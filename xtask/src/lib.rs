//! What `cargo xtask` is made of. The tests use [`servers`], [`schemathesis`] and [`demo`] too.

pub mod bench;
pub mod check;
pub mod demo;
pub mod down;
pub mod local;
pub mod programs;
pub mod say;
pub mod schemathesis;
pub mod servers;
pub mod up;

use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
