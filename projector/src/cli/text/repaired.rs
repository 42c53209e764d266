//! What a repair changed, or would.

use std::{collections::BTreeMap, fmt::Write as _};

use super::SHOWN;
use crate::ops::repair::{AgentChange, FieldChange, LeadChange, Repaired};

pub(in crate::cli) fn repaired(repaired: &Repaired) -> String {
    let verb = if repaired.dry_run { "would change" } else { "changed" };
    let mut text = format!(
        "{} events of {} leads from {} to {}: {} rows, {} users, {} rows of figures {verb}\n",
        repaired.events,
        repaired.leads,
        repaired.from_seq,
        repaired.to_seq,
        repaired.lead_changes.len(),
        repaired.user_changes.len(),
        repaired.agent_changes.len(),
    );
    let mut left = SHOWN;
    let mut write = |title: String, fields: &BTreeMap<String, FieldChange>| {
        if left == 0 {
            return;
        }
        left -= 1;
        let _ = writeln!(text, "{title}");
        for (name, change) in fields {
            let _ = writeln!(text, "  {name}: {} → {}", change.from, change.to);
        }
    };
    for change in &repaired.lead_changes {
        let how = match (change.created, change.whole) {
            (true, _) => " (missing, from all its events)",
            (false, true) => " (from all its events)",
            (false, false) => "",
        };
        let LeadChange { org_id, board_id, item_id, .. } = change;
        write(format!("lead {org_id} {board_id} {item_id}{how}"), &change.fields);
    }
    for change in &repaired.user_changes {
        write(format!("user {} {}", change.org_id, change.user_id), &change.fields);
    }
    for change in &repaired.agent_changes {
        let AgentChange { org_id, agent_id, window_days, fields } = change;
        write(format!("agent {org_id} {agent_id}, {window_days} days"), fields);
    }
    let all =
        repaired.lead_changes.len() + repaired.user_changes.len() + repaired.agent_changes.len();
    if all > SHOWN {
        let _ = writeln!(text, "… and {} more; --json has all", all - SHOWN);
    }
    text
}
