//! Figures of an org, or of some boards or industries of it (spec.md §5).

mod compared;
pub(crate) mod figures;
mod funnel;
mod industries;
mod outcomes;
mod summary;
mod timeseries;

pub(crate) use funnel::Funnel;
pub(crate) use industries::Industries;
pub(crate) use outcomes::{Outcomes, outcomes};
pub(crate) use summary::Summary;
pub(crate) use timeseries::Timeseries;
