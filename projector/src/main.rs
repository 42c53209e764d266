//! `projector`: stream → read models, and the operators' tool.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    projector::cli::run().await
}
