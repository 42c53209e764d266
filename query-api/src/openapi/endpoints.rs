//! The table of all endpoints and the dictionary of their parameters.

/// A line each: method and path, scope, form of the answer, parameters (`limit:20` is one of 20 at most,
/// `board_id:once` one that can be given several times elsewhere),
/// summary. A form with a slash is a content type and no JSON; several are separated by commas.
const TABLE: &str = "
GET /v1/leads | leads:read | LeadPage | date_field from to agent_id board_id industry status state lifecycle min_amount max_amount q order limit cursor count min_seq | Leads, newest first
GET /v1/leads/{board_id}/{item_id} | leads:read | Lead | board_id item_id min_seq | One lead
GET /v1/leads/{board_id}/{item_id}/timeline | leads:read | Timeline | board_id item_id cursor limit min_seq | What happened to one lead, the earliest first; read from the stream of record
GET /v1/agents | metrics:read | AgentPage | q cursor limit min_seq | Agents with all windows
GET /v1/agents/{agent_id} | metrics:read | Agent | agent_id min_seq | One agent with all windows
GET /v1/agents/leaderboard | metrics:read | Leaderboard | window sort order min_n limit:1000 min_seq | Agents of one window, ranked by a metric
GET /v1/kpis/summary | metrics:read | Summary | window from to compare board_id industry min_seq | The org's figures beside those of the span before; a span is (from, to]
GET /v1/kpis/funnel | metrics:read | Funnel | window from to compare board_id industry min_seq | Entered, touched, won of the leads that entered in a span
GET /v1/kpis/timeseries | metrics:read | Timeseries | metric bucket from to group_by board_id industry min_seq | Figures bucket by bucket, cut at midnight in the org's time zone
GET /v1/industries | metrics:read | Industries | window min_n min_seq | Figures of each industry
GET /v1/search | leads:read | Hits | q types limit:20 min_seq | Agents and leads by name: exact, then prefix, then parts of three characters and more
GET /v1/users | users:read | UserPage | q ids cursor limit min_seq | monday.com users; e-mail with pii:read
GET /v1/meta | metrics:read | Meta | min_seq | Boards, industries, statuses, windows, time zone
GET /v1/export/leads.csv | export:read, leads:read | text/csv | date_field from to agent_id board_id industry status state lifecycle min_amount max_amount q order bom min_seq | All leads of the list, as CSV
GET /v1/export/leaderboard.csv | export:read, metrics:read | text/csv | window sort order min_n limit:1000 bom min_seq | The leaderboard, as CSV
GET /v1/stream | leads:read or metrics:read | text/event-stream | topics | Server-sent hints: `changed` with the topics that have (leads with metrics, or metrics alone) and a sequence; `resync` where hints were missed
GET /v1/consistency | metrics:read or ops:read | Consistency | min_seq wait_ms | How far the read models are, and how far the stream is
GET /outcomes/summary | metrics:read | Outcomes | windowDays mode boardId min_seq | For dashboards of the earlier product: one cohort by entry
GET /ops/status | ops:read | OpsStatus | - | How the projection is and what is wrong; counts are of this org
GET /ops/dead-letters | ops:read | LetterGroups | board_id:once item_id kind error seq | Events that can't be applied, grouped by error
GET /ops/dead-letters/{seq} | ops:read | Letter | seq | One of them whole; its payload with pii:read
POST /ops/dead-letters/retry | ops:write | Any | board_id:once item_id kind error seq reason dry_run | Apply them again, each lead's in order
POST /ops/dead-letters/skip | ops:write | Any | board_id:once item_id kind error seq reason dry_run | Give them up for ever
POST /ops/leads/{board_id}/{item_id}/rebuild | ops:write, leads:read | Repaired | board_id item_id reason dry_run | Make one lead anew from all its events
GET /ops/explain/leads/{board_id}/{item_id} | ops:read, leads:read | ExplainedLead | board_id item_id | The events behind each field of a lead
GET /ops/explain/agents/{agent_id} | ops:read, leads:read | ExplainedAgent | agent_id window metric | The leads behind a figure of an agent
GET /ops/audit | ops:read | Audit | limit | What was changed through this API with keys of this org
GET /ops/instance/status | ops:instance | OpsStatus | - | How the projection of the whole instance is and what is wrong
GET /ops/instance/checkpoint | ops:instance | Checkpoint | - | Where the projection stands, lane by lane
POST /ops/instance/checkpoint/set | ops:instance | Moved | to_seq expect adopt_stream reason | Move the position, while the projection is paused
GET /ops/instance/dead-letters | ops:instance | LetterGroups | org board lead kind error seq earlier | Events that can't be applied, grouped by error, also those of no org
GET /ops/instance/dead-letters/{seq} | ops:instance | Letter | seq earlier | One of them whole
POST /ops/instance/dead-letters/retry | ops:instance | Any | org board lead kind error seq earlier dry_run confirm reason | Apply them again, each lead's in order
POST /ops/instance/dead-letters/skip | ops:instance | Any | org board lead kind error seq earlier dry_run confirm reason | Give them up for ever
POST /ops/instance/pause | ops:instance | Pause | confirm reason | Let the projection stand still until it is resumed
POST /ops/instance/resume | ops:instance | Resumed | reason | Let a paused projection go on
POST /ops/instance/replay | ops:instance | Begun | from_seq to_seq since until org board lead kind dry_run confirm reason | Apply a part of the stream again
POST /ops/instance/verify | ops:instance | Begun | org board sample | Fold the stream beside the tables and compare
GET /ops/instance/rebuild | ops:instance | LastRebuild | - | How far the present or the last rebuild is
GET /ops/instance/rebuild/plan | ops:instance | RebuildPlan | - | What a rebuild would do now
POST /ops/instance/rebuild/start | ops:instance | Begun | swap accept_loss confirm reason | Build the new tables, or go on with them
POST /ops/instance/rebuild/swap | ops:instance | Begun | confirm reason | Let the new tables take the place of the old ones
POST /ops/instance/rebuild/rollback | ops:instance | Begun | confirm reason | Put the old tables back
POST /ops/instance/rebuild/abort | ops:instance | Rebuild | confirm reason | End the present rebuild
POST /ops/instance/rebuild/drop-archive | ops:instance | Dropped | confirm reason | Drop the old tables for good
GET /ops/instance/export | ops:instance | application/x-ndjson,application/zstd | from_seq to_seq since until org board lead kind mask leadpulse-mask-key compression | The stream or a part of it, with all that is in it
POST /ops/instance/import | ops:instance | Begun | confirm reason allow_masked | Put an exported file, the body, into the stream
GET /ops/instance/audit | ops:instance | Audit | limit | What was changed, through this API and on the command line
GET /ops/instance/audit/{id} | ops:instance | AuditEntry | id | One of them: what came of what was begun
";

