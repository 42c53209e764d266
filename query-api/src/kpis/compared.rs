//! What summary and funnel are asked for: a span, perhaps beside the one before, of a part of the org.

use chrono::{DateTime, Utc};
use leadpulse_service::config::Org;

use super::figures::{Cuts, Figures, Group, Part, Wanted, figures};
use crate::{
    cache::Lives,
    db::Snapshot,
    params::Params,
    problem::Problem,
    window::{Period, Span},
};

pub(super) struct Compared {
    pub(super) period: Period,
    previous: bool,
    part: Part,
}

/// The figures of the span, and of the one before if they were asked for.
pub(super) struct Found {
    pub(super) span: Span,
    pub(super) current: Figures,
    pub(super) previous: Option<Figures>,
}

impl Compared {
    pub(super) fn parse(params: &mut Params, org: &Org) -> Self {
        Self {
            period: Period::read(params, org),
            previous: params.choice("compare", &[("previous", true), ("none", false)], true),
            part: Part::parse(params),
        }
    }

    pub(super) async fn figures(
        &self,
        org: &Org,
        from: &mut Snapshot,
        wanted: Wanted,
    ) -> Result<Found, Problem> {
        let span = self.period.at(from.at);
        let mut starts: Vec<DateTime<Utc>> = vec![span.from];
        if self.previous {
            starts.insert(0, span.previous().from);
        }
        let cuts = Cuts { starts, end: span.to };
        let connection = from.connection();
        let mut found = figures(connection, org, &self.part, &cuts, Group::None, wanted).await?;
        let mut of = |place| found.remove(&(None, place)).unwrap_or_default();
        let current = of(usize::from(self.previous));
        Ok(Found { span, current, previous: self.previous.then(|| of(0)) })
    }

    pub(super) fn lives(&self) -> Lives {
        match self.period {
            Period::LastDays(_) => Lives::Moment,
            Period::Fixed { .. } => Lives::Medium,
        }
    }
}
