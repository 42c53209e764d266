//! The command line: what an operator types, and what is said.

mod answer;
mod mend;
mod operate;
mod serve;
pub mod terminal;
mod text;

use std::{io, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use leadpulse_service::{
    cli::{ConfigFile, UNUSABLE, plain},
    config::{Config, Unusable},
};

use crate::{ops::Usage, rebuild, verify};
use answer::{ExplainCommand, ExportArgs, ImportArgs};
use mend::{LeadArgs, LettersCommand, ReplayArgs};
use operate::{CheckpointCommand, PauseArgs};
use terminal::Terminal;

/// Folds the stream of webhooks into the read models, and lets operators look at them, repair and explain.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten, next_help_heading = "Options of every command")]
    config: ConfigFile,
    #[command(flatten)]
    manner: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Flags {
    /// Print data as JSON, and no progress.
    #[arg(long, global = true)]
    json: bool,
    /// Do it without asking.
    #[arg(long, global = true)]
    yes: bool,
    /// Who does it, for the audit; without it, the user and the machine.
    #[arg(long = "as", value_name = "WHO", global = true)]
    who: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Project until stopped (the default). Any number may run: one is active, the others stand by.
    Serve,
    /// Bring the database's schema up to date and exit.
    Migrate,
    /// Report all that is wrong with the configuration, each with its place.
    CheckConfig,
    /// Tell how the projection is, what is wrong, and what to type. Exit 1 if something is wrong.
    #[command(after_help = operate::STATUS_HELP)]
    Status {
        /// Show it again every second.
        #[arg(long)]
        watch: bool,
    },
    /// Let the projection stand still: within a second, on every machine, also after restarts.
    Pause(PauseArgs),
    /// Let a paused projection go on.
    Resume {
        /// Why, for the audit.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Show where the projection stands, or move it by hand.
    #[command(subcommand, after_help = operate::CHECKPOINT_HELP)]
    Checkpoint(CheckpointCommand),
    /// Show who has changed what, when, why, and what came of it.
    Audit {
        /// The newest so many.
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Look at events that can't be applied; apply them again, or give them up.
    #[command(subcommand, after_help = mend::LETTERS_HELP)]
    DeadLetters(LettersCommand),
    /// Apply a part of the stream again; --dry-run tells which rows and figures that would change.
    #[command(after_help = mend::REPLAY_HELP)]
    Replay(ReplayArgs),
    /// Make one lead anew from all its events, in one transaction.
    #[command(after_help = mend::LEAD_HELP)]
    RebuildLead {
        #[command(flatten)]
        lead: LeadArgs,
        /// Only tell what would change.
        #[arg(long)]
        dry_run: bool,
        /// Why, for the audit.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Tell why: the events behind a lead's fields, the leads behind an agent's figure.
    #[command(subcommand, after_help = answer::EXPLAIN_HELP)]
    Explain(ExplainCommand),
    /// Write the stream, or a part of it, to a file.
    #[command(after_help = answer::EXPORT_HELP)]
    Export(ExportArgs),
    /// Put an exported file into the stream.
    #[command(after_help = answer::IMPORT_HELP)]
    Import(ImportArgs),
    #[command(subcommand, after_help = rebuild::command::HELP)]
    Rebuild(rebuild::command::Command),
    #[command(after_help = verify::command::HELP)]
    Verify(verify::command::Command),
}

/// Runs the binary. Exit codes: 0 done, 1 failed or something is wrong, 2 bad configuration or usage.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    match Box::pin(obey(cli)).await {
        Ok(code) => code,
        // Whoever reads the answer has read enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", plain(&format!("{error:#}")));
            let unusable = error.is::<Unusable>() || error.is::<Usage>();
            if unusable { ExitCode::from(UNUSABLE) } else { ExitCode::FAILURE }
        }
    }
}

async fn obey(cli: Cli) -> Result<ExitCode> {
    let config = Config::load(&cli.config.path)?;
    let Flags { json, yes, who } = cli.manner;
    let who = who.unwrap_or_else(terminal::who);
    let terminal = Terminal { json, yes };
    let command = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => return serve::serve(config, cli.config.path).await.map(done),
        Command::Migrate => return serve::migrate(&config).await.map(done),
        Command::CheckConfig => return Ok(serve::report_good(&config)),
        command => command,
    };
    let operator = operate::Operator::open(config, terminal, who).await?;
    match command {
        Command::Status { watch } => return operator.status(watch).await,
        Command::Rebuild(command) => operator.rebuild(command).await?,
        Command::Verify(command) => return operator.verify(command).await,
        Command::Pause(args) => operator.pause(args).await?,
        Command::Resume { reason } => operator.resume(reason).await?,
        Command::Checkpoint(command) => operator.checkpoint(command).await?,
        Command::Audit { limit } => operator.audit(limit).await?,
        Command::Explain(command) => operator.explain(command).await?,
        Command::Export(args) => operator.export(args).await?,
        Command::Import(args) => operator.import(args).await?,
        Command::DeadLetters(command) => operator.dead_letters(command).await?,
        Command::Replay(args) => operator.replay(args).await?,
        Command::RebuildLead { lead, dry_run, reason } => {
            operator.rebuild_lead(&lead, dry_run, reason).await?;
        }
        Command::Serve | Command::Migrate | Command::CheckConfig => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

const EXAMPLES: &str = "\
Examples:
  projector                          project, with ./leadpulse.toml
  projector status                   how is it, what is wrong, what shall I type?
  projector status --json | jq .lag
  projector pause --reason 'moving Postgres'
  projector resume
  projector dead-letters list        what can't be applied, and why?
  projector replay --board 9001 --dry-run
  projector rebuild-lead 9001 42
  projector explain lead 9001 42     which events made it so?
  projector explain agent 7001 --window 30d --metric conversion_rate
  projector verify                   do the tables say what the stream says?
  projector rebuild plan             what would the mapping of today change?
  projector export --since 30d --output month.ndjson.zst
  projector audit                    who has changed what

Data goes to stdout and everything else to stderr. What changes something shows its plan and asks; --yes
answers for scripts. Every change leaves an audit row with --as and --reason.

Exit codes: 0 done, 1 failed or something is wrong, 2 bad configuration or usage.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn visit(command: &clap::Command, path: &str, seen: &mut impl FnMut(&clap::Command, &str)) {
        seen(command, path);
        for command in command.get_subcommands() {
            visit(command, &format!("{path} {}", command.get_name()), seen);
        }
    }

    #[test]
    fn every_command_and_every_option_is_explained() {
        visit(&Cli::command(), "projector", &mut |command, path| {
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
        });
    }

    /// Words as a shell takes them, up to a comment, a pipe or the end.
    fn words(line: &str) -> Vec<String> {
        let end = line.find(" | ").or_else(|| line.find("   ")).unwrap_or(line.len());
        let mut words = vec![String::new()];
        let mut quoted = false;
        for letter in line[..end].chars() {
            match letter {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                letter => words.last_mut().unwrap().push(letter),
            }
        }
        words
    }

    #[test]
    fn every_example_is_one_that_can_be_typed() {
        let mut examples = 0;
        visit(&Cli::command(), "projector", &mut |command, path| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                let Some(typed) = line.find("projector").map(|at| words(&line[at..])) else {
                    continue;
                };
                examples += 1;
                if let Err(error) = Cli::try_parse_from(&typed) {
                    panic!("{path}: {typed:?}: {error}");
                }
            }
        });
        assert!(examples > 30, "{examples}");
    }
}