const JSON: &str = "application/json";
/// The largest `limit` where the table says nothing.
const MOST: u32 = 200;

pub(super) struct Endpoint {
    pub(super) method: String,
    pub(super) path: &'static str,
    pub(super) scope: &'static str,
    pub(super) schema: &'static str,
    pub(super) content_type: &'static str,
    /// In the order of the document.
    pub(super) parameters: Vec<&'static str>,
    /// The largest `limit`.
    pub(super) most: u32,
    /// Not repeatable here, whatever the dictionary says.
    pub(super) once: Vec<&'static str>,
    pub(super) summary: &'static str,
}

pub(super) fn all() -> impl Iterator<Item = Endpoint> {
    TABLE.lines().filter_map(Endpoint::parse)
}

impl Endpoint {
    fn parse(line: &'static str) -> Option<Self> {
        let mut columns = line.split(" | ");
        let (method, path) = columns.next()?.split_once(' ')?;
        let (scope, form) = (columns.next()?, columns.next()?);
        let (mut most, mut once) = (MOST, Vec::new());
        let parameter = |word: &'static str| match word.split_once(':') {
            Some((name, "once")) => {
                once.push(name);
                name
            }
            Some((name, number)) => {
                most = number.parse().unwrap_or(MOST);
                name
            }
            None => word,
        };
        let words = columns.next()?.split_whitespace().filter(|word| *word != "-");
        let parameters = words.map(parameter).collect();
        let content_type = if form.contains('/') { form } else { JSON };
        let (method, summary) = (method.to_lowercase(), columns.next()?);
        Some(Self {
            method,
            path,
            scope,
            schema: form,
            content_type,
            parameters,
            most,
            once,
            summary,
        })
    }
}

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
    (
        "topics",
        "leads|metrics*",
        "What the client wants to hear about, also separated by commas; each needs its scope. Without: all that the \
         key may read",
    ),
    ("wait_ms", "wait", "Wait at most so long, up to 5000"),
    ("windowDays", "7|30|90", "The window"),
    ("mode", "cohort", "By entry"),
    ("boardId", "key", "A board"),
    ("kind", "text", "A kind of event, such as update_column_value"),
    ("error", "text", "Words of the error"),
    ("seq", "key*", "A sequence of the stream"),
    ("earlier", "true|false", "Of an earlier stream, which was recreated since"),
    ("reason", "text", "Why, for the audit"),
    ("dry_run", "true|false", "Only tell what would be done"),
    ("confirm", "true|false", "true, where the command line asks whether it is meant"),
    ("expect", "natural", "Where the projection is now; if it is elsewhere, nothing is changed"),
    ("adopt_stream", "true|false", "Go on with a stream that was recreated"),
    ("from_seq", "natural", "From this sequence on"),
    ("to_seq", "natural", "Up to this sequence"),
    ("since", "text", "From this instant on, or an age such as 90m, 2h, 3d; by the stream's clock"),
    ("until", "text", "Before this instant, or an age"),
    ("org", "text", "Of this org"),
    ("board", "key", "Of this board"),
    ("lead", "key", "Of this item"),
    ("sample", "small", "About so many leads, chosen at random"),
    ("swap", "true|false", "Swap at once when the new tables are ready"),
    (
        "allow_masked",
        "true|false",
        "Import a masked file although the stream has events of its orgs that are not masked",
    ),
    ("accept_loss", "true|false", "Rebuild although the stream's beginning is gone"),
    ("id", "key", "An id of the audit"),
    ("mask", "true|false", "Pseudonyms instead of names, texts and addresses"),
    (
        "leadpulse-mask-key",
        "secret",
        "With mask=true: pseudonyms are the same in all files with this key. Without it a key is made up and forgotten",
    ),
    ("compression", "none|zstd", "Without: none"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_an_endpoint_and_every_parameter_is_in_the_dictionary() {
        assert_eq!(all().count(), TABLE.lines().filter(|line| !line.is_empty()).count());
        for endpoint in all() {
            for name in endpoint.parameters {
                assert!(
                    PARAMETERS.iter().any(|known| known.0 == name),
                    "{}: {name}",
                    endpoint.path
                );
            }
        }
        let most = |path| all().find(|endpoint| endpoint.path == path).map(|one| one.most);
        assert_eq!((most("/v1/search"), most("/v1/leads")), (Some(20), Some(200)));
    }
}
