//! A lead as it counts for one agent, in 72 bytes: an agent's leads stay in memory between two
//! computations, and there are millions of them.

use std::collections::HashMap;

use rust_decimal::Decimal;

/// (board, item): the lead's key within its org.
pub type LeadId = (i64, i64);

/// An instant that may be missing, in eight bytes: the one that stands for none is before all time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maybe(i64);

impl Maybe {
    pub fn get(self) -> Option<i64> {
        (self.0 != i64::MIN).then_some(self.0)
    }
}

impl From<Option<i64>> for Maybe {
    fn from(at: Option<i64>) -> Self {
        Self(at.unwrap_or(i64::MIN))
    }
}

/// What of a lead the figures of one agent are made of. Instants are microseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Lead {
    pub id: LeadId,
    pub entered_at: i64,
    pub first_touch_at: Maybe,
    pub closed_won_at: Maybe,
    pub last_activity_at: Maybe,
    /// Zero where there is none: only what is above counts.
    pub deal_amount: Decimal,
    pub industry: Industry,
    /// It is assigned to the agent, …
    pub assigned: bool,
    /// … the agent won it, or both.
    pub won_by: bool,
    /// It is open and active.
    pub active: bool,
}

impl Lead {
    /// May it be in a window that begins at this instant or later?
    pub fn is_after(&self, since: i64) -> bool {
        (self.assigned && self.entered_at > since)
            || (self.won_by && self.closed_won_at.get().is_some_and(|at| at > since))
    }
}

/// The number of an industry's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Industry(u32);

impl Industry {
    pub(super) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Industries' names in lower case, each once, whatever leads have them.
#[derive(Debug, Default)]
pub struct Industries {
    names: Vec<String>,
    /// Each spelling that came, and the lower-cased ones.
    numbers: HashMap<String, Industry>,
    bytes: usize,
}

impl Industries {
    pub fn number(&mut self, industry: Option<&str>) -> Industry {
        let spelling = industry.unwrap_or("unknown");
        if let Some(known) = self.numbers.get(spelling) {
            return *known;
        }
        let name = spelling.to_lowercase();
        let number = match self.numbers.get(&name) {
            Some(known) => *known,
            None => {
                let number = Industry(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
                self.names.push(name.clone());
                self.remember(name, number);
                number
            }
        };
        self.remember(spelling.to_owned(), number);
        number
    }

    fn remember(&mut self, spelling: String, number: Industry) {
        // The text twice, and the entries of the map and of the list.
        self.bytes += 2 * spelling.len() + 64;
        self.numbers.insert(spelling, number);
    }

    pub(super) fn name(&self, industry: usize) -> &str {
        self.names.get(industry).map_or("unknown", String::as_str)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What does not depend on a window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Leads assigned to the agent or won by it, ever; with none, it is no agent.
    pub leads: i64,
    pub active_leads: i64,
    pub last_win_at: Option<i64>,
    pub last_activity_at: Option<i64>,
}

impl Totals {
    pub fn of(leads: &[Lead]) -> Self {
        let mut totals = Self::default();
        leads.iter().for_each(|lead| totals.add(lead));
        totals
    }

    pub fn add(&mut self, lead: &Lead) {
        self.leads += i64::from(lead.assigned || lead.won_by);
        if lead.assigned {
            self.active_leads += i64::from(lead.active);
            self.last_activity_at = self.last_activity_at.max(lead.last_activity_at.get());
        }
        if lead.won_by {
            self.last_win_at = self.last_win_at.max(lead.closed_won_at.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_industry_is_one_in_whatever_spelling_and_none_is_unknown() {
        let mut industries = Industries::default();
        let number = industries.number(Some("FinTech"));
        assert_eq!(industries.number(Some("fintech")), number);
        assert_eq!(industries.number(Some("FINTECH")), number);
        assert_eq!(industries.name(number.index()), "fintech");
        assert_eq!(industries.number(None), industries.number(Some("Unknown")));
        assert_eq!(industries.len(), 2);
    }

    #[test]
    fn a_lead_takes_72_bytes() {
        assert_eq!(size_of::<Lead>(), 72);
    }

    #[test]
    fn the_first_instant_of_unix_time_is_an_instant() {
        assert_eq!(Maybe::from(Some(0)).get(), Some(0));
        assert_eq!(Maybe::from(None).get(), None);
    }
}
