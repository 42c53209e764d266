//! `cargo xtask up`: all of Leadpulse on this machine, with servers of its own and a team to look at.
//!
//! Top to bottom: what is asked for, the servers, the build, the tables, the services, the demo, and
//! then watching until something ends or somebody asks for the end.

mod banner;
mod detach;
mod logs;
mod plan;
mod services;
mod signals;
mod stack;

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    demo,
    local::{Local, State},
    programs::{self, Build},
    say::{self, Progress},
    servers::{Binaries, Choice, Postgres},
};
use banner::Running;
use plan::Plan;
use services::Services;
use signals::Signals;
use stack::Stack;

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Begin with empty data
    #[arg(long)]
    fresh: bool,
    /// Do not play the demo
    #[arg(long)]
    no_demo: bool,
    /// Run without Redis: reads are slower, never wrong
    #[arg(long)]
    no_redis: bool,
    /// Use this configuration instead of the demo's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Return when all is ready, and go on in the background until `cargo xtask down`
    #[arg(long)]
    detach: bool,
    /// Where the servers come from first: `embedded` (pinned wheels) or `system` (what is on PATH)
    #[arg(long, env = "LEADPULSE_SERVERS", default_value = "embedded")]
    servers: Choice,
    /// Build without optimisation
    #[arg(long, conflicts_with = "release")]
    debug: bool,
    #[arg(long, hide = true)]
    release: bool,
    /// Use the services' programs in this folder instead of building them
    #[arg(long, value_name = "FOLDER", hide = true)]
    programs: Option<PathBuf>,
}

pub fn main(options: Options) -> Result<ExitCode> {
    let local = Local::open()?;
    if options.detach && !detach::in_background() {
        return detach::main(&local);
    }
    let _lock = match local.lock_soon()? {
        Ok(lock) => lock,
        Err(pid) => bail!("{}", already_running(pid)),
    };
    detach::leave_terminal();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(from_start_to_end(&options, &local));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn already_running(pid: u32) -> String {
    format!(
        "another `cargo xtask up` (pid {pid}) runs in this folder; stop it with `cargo xtask down`"
    )
}

async fn from_start_to_end(options: &Options, local: &Local) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let mut stack = Stack::default();
    fs::remove_file(local.run_file()).ok();
    let mut ready = false;
    let result = tokio::select! {
        result = run(options, local, &mut stack, &mut ready) => result,
        () = signals.next() => Ok(()),
    };
    fs::remove_file(local.run_file()).ok();
    if let Err(error) = &result {
        say::error(&format!("{error:#}"));
    }
    if !stack.is_empty() {
        say::line("stopping; the data are kept (Ctrl-C again: at once)");
    }
    let stopping = tokio::task::spawn_blocking(move || stack.stop());
    tokio::select! {
        stopped = stopping => if stopped? { say::line("stopped") },
        // The helper of `servers` ends what is left.
        () = signals.next() => std::process::exit(130),
    }
    Ok(match result {
        Ok(()) if ready => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(130),
        Err(_) => ExitCode::FAILURE,
    })
}

/// Never ends well by itself: it returns when something is wrong, and is dropped at a signal.
async fn run(options: &Options, local: &Local, stack: &mut Stack, ready: &mut bool) -> Result<()> {
    let progress = Progress::start();
    let plan = Plan::read(options)?;
    if options.fresh {
        remove_data(local)?;
    }
    let mut state = local.state();
    let secret = plan.secret(&mut state)?;
    let quarantine_key = plan.quarantine_key(&mut state)?;
    let binaries = find_servers(options, progress).await?;
    progress.say(&format!("servers: {binaries}"));
    check_data(&binaries, &state)?;
    state.postgres_major = Some(binaries.postgres.version.major);
    stack.start_servers(&binaries, local).await?;
    local.keep_state(&state)?;
    progress.say("servers run");

    let programs = build(options, progress).await?;
    let services = Services::new(programs, &plan, stack, (&secret, quarantine_key), local)?;
    services.check_config().await?;
    services.migrate(local).await?;
    progress.say("tables are up to date");
    services.start(stack, local).await?;
    services.wait_ready(stack).await?;
    progress.say("ingest, projector and query-api are ready");

    let key = services.api_key(&plan.org, &mut state, local).await?;
    let feed = demo::Feed::new(services.url("ingest"), &plan.source, &secret)?;
    if plan.demo {
        let seq = alive(stack, play_history(&feed, &mut state, local, progress)).await?;
        alive(stack, services.wait_applied(&key, seq, progress)).await?;
    }
    let running = Running {
        services: &services,
        plan: &plan,
        secret: &secret,
        key: &key,
        binaries: &binaries,
    };
    running.show(stack, local).await?;
    *ready = true;
    watch(stack, plan.demo.then_some((&feed, &state)), local).await
}

fn remove_data(local: &Local) -> Result<()> {
    let data = local.data();
    Postgres::remove(&data.join("postgres"))?;
    fs::remove_dir_all(&data).with_context(|| format!("can't remove {}", data.display()))?;
    fs::create_dir_all(&data).with_context(|| format!("can't make {}", data.display()))
}

async fn find_servers(options: &Options, progress: Progress) -> Result<Binaries> {
    let (choice, with_redis) = (options.servers, !options.no_redis);
    let find = move || Binaries::get(choice, with_redis, &mut |line| progress.say(line));
    tokio::task::spawn_blocking(find).await?
}

async fn build(options: &Options, progress: Progress) -> Result<BTreeMap<String, PathBuf>> {
    if let Some(folder) = &options.programs {
        return programs::in_folder(folder);
    }
    let (what, profile) =
        if options.debug { (Build::Debug, "debug") } else { (Build::Up, "optimised") };
    progress.say(&format!("building the services ({profile}; the first time takes minutes)"));
    // A signal drops this future; cargo ends with us.
    tokio::task::spawn_blocking(move || programs::build(what)).await?
}

fn check_data(binaries: &Binaries, state: &State) -> Result<()> {
    let major = binaries.postgres.version.major;
    match state.postgres_major {
        Some(kept) if kept != major => bail!(
            "the data in .local/data were written by Postgres {kept}, and this is {major}: choose the other one with --servers, or begin anew with --fresh"
        ),
        _ => Ok(()),
    }
}

/// Plays the history that has not been played yet; gives the last sequence that ingest has told.
async fn play_history(
    feed: &demo::Feed,
    state: &mut State,
    local: &Local,
    progress: Progress,
) -> Result<u64> {
    if state.demo_played {
        progress.say("the demo's history is there already");
        return Ok(0);
    }
    // An interrupted history is played again to the same end: the stream knows what it has.
    let until = *state.demo_until.get_or_insert_with(|| chrono::Utc::now().timestamp());
    local.keep_state(state)?;
    let seq = demo::play_history(feed, until, progress).await?;
    state.demo_played = true;
    local.keep_state(state)?;
    Ok(seq)
}

/// The work's result, or the first thing that died meanwhile.
async fn alive<T>(stack: &mut Stack, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        error = stack.death() => Err(error),
    }
}

async fn watch(
    stack: &mut Stack,
    demo: Option<(&demo::Feed, &State)>,
    local: &Local,
) -> Result<()> {
    let live = async {
        match demo {
            Some((feed, state)) => demo::live(feed, state.demo_until.unwrap_or_default()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        error = stack.death() => Err(error),
        result = live => result,
        () = logs::follow(local, !detach::in_background()) => Ok(()),
    }
}
