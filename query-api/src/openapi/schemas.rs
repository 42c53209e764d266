//! The forms of the answers, written as `name:kind` words. A `?` after a kind says that it may be null,
//! `#Name` is another form, `[kind]` a list, `{kind}` a map.

use serde_json::{Map, Value, json};

const FIGURES: &str = "assigned_count:int touched_count:int cohort_won_count:int conversion_rate:num? \
    conversion_rate_n:int closed_won_count:int period_conversion_rate:num? period_conversion_rate_n:int \
    deals_amount_sum:money deals_amount_count:int avg_deal_size:money? avg_deal_size_n:int \
    median_response_seconds:num? median_response_seconds_n:int median_time_to_close_seconds:num? \
    median_time_to_close_seconds_n:int time_to_close_count:int";

const METRICS: &str = "agent_id:id agent_name:str window_days:int hot_deals_count:int is_hot:bool \
    last_win_at:at? hours_since_last_win:num? last_activity_at:at? hours_since_last_activity:num? \
    burnout_score:num active_leads:int industries:{#IndustryShare}";

const SCHEMAS: &[(&str, &[&str])] = &[
    (
        "Lead",
        &["board_id:id item_id:id name:str? group_id:str? status_id:id? status_label:str? \
        assigned_user_id:id? agent_name:str? assigned_at:at? deal_amount:money? industry:str? \
        next_call_date:date? entered_at:at entered_source:api|created|first_seen first_touch_at:at? \
        response_seconds:num? last_activity_at:at? state:open|won|lost closed_won_at:at? \
        time_to_close_seconds:num? closed_lost_at:at? closed_by_user_id:id? \
        lifecycle:active|archived|deleted last_event_at:at last_seq:int trace_id:str?"],
    ),
    ("LeadPage", &["items:[#Lead] next_cursor:str? count:int!"]),
    (
        "Happened",
        &[
            "what:created|imported|first_seen|renamed|moved|assigned|status_changed|amount_changed|industry_changed|next_call_changed|touched|won|lost|reopened|archived|deleted|restored|commented \
        from:str? to:str? occurred_at:at seq:int actor_id:id? actor_name:str? seconds_since_previous:num?",
        ],
    ),
    ("Timeline", &["items:[#Happened] next_cursor:str? complete:bool"]),
    ("IndustryShare", &["assigned:int cohort_won:int closed_won:int amount_sum:money"]),
    ("AgentMetrics", &[METRICS, FIGURES]),
    ("Agent", &["agent_id:id agent_name:str as_of:at windows:[#AgentMetrics]"]),
    ("AgentPage", &["items:[#Agent] next_cursor:str?"]),
    ("Ranked", &["rank:int", METRICS, FIGURES]),
    ("Best", &["agent_id:id agent_name:str metric:str value:any n:int"]),
    (
        "Leaderboard",
        &["window:str window_days:int as_of:at sort:str order:desc|asc min_n:int total:int \
        items:[#Ranked] top_performer:#Best? top_revenue:#Best? fastest_closer:#Best? most_active:#Best?"],
    ),
    ("Figures", &[FIGURES]),
    (
        "Summary",
        &["from:at to:at window:str! as_of:at current:#Figures previous:#Figures? delta:#Delta?"],
    ),
    (
        "Steps",
        &[
            "entered_count:int touched_count:int won_count:int touched_rate:num? touched_rate_n:int \
        won_rate:num? won_rate_n:int touched_to_won_rate:num? touched_to_won_rate_n:int",
        ],
    ),
    ("Funnel", &["from:at to:at as_of:at current:#Steps previous:#Steps?"]),
    (
        "Delta",
        &[
            "assigned_count:int touched_count:int cohort_won_count:int conversion_rate:num? closed_won_count:int \
        period_conversion_rate:num? deals_amount_sum:money deals_amount_count:int avg_deal_size:money? \
        median_response_seconds:num? median_time_to_close_seconds:num? time_to_close_count:int",
        ],
    ),
    (
        "Point",
        &[
            "bucket:date start:at end:at partial:bool assigned_count:int! touched_count:int! cohort_won_count:int! \
        conversion_rate:num?! conversion_rate_n:int! closed_won_count:int! period_conversion_rate:num?! \
        period_conversion_rate_n:int! deals_amount_sum:money! avg_deal_size:money?! avg_deal_size_n:int! \
        median_response_seconds:num?! median_response_seconds_n:int! median_time_to_close_seconds:num?! \
        median_time_to_close_seconds_n:int!",
        ],
    ),
    ("Series", &["group:str? points:[#Point]"]),
    (
        "Timeseries",
        &["bucket:day|week|month group_by:none|agent|industry|board time_zone:str from:at to:at \
        as_of:at series:[#Series]"],
    ),
    ("Industry", &["industry:str", FIGURES]),
    ("Industries", &["window:str window_days:int as_of:at items:[#Industry]"]),
    (
        "Hit",
        &[
            "type:agent|lead name:str match:exact|prefix|trigram agent_id:id! board_id:id! item_id:id!",
        ],
    ),
    ("Hits", &["items:[#Hit]"]),
    ("User", &["user_id:id name:str? email:str! kind:str? status:str?"]),
    (
        "Any",
        &[
            "letters:int! leads:int! still_waiting:int! requested:int! applied:int! refused:int! published:int! \
        refusals:[any]!",
        ],
    ),
    ("Finding", &["what:str cure:str"]),
    ("Limit", &["what:str used:int most:int"]),
    ("Consumer", &["name:str description:str? delivered_seq:int pending:int abandoned:bool"]),
    (
        "StreamStatus",
        &[
            "name:str created_at:at first_seq:int last_seq:int messages:int bytes:int limits:[#Limit] \
        consumers:[#Consumer]",
        ],
    ),
    ("Owner", &["owner:str fence:int expires_at:at alive:bool"]),
    (
        "ProjectionStatus",
        &[
            "applied_seq:int lanes:[#Lane] owner:#Owner? paused:#Pause? fault:#ProjectionFault? parked_leads:int parked_letters:int \
        unreadable_letters:int dirty_agents:int oldest_mark_seconds:num? stale_rows:int \
        mapping_of_tables:str? mapping_of_configuration:str rebuild:str?",
        ],
    ),
    ("ProjectionFault", &["since:at seq:int what:str"]),
    ("Lag", &["events:int seconds:num?"]),
    ("Rates", &["arriving_per_second:num applied_per_second:num"]),
    ("Monitor", &["well:bool? said:str?"]),
    (
        "OpsStatus",
        &["at:at stream:#StreamStatus? projection:#ProjectionStatus? lag:#Lag? rates:#Rates? \
        monitor:#Monitor? findings:[#Finding]"],
    ),
    (
        "LetterGroup",
        &[
            "error:str org_id:str? board_id:id? earlier_stream:bool letters:int leads:int first_seq:int last_seq:int \
        first_parked_at:at last_parked_at:at",
        ],
    ),
    ("LetterGroups", &["items:[#LetterGroup]"]),
    (
        "Letter",
        &[
            "seq:int stream_created_at:at earlier_stream:bool org_id:str? board_id:id? item_id:id? event_id:str? kind:str? error:str parked_at:at \
        retry_requested_at:at? resolved_at:at? resolution:str? trace_id:str? payload:any waiting_of_lead:[int]",
        ],
    ),
    (
        "Repaired",
        &[
            "dry_run:bool from_seq:int to_seq:int events:int leads:int lead_changes:[any] user_changes:[any] \
        agent_changes:[any] at:at",
        ],
    ),
    (
        "ExplainedLead",
        &["org_id:str board_id:id item_id:id events:int left_out:int fields:[any] agrees:bool"],
    ),
    (
        "ExplainedAgent",
        &[
            "org_id:str agent_id:id window_days:int metric:str at:at value:any stored:any stored_at:at? \
        means:str leads:[any]",
        ],
    ),
    (
        "AuditEntry",
        &["id:int who:str command:str arguments:any reason:str? started_at:at ended_at:at? \
        succeeded:bool? result:any progress:#Progress?!"],
    ),
    ("Progress", &["what:str done:int total:int"]),
    ("Audit", &["items:[#AuditEntry]"]),
    ("Begun", &["id:int href:str"]),
    ("Lane", &["lane:int seq:int fence:int updated_at:at"]),
    ("Checkpoint", &["applied_seq:int stream_created_at:at? lanes:[#Lane]"]),
    ("Moved", &["from_seq:int to_seq:int again:int skipped:int fence:int stream_adopted:bool"]),
    ("Pause", &["paused_at:at paused_by:str reason:str"]),
    ("Resumed", &["lifted:#Pause?"]),
    ("Dropped", &["dropped:bool"]),
    (
        "Rebuild",
        &[
            "id:int phase:str over:bool started_by:str started_at:at phase_since:at heartbeat_at:at attempt:int \
        target_seq:int read_seq:int passes:int leads:int peak_memory_bytes:int mapping:str swapped_at:at? \
        swapped_seq:int? swap_lock_ms:num? swap_tries:int?",
        ],
    ),
    ("LastRebuild", &["rebuild:#Rebuild?"]),
    (
        "RebuildPlan",
        &[
            "first_seq:int last_seq:int events:int leads:int events_per_second:num passes:int? memory_mib:int expected_seconds:num bytes:int \
        mapping_of_tables:str? mapping_of_today:str sampled_rows:int differing_rows:int obstacles:[str]",
        ],
    ),
    ("UserPage", &["items:[#User] next_cursor:str?"]),
    ("Status", &["board_id:id status_id:id? status_label:str? leads:int"]),
    ("Labels", &["ids:[id] texts:[str]"]),
    ("Columns", &["owner:str? status:str? amount:str? industry:str? next_call:str?"]),
    (
        "Board",
        &["board_id:id name:str? columns:#Columns contacted:#Labels won:#Labels lost:#Labels"],
    ),
    ("HotRule", &["window_hours:int min_deals:int"]),
    (
        "Meta",
        &["org:str time_zone:str windows:[str] hot:#HotRule boards:[#Board] industries:[str] \
        industries_complete:bool statuses:[#Status] statuses_complete:bool"],
    ),
    (
        "Consistency",
        &["applied_seq:int head_seq:int? lag_events:int? lag_seconds:num? reached:bool as_of:at"],
    ),
    (
        "Outcome",
        &[
            "assigned:int closedWon:int conversionRate:num? medianTimeToCloseDays:num? revenue:num? avgDeal:num?",
        ],
    ),
    (
        "AgentOutcome",
        &["agentUserId:id agentName:str assigned:int closedWon:int conversionRate:num? \
        medianTimeToCloseDays:num? revenue:num? avgDeal:num?"],
    ),
    (
        "Outcomes",
        &["ok:bool windowDays:int mode:cohort boardId:id? kpis:#Outcome perAgent:[#AgentOutcome]"],
    ),
    ("Refusal", &["ok:bool error:str"]),
    ("Fault", &["parameter:str detail:str"]),
    (
        "Problem",
        &[
            "type:str title:str status:int detail:str request_id:str errors:[#Fault]! min_seq:int! applied_seq:int!",
        ],
    ),
];

