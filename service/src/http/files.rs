//! The process's bound on open files, of which each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Files that a service has open beside its connections.
const OTHERS: u64 = 256;

/// Makes room for so many connections: the soft limit of many systems is 1,024, and beyond it nobody is
/// let in any more.
pub(super) fn make_room_for(connections: usize) {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let most = maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum });
    if raised.is_err() || most < needed {
        let allowed = getrlimit(Resource::Nofile).current;
        warn!(allowed, needed, "fewer open files are allowed than connections: raise `ulimit -n`");
    }
}
