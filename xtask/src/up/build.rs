//! The services' programs.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    local::Local,
    say::Progress,
    servers::{Ending, Process},
};

pub(crate) const SERVICES: [&str; 3] = ["ingest", "projector", "query-api"];

pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    command
}

/// Builds the three services; gives the path of each.
pub(super) async fn all(
    debug: bool,
    local: &Local,
    progress: Progress,
) -> Result<BTreeMap<String, PathBuf>> {
    let profile = if debug { "debug" } else { "release" };
    progress.say(&format!("building the services ({profile}; minutes at the first time)"));
    let messages = local.logs().join("build.json");
    let mut command = cargo();
    command.arg("build");
    if !debug {
        command.arg("--release");
    }
    for service in SERVICES {
        command.args(["-p", service]);
    }
    // Diagnostics go to the terminal, what was built goes into the file.
    command.args(["--bins", "--message-format=json-render-diagnostics"]);
    command.stdout(File::create(&messages)?);
    let mut process = Process::start_as_is("cargo build", command, Ending::default())?;
    if !end_of(&mut process).await {
        bail!("the services do not build; see above");
    }
    let programs = built(&fs::read_to_string(&messages)?);
    match SERVICES.iter().find(|service| !programs.contains_key(**service)) {
        Some(missing) => bail!("cargo has built no program `{missing}`"),
        None => Ok(programs),
    }
}

/// Waits for the end of a process; true if it ended well.
pub(super) async fn end_of(process: &mut Process) -> bool {
    loop {
        if let Some(status) = process.ended() {
            return status.success();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn built(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let name = message.get("target")?.get("name")?.as_str()?;
            let path = message.get("executable")?.as_str()?;
            Some((name.to_owned(), PathBuf::from(path)))
        })
        .collect()
}

/// Builds the three services without optimisation, for the tests; blocking.
pub(crate) fn for_tests() -> Result<bool> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--bins"]);
    for service in SERVICES {
        command.args(["-p", service]);
    }
    Ok(command.status().context("cargo does not run")?.success())
}