pub(super) fn all() -> Map<String, Value> {
    SCHEMAS.iter().map(|(name, words)| ((*name).to_owned(), object(&words.join(" ")))).collect()
}

/// A `!` after a kind says that the field may be absent.
fn object(words: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for word in words.split_whitespace() {
        let (name, text) = word.split_once(':').unwrap_or((word, "any"));
        match text.strip_suffix('!') {
            Some(text) => properties.insert(name.to_owned(), kind(text)),
            None => {
                required.push(name);
                properties.insert(name.to_owned(), kind(text))
            }
        };
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

pub(super) fn kind(text: &str) -> Value {
    if let Some(text) = text.strip_suffix('?') {
        return json!({ "oneOf": [kind(text), { "type": "null" }] });
    }
    let inner = |open, close| text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
    if let Some(name) = text.strip_prefix('#') {
        return json!({ "$ref": format!("#/components/schemas/{name}") });
    }
    if let Some(item) = inner('[', ']') {
        return json!({ "type": "array", "items": kind(item) });
    }
    if let Some(value) = inner('{', '}') {
        return json!({ "type": "object", "additionalProperties": kind(value) });
    }
    match text {
        "any" => json!({}),
        "int" => json!({ "type": "integer" }),
        "num" => json!({ "type": "number" }),
        "bool" => json!({ "type": "boolean" }),
        "str" => json!({ "type": "string" }),
        "id" => json!({ "type": "string", "pattern": "^-?[0-9]+$" }),
        "money" => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]*[1-9])?$" }),
        "at" => json!({ "type": "string", "format": "date-time" }),
        "date" => json!({ "type": "string", "format": "date" }),
        // Of parameters only.
        "key" => json!({ "type": "string", "pattern": "^-?[0-9]{1,18}$" }),
        "amount" => json!({ "type": "string", "pattern": "^[0-9]{1,20}(\\.[0-9]{1,6})?$" }),
        "text" => json!({ "type": "string", "minLength": 1, "maxLength": 100, "pattern": "\\S" }),
        "window" => json!({ "type": "string", "pattern": "^[1-9][0-9]{0,3}d$" }),
        "secret" => {
            json!({ "type": "string", "minLength": 16, "maxLength": 200, "pattern": "^[!-~]+$" })
        }
        "cursor" => json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+$" }),
        "natural" => json!({ "type": "integer", "minimum": 0 }),
        "small" => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        "wait" => json!({ "type": "integer", "minimum": 0, "maximum": 5000 }),
        "instant" => json!({ "oneOf": [
            { "type": "string", "format": "date-time" },
            { "type": "string", "format": "date" },
        ] }),
        words => json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_a_name_of_its_own() {
        assert_eq!(all().len(), SCHEMAS.len());
    }
}
