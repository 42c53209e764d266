//! The commands that explain, and those that carry the stream elsewhere.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use leadpulse_nats::instant;
use leadpulse_service::config::{SecretRef, process_environment};
use serde_json::json;
use tempfile::NamedTempFile;

use super::{mend::LeadArgs, operate::Operator, terminal::Progress, text};
use crate::{
    ops::{
        Usage, explain,
        transfer::{self, Mask, Part},
    },
    reader::range::{Edge, Select},
};

#[derive(Debug, Subcommand)]
pub(super) enum ExplainCommand {
    /// The events behind each field of a lead.
    ///
    /// Exit 1 if the row is not what its events make it.
    Lead(LeadArgs),
    /// The leads behind a figure of an agent.
    Agent {
        /// The agent: a monday.com user.
        agent: i64,
        /// One of the org's windows, such as 30d.
        #[arg(long, value_parser = window, default_value = "30d")]
        window: u32,
        /// Such as conversion_rate, median_response_seconds, deals_amount_sum.
        #[arg(long)]
        metric: String,
        /// The org, where the configuration has several.
        #[arg(long)]
        org: Option<String>,
    },
}

pub(super) const EXPLAIN_HELP: &str = "\
Examples:
  projector explain lead 9001 42
  projector explain agent 7001 --window 30d --metric conversion_rate
  projector explain agent 7001 --metric median_response_seconds --json | jq .leads";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Ndjson,
}

pub(super) const EXPORT_HELP: &str = "\
Examples:
  projector export --output all.ndjson.zst
  projector export --since 30d --org demo --output month.ndjson.zst
  MASK_KEY=… projector export --mask env:MASK_KEY --output laptop.ndjson.zst
A file ends with its number of messages and their digest; `import` refuses one that broke off. It has its name
when it is whole; until then it stands beside it and ends in `.part`.";

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// From this instant on, such as 2026-03-02T10:00:00Z, or an age such as 2h, 30d. Without: from the start.
    #[arg(long, value_name = "TIME", value_parser = instant::parse_or_age)]
    since: Option<DateTime<Utc>>,
    /// Before this instant, or an age.
    #[arg(long, value_name = "TIME", value_parser = instant::parse_or_age)]
    until: Option<DateTime<Utc>>,
    /// Of this org.
    #[arg(long)]
    org: Option<String>,
    /// Of this board.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    board: Option<i64>,
    /// One message a line.
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// Where to; without it, stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not compress.
    #[arg(long)]
    plain: bool,
    /// Replace names, texts and e-mail addresses by pseudonyms under the key in `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "KEY", value_parser = SecretRef::parse)]
    mask: Option<SecretRef>,
}

pub(super) const IMPORT_HELP: &str = "\
The messages keep their ids: what the stream has is left out, so an import may be done again. The file is read
to its end before anything is published; one that is broken or not whole is refused.
A masked file goes into an instance of its own: beside events of its orgs that are not masked it is refused.
  projector import all.ndjson.zst --reason 'new NATS cluster'";

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A file of `projector export`, compressed or not.
    file: PathBuf,
    /// Import a masked file although the stream has events of its orgs that are not masked.
    #[arg(long)]
    allow_masked: bool,
    /// Why, for the audit.
    #[arg(long)]
    reason: Option<String>,
}

fn window(text: &str) -> Result<u32, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
    days.ok_or_else(|| "a number of days such as 30d".to_owned())
}

/// A file that has its name when it is whole: until then it stands beside it under another one, and goes
/// away if something fails.
struct Unfinished<'a> {
    part: NamedTempFile,
    path: &'a Path,
}

impl<'a> Unfinished<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        let no = || format!("{} can't be created", path.display());
        if path.symlink_metadata().is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists)).with_context(no);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = path.file_name().unwrap_or_default().to_os_string();
        let part = tempfile::Builder::new()
            .prefix(&name)
            .suffix(".part")
            // As any new file; the umask takes away what it takes.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .with_context(no)?;
        Ok(Self { part, path })
    }

    fn finish(self) -> Result<()> {
        self.part.as_file().sync_all()?;
        let named = self.part.persist_noclobber(self.path);
        named.with_context(|| format!("{} can't be created", self.path.display()))?;
        Ok(())
    }
}

