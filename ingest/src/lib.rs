//! `ingest`: from a webhook at the door to a message in the stream, and nothing else.
//!
//! The way of one webhook: [`http`] reads it with a bound on everything, [`webhook`] takes it through
//! [`verify`] (who sent it), [`event`] (what it is) and [`publish`] (the stream has it), and answers. What is refused goes to the
//! [`quarantine`].

pub mod answer;
pub mod cli;
pub mod event;
pub mod http;
pub mod operate;
pub mod publish;
pub mod quarantine;
pub mod serve;
pub mod source;
pub mod stream;
pub mod verify;
pub mod webhook;
