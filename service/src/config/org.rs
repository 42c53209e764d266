//! The orgs of the configuration: their windows, webhook sources and mapped boards (spec.md §2, §3).

use std::collections::HashSet;

use chrono_tz::Tz;

use super::{
    document::Section,
    source::{Source, read_source},
};

#[derive(Debug, Clone)]
pub struct Org {
    /// A name in URLs' logs, subjects and keys: `[a-z0-9][a-z0-9_-]{0,62}`.
    pub id: String,
    /// Where the org's days begin (time series). Default: UTC.
    pub time_zone: Tz,
    /// The windows of AgentMetrics in days, ascending. Default: 7, 30, 90.
    pub windows: Vec<u32>,
    pub hot: HotRule,
    pub sources: Vec<Source>,
    pub boards: Vec<Board>,
}

/// An agent is hot with at least `min_deals` wins in the last `window_hours`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotRule {
    /// Hours. Default: 72.
    pub window_hours: u32,
    /// Deals. Default: 3.
    pub min_deals: u32,
}

/// A mapped board: the columns that mean something, and the status labels that count.
#[derive(Debug, Clone, Default)]
pub struct Board {
    pub id: i64,
    pub name: Option<String>,
    pub columns: Columns,
    pub contacted: Labels,
    pub won: Labels,
    pub lost: Labels,
}

/// Ids of a board's columns, each optional.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    pub owner: Option<String>,
    pub status: Option<String>,
    pub amount: Option<String>,
    pub industry: Option<String>,
    pub next_call: Option<String>,
}

/// Status labels, by id or, second best, by their exact text.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    pub ids: Vec<i64>,
    pub texts: Vec<String>,
}

/// What a status means for a lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Contacted,
    Won,
    Lost,
}

impl Board {
    /// The class of a status: by its label id; by its text, second best, where no class has the id.
    pub fn class(&self, id: Option<i64>, text: Option<&str>) -> Option<Class> {
        let classes = [
            (&self.won, Class::Won),
            (&self.lost, Class::Lost),
            (&self.contacted, Class::Contacted),
        ];
        let by_id =
            classes.iter().find(|(labels, _)| id.is_some_and(|id| labels.ids.contains(&id)));
        let by_text = || {
            classes
                .iter()
                .find(|(labels, _)| labels.texts.iter().any(|known| Some(known.as_str()) == text))
        };
        by_id.or_else(by_text).map(|(_, class)| *class)
    }
}

pub(super) fn read_orgs(root: &Section<'_, '_>) -> Vec<Org> {
    let mut orgs = Vec::new();
    let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
    for section in root.sections("orgs") {
        if let Some(org) = read_org(section, &mut ids, &mut keys) {
            orgs.push(org);
        }
    }
    orgs
}

fn read_org(
    section: Section<'_, '_>,
    ids: &mut HashSet<String>,
    keys: &mut HashSet<String>,
) -> Option<Org> {
    let id = section.required("id", identifier);
    if let Some(id) = &id
        && !ids.insert(id.clone())
    {
        section.report(format!("the org `{id}` stands in this file twice"));
    }
    let time_zone = section.get::<String>("time_zone").and_then(|zone| {
        section.parsed("time_zone", zone, |zone| {
            zone.parse::<Tz>()
                .map_err(|_| format!("`{zone}` is no IANA time zone such as `Asia/Jerusalem`"))
        })
    });
    let hot = section.section("hot");
    let hot_rule = HotRule {
        window_hours: small(hot.number("window_hours", None, 72, 1..=8760)),
        min_deals: small(hot.number("min_deals", None, 3, 1..=1_000_000)),
    };
    hot.finish();
    let windows = read_windows(&section);
    let sources = section
        .sections("sources")
        .into_iter()
        .filter_map(|source| read_source(source, keys))
        .collect();
    let mut board_ids = HashSet::new();
    let boards = section
        .sections("boards")
        .into_iter()
        .filter_map(|board| read_board(board, &mut board_ids))
        .collect();
    section.finish();
    Some(Org {
        id: id?,
        time_zone: time_zone.unwrap_or(Tz::UTC),
        windows,
        hot: hot_rule,
        sources,
        boards,
    })
}

fn read_windows(section: &Section<'_, '_>) -> Vec<u32> {
    let values = section.array("windows");
    if values.is_empty() {
        return vec![7, 30, 90];
    }
    let mut windows = Vec::new();
    for value in values {
        let days = <i64 as super::document::Scalar>::from_toml(value.get_ref());
        match days.and_then(|days| u32::try_from(days).ok()) {
            Some(days @ 1..=3650) if !windows.contains(&days) => windows.push(days),
            Some(1..=3650) => section.report_value(value, "this window stands here twice"),
            _ => section.report_value(value, "a window is a whole number of days, 1 to 3650"),
        }
    }
    windows.sort_unstable();
    windows
}

fn read_board(section: Section<'_, '_>, ids: &mut HashSet<i64>) -> Option<Board> {
    let id = section.get::<i64>("id");
    match &id {
        None => section.report("a board needs its `id`, a whole number"),
        Some(id) if !ids.insert(id.value) => {
            section.report(format!("the board {} stands in this org twice", id.value));
        }
        Some(_) => {}
    }
    let columns = section.section("columns");
    let column = |key| columns.get::<String>(key).map(|found| found.value);
    let mapped = Columns {
        owner: column("owner"),
        status: column("status"),
        amount: column("amount"),
        industry: column("industry"),
        next_call: column("next_call"),
    };
    columns.finish();
    let board = Board {
        id: id.map_or(0, |found| found.value),
        name: section.get::<String>("name").map(|found| found.value),
        columns: mapped,
        contacted: read_labels(&section, "contacted"),
        won: read_labels(&section, "won"),
        lost: read_labels(&section, "lost"),
    };
    if let Some(both) = board.won.ids.iter().find(|id| board.lost.ids.contains(id)) {
        section.report(format!("the label {both} of board {} is both won and lost", board.id));
    }
    section.finish();
    Some(board)
}

fn read_labels(section: &Section<'_, '_>, key: &'static str) -> Labels {
    let mut labels = Labels::default();
    for value in section.array(key) {
        let id = <i64 as super::document::Scalar>::from_toml(value.get_ref());
        match (id, value.get_ref().as_str()) {
            (Some(id), _) => labels.ids.push(id),
            (None, Some(text)) => labels.texts.push(text.to_owned()),
            (None, None) => section.report_value(
                value,
                format!("`{key}` lists label ids (whole numbers) or exact texts"),
            ),
        }
    }
    labels
}

/// Ids and keys stand in URLs, NATS subjects and Redis keys, so they are plain.
pub(super) fn identifier(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = (1..=63).contains(&text.len())
        && text.starts_with(plain)
        && text.chars().all(|c| plain(c) || c == '_' || c == '-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is `{text}`; it must be 1 to 63 of a-z, 0-9, - and _, and begin with a letter or digit"
        ))
    }
}

/// A number whose bounds were checked to fit.
pub(super) fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
