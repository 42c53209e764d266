//! Where the binaries under test are.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};

/// In `LEADPULSE_TEST_BIN_DIR`, else in the folder that cargo puts binaries into: above the one of this
/// test's executable.
pub(super) fn path(name: &str) -> Result<PathBuf> {
    let folder = match env::var_os("LEADPULSE_TEST_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let executable = env::current_exe()?;
            let deps = executable.parent().context("the test lies in no folder")?;
            deps.parent().context("the test's folder lies in none")?.to_owned()
        }
    };
    let program = folder.join(name);
    let shown = program.display();
    ensure!(
        program.is_file(),
        "{shown} is not built; `cargo build --workspace --bins` builds it, and so does `cargo xtask test`"
    );
    Ok(program)
}
