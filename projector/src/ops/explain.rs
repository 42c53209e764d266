//! Why a figure is what it is: the events behind each field of a lead, the leads behind each figure of an
//! agent.

mod agent;
mod lead;

pub use agent::{Counted, ExplainedAgent, agent, metrics};
pub use lead::{Cause, ExplainedField, ExplainedLead, lead};
