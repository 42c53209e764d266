//! Figures of an org, or of some boards or industries of it (spec.md §5).

mod figures;
mod summary;

pub(crate) use summary::Summary;
