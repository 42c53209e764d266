//! What the life of every Leadpulse service has in common: its configuration, its telemetry,
//! its health, its HTTP connections, its command line and its end. What a service does is not in here.

pub mod cli;
pub mod config;
pub mod health;
pub mod http;
pub mod monitor;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
