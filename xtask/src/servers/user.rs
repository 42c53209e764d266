//! Postgres refuses to run as root. Where we are root, it runs as another user, and everything that it
//! has to reach must lie where that user may go.

use std::{
    fs,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

/// The user that a server must be switched to; none where we are not root.
pub(super) fn other_than_root() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| users.lines().find_map(|line| parse(line, name)))
        .map(Some)
        .context("Postgres does not run as root, and there is no user `postgres` or `nobody` to run it as: use another user than root")
}

fn parse(line: &str, name: &str) -> Option<User> {
    let mut fields = line.split(':');
    if fields.next()? != name {
        return None;
    }
    let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid != 0)?;
    Some(User { uid, gid: fields.next()?.parse().ok()? })
}

impl User {
    pub(super) fn runs(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    pub(super) fn owns(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("can't give {} to user {}", path.display(), self.uid))
    }

    /// May this user pass through the folder and all that it lies in?
    fn reaches(folder: &Path) -> bool {
        folder.canonicalize().is_ok_and(|path| {
            path.ancestors()
                .all(|ancestor| fs::metadata(ancestor).is_ok_and(|found| found.mode() & 0o001 != 0))
        })
    }
}

/// `folder`, or, where the other user can't reach it (a clone in `/root`), a folder in `/var/tmp` in its stead.
pub(super) fn reachable(folder: &Path) -> Result<PathBuf> {
    if User::reaches(folder) {
        return Ok(folder.to_owned());
    }
    let digest = hex(&Sha256::digest(folder.canonicalize()?.as_os_str().as_encoded_bytes())[..6]);
    let stead = Path::new("/var/tmp").join(format!("leadpulse-{digest}"));
    if let Err(error) = fs::DirBuilder::new().mode(0o755).create(&stead) {
        // Somebody else may have made it, to read or change what we put there.
        let found = fs::symlink_metadata(&stead)
            .with_context(|| format!("can't make {}: {error}", stead.display()))?;
        if !found.is_dir() || found.uid() != 0 || found.mode() & 0o022 != 0 {
            bail!("{} is not ours; remove it and try again", stead.display());
        }
    }
    fs::set_permissions(&stead, fs::Permissions::from_mode(0o755))?;
    Ok(stead)
}

/// The same for a program's installation: a copy, made once. `parts` of `home` are what it needs.
pub(super) fn reachable_copy(home: &Path, parts: &[&str]) -> Result<PathBuf> {
    if User::reaches(home) {
        return Ok(home.to_owned());
    }
    let copy = reachable(home)?;
    let lock = fs::File::create(copy.join(".lock"))?;
    lock.lock().context("can't lock the copy of the servers")?;
    let done = copy.join(".complete");
    if !done.exists() {
        for part in parts {
            let to = copy.join(part);
            fs::create_dir_all(to.parent().unwrap_or(&copy))?;
            let copied = Command::new("cp").arg("-RT").arg(home.join(part)).arg(&to).status()?;
            if !copied.success() {
                bail!("can't copy {} to {}", home.display(), copy.display());
            }
        }
        fs::write(done, "")?;
    }
    Ok(copy)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name_and_is_never_root() {
        let user = parse("nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin", "nobody");
        assert_eq!(user.map(|user| (user.uid, user.gid)), Some((65534, 65533)));
        assert!(parse("nobody2:x:1:1::/:/bin/sh", "nobody").is_none());
        assert!(parse("postgres:x:0:0::/:/bin/sh", "postgres").is_none());
    }

    #[test]
    fn a_closed_parent_is_seen() {
        let scratch = crate::servers::Scratch::new("reach").unwrap();
        let folder = scratch.path().join("closed/inner");
        fs::create_dir_all(&folder).unwrap();
        assert!(User::reaches(&folder));
        fs::set_permissions(folder.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!User::reaches(&folder));
    }
}
