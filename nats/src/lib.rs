//! The wire contract of Leadpulse: what a message in the stream looks like, what its subject is, and
//! how the streams are set up. `ingest` writes it, `projector` reads it, nobody else knows it.

pub mod envelope;
pub mod instant;
pub mod kind;
pub mod streams;

pub use envelope::{Envelope, subject};
pub use kind::Kind;
