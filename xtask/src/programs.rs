//! The services' programs, built by cargo.

use std::{
    collections::BTreeMap,
    env,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail, ensure};

use crate::servers::{Ending, Process};

/// The three services, in the order of the flow.
pub const SERVICES: [&str; 3] = ["ingest", "projector", "query-api"];

/// The cargo that runs us, in the folder of the workspace. What it tells us of our own package stays here:
/// build scripts look at it, and a `cargo check` between two runs would build half of everything anew.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    for (name, _) in env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// What to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Optimised, for `cargo xtask up`: the profile of that name.
    Up,
    Debug,
    /// Debug, and all tests with them: one set of features, so that nothing is built twice.
    WithTests,
}

/// Builds the services; gives the path of each.
pub fn build(what: Build) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo();
    command.arg("build");
    let services = SERVICES.map(|service| ["-p", service]);
    match what {
        Build::WithTests => command.args(["--workspace", "--tests"]),
        Build::Debug => command.args(services.as_flattened()),
        Build::Up => command.args(["--profile", "up"]).args(services.as_flattened()),
    };
    // Diagnostics go to the terminal, what was built comes to us.
    let (mut reader, writer) = io::pipe()?;
    command.args(["--bins", "--message-format=json-render-diagnostics"]).stdout(writer);
    let mut process = Process::start_as_is("cargo build", command, Ending::default())?;
    let mut messages = String::new();
    reader.read_to_string(&mut messages)?;
    if !process.wait() {
        bail!("the services do not build; see above");
    }
    let programs = built(&messages);
    match SERVICES.iter().find(|service| !programs.contains_key(**service)) {
        Some(missing) => bail!("cargo has built no program `{missing}`"),
        None => Ok(programs),
    }
}

/// Those that are in this folder already.
pub fn in_folder(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let path = |service: &str| {
        let program = folder.join(service);
        ensure!(program.is_file(), "there is no {}", program.display());
        Ok((service.to_owned(), program))
    };
    SERVICES.into_iter().map(path).collect()
}

fn built(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            if message.get("profile")?.get("test")?.as_bool()? {
                return None;
            }
            let name = message.get("target")?.get("name")?.as_str()?;
            let path = message.get("executable")?.as_str()?;
            Some((name.to_owned(), PathBuf::from(path)))
        })
        .collect()
}
