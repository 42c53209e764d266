//! `cargo xtask`: the developer's commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, check, down, up};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer's commands", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all of Leadpulse on this machine, with its servers and a demo
    Up(up::Options),
    /// Stop what `up` runs in this folder
    Down,
    /// Run all checks and tests
    Test(check::Options),
    /// Measure, each figure beside the limit that it is a share of
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Up(options) => up::main(options),
        Command::Down => down::main(),
        Command::Test(options) => check::main(&options),
        Command::Bench(options) => bench::main(&options),
    };
    xtask::servers::finish();
    result.unwrap_or_else(|error| {
        xtask::say::error(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}
