//! `GET /v1/industries`: the figures of each industry over one window.

use serde::Serialize;

use super::figures::{Cuts, Figures, Group, Part, Wanted, figures};
use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    db::Snapshot,
    params::Params,
    read::{Context, Loaded, NotLoaded, Read},
    value::instant,
    window::{self, Period},
};

pub(crate) struct Industries {
    window_days: u32,
    min_n: i64,
}

#[derive(Serialize)]
struct Answer {
    window: String,
    window_days: u32,
    as_of: String,
    items: Vec<Industry>,
}

#[derive(Serialize)]
struct Industry {
    /// Lower-cased; `unknown` where a lead has none.
    industry: String,
    #[serde(flatten)]
    figures: Figures,
}

impl Read for Industries {
    const FAMILY: &'static str = "industries";
    const SCOPE: Scope = Scope::Metrics;
    const COST: u32 = 5;

    fn parse(params: &mut Params, caller: &Caller) -> Self {
        Self {
            window_days: window::window(params, &caller.org),
            min_n: params.number("min_n", 0, i64::from(u32::MAX)).unwrap_or(0),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let span = Period::LastDays(self.window_days).at(from.at);
        let cuts = Cuts { starts: vec![span.from], end: span.to };
        let (part, org) = (Part::default(), context.org());
        let connection = from.connection();
        let found = figures(connection, org, &part, &cuts, Group::Industry, Wanted::ALL).await?;
        let mut items: Vec<Industry> = found
            .into_iter()
            .map(|((name, _), figures)| Industry { industry: name.unwrap_or_default(), figures })
            .filter(|item| item.figures.assigned_count >= self.min_n)
            .collect();
        // They come sorted by name, and a stable sort keeps that among equals.
        items.sort_by_key(|item| std::cmp::Reverse(item.figures.assigned_count));
        let answer = Answer {
            window: format!("{}d", self.window_days),
            window_days: self.window_days,
            as_of: instant(from.at),
            items,
        };
        Ok(Loaded::json(&answer, Lives::Moment)?)
    }
}
