//! The table of all endpoints and the dictionary of their parameters.

pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) scope: &'static str,
    pub(super) parameters: &'static str,
    /// The largest `limit`.
    pub(super) most: u32,
    pub(super) schema: &'static str,
    pub(super) content_type: &'static str,
}

impl Endpoint {
    /// What changes something is asked for by POST.
    pub(super) fn method(&self) -> &'static str {
        if self.scope == "ops:write" { "post" } else { "get" }
    }
}

const JSON: &str = "application/json";
const CSV: &str = "text/csv";

macro_rules! endpoint {
    ($path:literal, $scope:literal, $parameters:literal, $schema:literal, $summary:literal) => {
        endpoint!($path, $scope, $parameters, $schema, $summary, 200, JSON)
    };
    ($path:literal, $scope:literal, $parameters:literal, $schema:literal, $summary:literal, $most:literal, $form:ident) => {
        Endpoint {
            path: $path,
            summary: $summary,
            scope: $scope,
            parameters: $parameters,
            most: $most,
            schema: $schema,
            content_type: $form,
        }
    };
}

pub(super) const ENDPOINTS: &[Endpoint] = &[
    endpoint!(
        "/v1/leads",
        "leads:read",
        "date_field from to agent_id board_id industry status state lifecycle min_amount max_amount q order limit cursor count min_seq",
        "LeadPage",
        "Leads, newest first"
    ),
    endpoint!(
        "/v1/leads/{board_id}/{item_id}",
        "leads:read",
        "board_id item_id min_seq",
        "Lead",
        "One lead"
    ),
    endpoint!(
        "/v1/leads/{board_id}/{item_id}/timeline",
        "leads:read",
        "board_id item_id cursor limit min_seq",
        "Timeline",
        "What happened to one lead, the earliest first; read from the stream of record"
    ),
    endpoint!(
        "/v1/agents",
        "metrics:read",
        "q cursor limit min_seq",
        "AgentPage",
        "Agents with all windows"
    ),
    endpoint!(
        "/v1/agents/{agent_id}",
        "metrics:read",
        "agent_id min_seq",
        "Agent",
        "One agent with all windows"
    ),
    endpoint!(
        "/v1/agents/leaderboard",
        "metrics:read",
        "window sort order min_n limit min_seq",
        "Leaderboard",
        "Agents of one window, ranked by a metric",
        1000,
        JSON
    ),
    endpoint!(
        "/v1/kpis/summary",
        "metrics:read",
        "window from to compare board_id industry min_seq",
        "Summary",
        "The org's figures beside those of the span before; a span is (from, to]"
    ),
    endpoint!(
        "/v1/kpis/funnel",
        "metrics:read",
        "window from to compare board_id industry min_seq",
        "Funnel",
        "Entered, touched, won of the leads that entered in a span"
    ),
    endpoint!(
        "/v1/kpis/timeseries",
        "metrics:read",
        "metric bucket from to group_by board_id industry min_seq",
        "Timeseries",
        "Figures bucket by bucket, cut at midnight in the org's time zone"
    ),
    endpoint!(
        "/v1/industries",
        "metrics:read",
        "window min_n min_seq",
        "Industries",
        "Figures of each industry"
    ),
    endpoint!(
        "/v1/search",
        "leads:read",
        "q types limit min_seq",
        "Hits",
        "Agents and leads by name: exact, then prefix, then parts of three characters and more",
        20,
        JSON
    ),
    endpoint!(
        "/v1/users",
        "users:read",
        "q ids cursor limit min_seq",
        "UserPage",
        "monday.com users; e-mail with pii:read"
    ),
    endpoint!(
        "/v1/meta",
        "metrics:read",
        "min_seq",
        "Meta",
        "Boards, industries, statuses, windows, time zone"
    ),
    endpoint!(
        "/v1/export/leads.csv",
        "export:read, leads:read",
        "date_field from to agent_id board_id industry status state lifecycle min_amount max_amount q order bom min_seq",
        "",
        "All leads of the list, as CSV",
        200,
        CSV
    ),
    endpoint!(
        "/v1/export/leaderboard.csv",
        "export:read, metrics:read",
        "window sort order min_n limit bom min_seq",
        "",
        "The leaderboard, as CSV",
        1000,
        CSV
    ),
    endpoint!(
        "/v1/stream",
        "leads:read or metrics:read",
        "topics",
        "",
        "Server-sent hints: `changed` with a sequence, `resync` where hints were missed",
        200,
        EVENTS
    ),
    endpoint!(
        "/v1/consistency",
        "metrics:read or ops:read",
        "min_seq wait_ms",
        "Consistency",
        "How far the read models are, and how far the stream is"
    ),
    endpoint!(
        "/outcomes/summary",
        "metrics:read",
        "windowDays mode boardId",
        "Outcomes",
        "For dashboards of the earlier product: one cohort by entry"
    ),
    endpoint!(
        "/ops/status",
        "ops:read",
        "",
        "OpsStatus",
        "How the projection is and what is wrong; counts are of this org"
    ),
    endpoint!(
        "/ops/dead-letters",
        "ops:read",
        "board_id item_id kind error seq",
        "LetterGroups",
        "Events that can't be applied, grouped by error"
    ),
    endpoint!(
        "/ops/dead-letters/{seq}",
        "ops:read",
        "seq",
        "Letter",
        "One of them whole; its payload with pii:read"
    ),
    endpoint!(
        "/ops/dead-letters/retry",
        "ops:write",
        "board_id item_id kind error seq dry_run",
        "Any",
        "Apply them again, each lead's in order"
    ),
    endpoint!(
        "/ops/dead-letters/skip",
        "ops:write",
        "board_id item_id kind error seq reason dry_run",
        "Any",
        "Give them up for ever"
    ),
    endpoint!(
        "/ops/leads/{board_id}/{item_id}/rebuild",
        "ops:write",
        "board_id item_id reason dry_run",
        "Repaired",
        "Make one lead anew from all its events"
    ),
    endpoint!(
        "/ops/explain/leads/{board_id}/{item_id}",
        "ops:read, leads:read",
        "board_id item_id",
        "ExplainedLead",
        "The events behind each field of a lead"
    ),
    endpoint!(
        "/ops/explain/agents/{agent_id}",
        "ops:read, leads:read",
        "agent_id window metric",
        "ExplainedAgent",
        "The leads behind a figure of an agent"
    ),
    endpoint!(
        "/ops/audit",
        "ops:read",
        "limit",
        "Audit",
        "What was changed through this API with keys of this org"
    ),
];
const EVENTS: &str = "text/event-stream";

