//! Schemathesis, which the tests let loose on query-api: from PyPI, pinned, in a folder of its own.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

pub const VERSION: &str = "4.32.5";

/// The program; none where it is not there and can't be fetched.
pub fn get() -> Option<PathBuf> {
    let home = crate::root().join(".local").join(format!("schemathesis-{VERSION}"));
    let run = |program: PathBuf, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let program = home.join("bin/schemathesis");
    // One that was moved along with its workspace is there and does not run.
    if !run(program.clone(), &["--version"]) {
        std::fs::remove_dir_all(&home).ok();
        let wanted = format!("schemathesis=={VERSION}");
        let install = ["install", "--quiet", "--disable-pip-version-check", &wanted];
        let made = run("python3".into(), &["-m", "venv", &home.display().to_string()])
            && run(home.join("bin/pip"), &install);
        if !made {
            std::fs::remove_dir_all(&home).ok();
            return None;
        }
    }
    Some(program)
}
