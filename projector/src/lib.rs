//! The projector: stream → read models. The way of an event through the files:
//! `reader` (stream) → `event` (decode with the mapping) → `fold` (pure) → `lane` (batch, transaction)
//! → `store` (SQL); what a lane touched goes on to `agents` (AgentMetrics) and `version` (cache keys).

/// A step at which the crash tests end the process (`--features failpoints`); nothing otherwise.
macro_rules! crash_point {
    ($name:literal) => {
        fail::fail_point!($name, |_| std::process::abort())
    };
}

/// Whether a test wants what comes here to be lost.
macro_rules! lost {
    ($name:literal) => {{
        #[cfg(feature = "failpoints")]
        let lost = fail::eval($name, |_| ()).is_some();
        #[cfg(not(feature = "failpoints"))]
        let lost = false;
        lost
    }};
}

pub mod agents;
mod aside;
pub mod cli;
pub mod event;
pub mod fold;
pub mod lane;
pub mod lease;
pub mod mapping;
pub mod ops;
pub mod reader;
pub mod rebuild;
pub mod refold;
pub mod run;
pub mod store;
pub mod verify;
pub mod version;
pub mod watch;