/// Writes an export to its end.
async fn carry(
    export: &mut transfer::Export,
    out: &mut impl Write,
    progress: &Progress,
) -> Result<()> {
    while let Some(piece) = export.next().await? {
        out.write_all(&piece)?;
        let (done, total) = export.progress();
        progress.at(done, total);
    }
    Ok(())
}

impl Operator {
    pub(super) async fn explain(&self, command: ExplainCommand) -> Result<()> {
        self.tools.check_schema().await?;
        match command {
            ExplainCommand::Lead(lead) => {
                let key = lead.key(&self.tools)?;
                let Some(explained) = explain::lead(&self.tools, &key).await? else {
                    bail!("the stream has no event that makes this lead");
                };
                self.terminal.show(&explained, text::explained_lead)?;
                if !explained.agrees {
                    bail!(
                        "the row is not what its events make it: `projector rebuild-lead {} {}` mends it",
                        key.board_id,
                        key.item_id
                    );
                }
                Ok(())
            }
            ExplainCommand::Agent { agent, window, metric, org } => {
                let org = match (org, self.tools.config.orgs.as_slice()) {
                    (Some(org), _) => org,
                    (None, [only]) => only.id.clone(),
                    (None, _) => {
                        bail!(Usage("the configuration has several orgs: --org says which".into()))
                    }
                };
                let explained = explain::agent(&self.tools, &org, agent, window, &metric).await?;
                let Some(explained) = explained else {
                    bail!(
                        "{agent} is no agent of {org}: no lead is assigned to it or was won by it"
                    );
                };
                self.terminal.show(&explained, text::explained_agent)
            }
        }
    }

    pub(super) async fn export(&self, args: ExportArgs) -> Result<()> {
        let Format::Ndjson = args.format;
        let mask = match &args.mask {
            Some(reference) => {
                let key = reference
                    .resolve(&process_environment)
                    .map_err(|error| Usage(format!("--mask: {error}")))?;
                Some(Mask::new(key, &self.tools.config)?)
            }
            None => None,
        };
        let part = Part {
            since: args.since.map(Edge::Time),
            until: args.until.map(Edge::Time),
            select: Select { org: args.org, board: args.board, ..Select::default() },
        };
        let file = args.output.as_deref().map(Unfinished::create).transpose()?;
        let mut out: Box<dyn Write> = match &file {
            Some(file) => Box::new(file.part.as_file()),
            None => Box::new(std::io::stdout().lock()),
        };
        let progress = self.terminal.progress("exporting", "messages");
        let mut export = transfer::Export::open(&self.tools, &part, mask, !args.plain).await?;
        carry(&mut export, &mut out, &progress).await?;
        let report = export.report();
        out.flush()?;
        drop((out, progress));
        let Some(file) = file else {
            eprintln!("{}", text::exported(report));
            return Ok(());
        };
        file.finish()?;
        self.terminal.show(report, text::exported)
    }

    pub(super) async fn import(&self, args: ImportArgs) -> Result<()> {
        self.tools.check_schema().await?;
        let open = || {
            File::open(&args.file)
                .with_context(|| format!("{} can't be opened", args.file.display()))
        };
        let checked = transfer::check(open()?)?.allow_mixing(args.allow_masked);
        let (head, messages) = (&checked.head, checked.messages);
        let masked = if head.masked { ", masked" } else { "" };
        self.terminal.confirm(&format!(
            "{messages} messages of {} ({} to {}{masked}) are published into the stream where it does not have them.",
            head.stream, head.from_seq, head.to_seq
        ))?;
        let progress = self.terminal.progress("importing", "messages");
        let watch = |done| progress.at(done, messages);
        let file = args.file.display().to_string();
        let arguments = json!({ "file": file, "head": head, "allow_masked": args.allow_masked });
        let act = self.act("import", arguments, args.reason.clone());
        let work = Box::pin(transfer::import(&self.tools, open()?, &checked, &watch));
        let report = self.audited(&act, work).await?;
        drop(progress);
        self.terminal.show(&report, text::imported)
    }
}
