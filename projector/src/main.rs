//! `projector`: stream → read models, and the operators' tool.

use std::process::ExitCode;

/// A fold is small strings that come and go on all threads: docs/benchmarks.md has the share.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    projector::cli::run().await
}
