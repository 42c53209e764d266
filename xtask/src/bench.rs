//! `cargo xtask bench`: builds what is measured in release mode, and hands over to the benchmarks.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use clap::Args;

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What to measure and how: `projector --help` tells
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

pub fn main(options: &Options) -> Result<ExitCode> {
    // Two builds: the benchmarks' own crates have test features that must not be in what is measured.
    cargo(&[
        "build",
        "--release",
        "--package",
        "ingest",
        "--package",
        "projector",
        "--package",
        "query-api",
    ])?;
    let mut arguments = vec!["run", "--release", "--package", "tests", "--bin", "bench"];
    arguments.extend(["--target-dir", "target/bench", "--"]);
    arguments.extend(options.arguments.iter().map(String::as_str));
    cargo(&arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(arguments).current_dir(crate::root()).status()?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}
