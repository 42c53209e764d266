//! Why a lead or a figure is what it is.

use std::fmt::Write as _;

use super::{SHOWN, instant, row};
use crate::{
    cli::terminal::table,
    ops::explain::{ExplainedAgent, ExplainedLead},
};

pub(in crate::cli) fn explained_lead(lead: &ExplainedLead) -> String {
    let mut rows = vec![row(["field", "value", "because of", "event"])];
    for field in &lead.fields {
        let events: Vec<String> = field
            .causes
            .iter()
            .map(|cause| format!("{} {} at {}", cause.seq, cause.kind, instant(cause.occurred_at)))
            .collect();
        let value = match &field.stored {
            Some(stored) => format!("{} (THE TABLE HAS {stored})", field.value),
            None => field.value.to_string(),
        };
        rows.push(row([&field.field, &value, field.because, &events.join("; ")]));
    }
    format!(
        "{} {} {}: {} events, {} left out\n{}",
        lead.org_id,
        lead.board_id,
        lead.item_id,
        lead.events,
        lead.left_out,
        table(&rows)
    )
}

pub(in crate::cli) fn explained_agent(agent: &ExplainedAgent) -> String {
    let mut rows = vec![row(["board", "item", "name", "contributes", ""])];
    for lead in agent.leads.iter().take(SHOWN) {
        rows.push(row([
            &lead.board_id.to_string(),
            &lead.item_id.to_string(),
            lead.name.as_deref().unwrap_or_default(),
            &lead.contributes.to_string(),
            if lead.decides { "← decides" } else { "" },
        ]));
    }
    let mut text = format!(
        "{} of agent {} over {} days: {} from {} leads at {} (stored: {})\n{}\n{}",
        agent.metric,
        agent.agent_id,
        agent.window_days,
        agent.value,
        agent.leads.len(),
        instant(agent.at),
        agent.stored,
        agent.means,
        table(&rows)
    );
    if agent.leads.len() > SHOWN {
        let _ = writeln!(text, "… and {} more; --json has all", agent.leads.len() - SHOWN);
    }
    text
}
