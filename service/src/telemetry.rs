//! Logs and metrics. Never logged: the `Authorization` header and what is in it, tokens, secrets,
//! URLs with passwords, names and e-mails of leads and users, bodies of webhooks.

use std::time::Duration;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// Below this level async-nats writes the servers' addresses as they were given, passwords included.
const NATS_ADDRESSES: &str = "async_nats::connector=info";

const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// From 100 µs to 10 s: a cache hit and a catch-up commit fit in one picture.
const SECONDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
const COUNTS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// Logs go to stderr: stdout is for data.
pub fn init(log: &Log) -> Result<()> {
    let filter = EnvFilter::try_new(&log.level).context("the log level is no filter")?;
    let filter = filter.add_directive(NATS_ADDRESSES.parse()?);
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Json => {
            registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()?
        }
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr)).try_init()?,
    }
    Ok(())
}

/// Installs the metrics of this process; histograms whose name ends in `_seconds` or `_size` have buckets.
pub fn metrics() -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".into()), COUNTS)?
        .install_recorder()?;
    let drained = handle.clone();
    // Samples of histograms pile up until somebody drains them, and nobody may be scraping.
    std::thread::Builder::new().name("metrics".into()).spawn(move || {
        loop {
            std::thread::sleep(UPKEEP_EVERY);
            drained.run_upkeep();
        }
    })?;
    Ok(handle)
}
