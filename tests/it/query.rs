//! The read API over a real Postgres and Redis. Rows are written as the projector writes them, so that
//! a test says exactly what stands there.

mod access;
mod cache;
mod document;
mod export;
mod figures;
mod fixture;
mod front;
mod headers;
mod leads;
mod lists;
mod live;
mod orgs;
mod plans;
mod races;
mod schemathesis;
mod timeline;