/// Name, kind (`*` = repeatable), description.
pub(super) const PARAMETERS: &[(&str, &str, &str)] = &[
    ("agent_id", "key*", "The owner's user id"),
    ("board_id", "key*", "A board"),
    ("item_id", "key", "An item"),
    (
        "date_field",
        "entered|first_touch|closed_won|last_activity",
        "The instant that the list is about; leads without it are not in it",
    ),
    (
        "from",
        "instant",
        "An RFC 3339 instant, or a date: its midnight in the org's time zone. In lists and series it is in the span",
    ),
    ("to", "instant", "As `from`. In lists and series it is not in the span"),
    ("industry", "text*", "In any case; `unknown` where a lead has none"),
    ("status", "text*", "A label's id or exact text"),
    ("state", "open|won|lost*", "The class of the status"),
    ("lifecycle", "active|archived|deleted|all", "Without: active and archived"),
    ("min_amount", "amount", "At least this deal amount"),
    ("max_amount", "amount", "At most this deal amount"),
    ("q", "text", "A part of the name; under three characters its beginning"),
    ("order", "desc|asc", "Without: desc"),
    ("limit", "int", "Items at most"),
    ("cursor", "cursor", "`next_cursor` of the page before, with the same filters"),
    ("count", "none|estimated|exact", "Whether to count all leads of the list"),
    ("min_seq", "natural", "Wait, bounded, until the read models have this `Leadpulse-Seq`"),
    ("window", "window", "One of the org's windows, such as 30d"),
    (
        "sort",
        "conversion_rate|period_conversion_rate|assigned_count|touched_count|cohort_won_count|closed_won_count|deals_amount_sum|deals_amount_count|avg_deal_size|median_response_seconds|median_time_to_close_seconds|time_to_close_count|hot_deals_count|is_hot|last_win_at|last_activity_at|hours_since_last_win|hours_since_last_activity|burnout_score|active_leads",
        "A metric of the items",
    ),
    ("min_n", "small", "Leave out what is made of fewer leads"),
    ("compare", "previous|none", "With the span of the same length just before"),
    (
        "metric",
        "assigned_count|touched_count|cohort_won_count|conversion_rate|closed_won_count|period_conversion_rate|deals_amount_sum|avg_deal_size|median_response_seconds|median_time_to_close_seconds*",
        "What the points show",
    ),
    ("bucket", "day|week|month", "The length of a bucket; weeks begin on Monday"),
    ("group_by", "none|agent|industry|board", "One series for each"),
    ("types", "agent|lead*", "Without: both"),
    ("ids", "key*", "User ids, also separated by commas"),
    ("bom", "true|false", "Begin with a byte order mark, for Excel"),
    ("topics", "leads|metrics*", "leads, metrics, also separated by commas"),
    ("wait_ms", "wait", "Wait at most so long, up to 5000"),
    ("windowDays", "7|30|90", "The window"),
    ("mode", "cohort", "By entry"),
    ("boardId", "key", "A board"),
    ("kind", "text", "A kind of event, such as update_column_value"),
    ("error", "text", "Words of the error"),
    ("seq", "key*", "A sequence of the stream"),
    ("reason", "text", "Why, for the audit"),
    ("dry_run", "true|false", "Only tell what would be done"),
];
