-- The read models of spec.md and what the projector needs to keep them exact.
-- Only the projector migrates. Names are alike wherever a thing is the same, so that joins say `using`.

-- One lead: a function of the set of its events (spec.md §2).
create table lead_fact (
    org_id            text        not null,
    board_id          bigint      not null,
    item_id           bigint      not null,
    name              text,
    group_id          text,
    status_id         bigint,
    status_label      text,
    assigned_user_id  bigint,
    assigned_at       timestamptz,
    deal_amount       numeric,
    industry          text,
    next_call_date    date,
    entered_at        timestamptz not null,
    entered_source    text        not null check (entered_source in ('api', 'created', 'first_seen')),
    first_touch_at    timestamptz,
    last_activity_at  timestamptz,
    state             text        not null check (state in ('open', 'won', 'lost')),
    closed_won_at     timestamptz,
    closed_lost_at    timestamptz,
    closed_by_user_id bigint,
    lifecycle         text        not null check (lifecycle in ('active', 'archived', 'deleted')),
    last_event_at     timestamptz not null,
    last_seq          bigint      not null,
    -- The W3C trace of the event with `last_seq`: from a row back to the webhook's log lines.
    trace_id          uuid,
    -- What the fold remembers beyond the columns (every owner and status write, the stamps of the
    -- last writers), so that a late event changes the row exactly as if it had come in time.
    fold_state        bytea       not null,
    primary key (org_id, board_id, item_id)
);

-- Each index costs the projector on every upsert; each names the reads that pay for it.

-- Leads listed by entry, KPIs of a window (cohort), the time series of entries.
create index lead_fact_entered on lead_fact (org_id, entered_at, board_id, item_id);
-- Leads listed by first touch.
create index lead_fact_first_touch on lead_fact (org_id, first_touch_at, board_id, item_id)
    where first_touch_at is not null;
-- Leads listed by win, KPIs of a period (closed won, revenue), the time series of wins.
create index lead_fact_closed_won on lead_fact (org_id, closed_won_at, board_id, item_id)
    where closed_won_at is not null;
-- An agent's cohort, open leads and last activity (AgentMetrics), an agent's leads by entry.
create index lead_fact_agent_entered on lead_fact (org_id, assigned_user_id, entered_at)
    where assigned_user_id is not null;
-- An agent's wins (AgentMetrics: closed won, revenue, hot deals, last win).
create index lead_fact_agent_closed_won on lead_fact (org_id, closed_by_user_id, closed_won_at)
    where closed_by_user_id is not null;

-- One agent over one window (spec.md §3). Right until `valid_until`, null = until an event says otherwise.
create table agent_metrics (
    org_id                       text        not null,
    agent_id                     bigint      not null,
    window_days                  integer     not null,
    assigned_count               bigint      not null,
    touched_count                bigint      not null,
    cohort_won_count             bigint      not null,
    conversion_rate              double precision,
    closed_won_count             bigint      not null,
    period_conversion_rate       double precision,
    deals_amount_sum             numeric     not null,
    deals_amount_count           bigint      not null,
    avg_deal_size                numeric,
    median_response_seconds      double precision,
    median_time_to_close_seconds double precision,
    time_to_close_count          bigint      not null,
    hot_deals_count              bigint      not null,
    is_hot                       boolean     not null,
    last_win_at                  timestamptz,
    last_activity_at             timestamptz,
    active_leads                 bigint      not null,
    -- {"finance": {"assigned": 3, "cohort_won": 1, "closed_won": 1, "amount_sum": "12500.5"}, …}
    industries                   jsonb       not null,
    computed_at                  timestamptz not null,
    valid_until                  timestamptz,
    primary key (org_id, agent_id, window_days)
);

-- The leaderboard: all agents of one window.
create index agent_metrics_window on agent_metrics (org_id, window_days);
-- The timer: rows whose instant has come.
create index agent_metrics_valid_until on agent_metrics (valid_until) where valid_until is not null;

-- Agents to recompute. Append-only, so that two lanes that touch one agent never wait for each other;
-- the worker deletes what it takes. `seq` is the first event of the batch that touched the agent:
-- a read with `min_seq` waits while a mark at or below it stands.
create table agent_dirty (
    id        bigint generated always as identity primary key,
    org_id    text        not null,
    agent_id  bigint      not null,
    seq       bigint      not null,
    marked_at timestamptz not null default now()
);

-- The users of the org as `user_snapshot` events tell them (spec.md §4): the last one wins.
create table monday_user (
    org_id      text        not null,
    user_id     bigint      not null,
    name        text,
    email       text,
    kind        text,
    status      text,
    occurred_at timestamptz not null,
    event_id    text        not null,
    last_seq    bigint      not null,
    primary key (org_id, user_id)
);

-- Where each lane of a projection stands. The stream's identity stands beside the position:
-- a recreated stream starts again at 1 and must be a fault, never a silent skip.
create table checkpoint (
    projection        text        not null,
    lane              integer     not null,
    stream            text        not null,
    stream_created_at timestamptz not null,
    seq               bigint      not null,
    fence             bigint      not null,
    updated_at        timestamptz not null default now(),
    primary key (projection, lane)
);

-- Who may write. Taking the lease raises the fence; an owner that froze and thaws holds an old one.
create table projection_lease (
    projection text        primary key,
    owner      text        not null,
    fence      bigint      not null,
    expires_at timestamptz not null
);

-- Events that can never be applied, and the later ones of the same lead, kept in order.
create table dead_letter (
    projection  text        not null,
    seq         bigint      not null,
    org_id      text,
    board_id    bigint,
    item_id     bigint,
    event_id    text,
    kind        text,
    -- Why: the fault itself, or that an earlier event of the lead is parked.
    reason      text        not null,
    payload     bytea       not null,
    trace_id    uuid,
    parked_at   timestamptz not null default now(),
    -- An operator wants the lead's letters applied again; its lane does it, all of them in order.
    retry_requested_at timestamptz,
    resolved_at timestamptz,
    resolution  text,
    primary key (projection, seq)
);
-- Is this lead parked? Asked once for each batch, of the few rows that are unresolved.
create index dead_letter_parked on dead_letter (projection, org_id, board_id, item_id) where resolved_at is null;

-- The version of an org's read models: raised after commit, debounced; the key of every cached answer.
create table org_version (
    org_id     text        primary key,
    version    bigint      not null,
    updated_at timestamptz not null default now()
);

-- API keys of query-api. The key itself is shown once and never stored.
create table api_key (
    id           uuid        primary key,
    org_id       text        not null,
    name         text        not null,
    prefix       text        not null,
    hash         bytea       not null unique,
    scopes       text[]      not null,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);

-- Secrets that every instance of a service must share and no person needs to know.
create table instance_secret (
    name   text  primary key,
    secret bytea not null
);
-- Signs the cursors of query-api: gen_random_uuid() draws from the operating system's generator.
insert into instance_secret (name, secret)
values ('cursor', sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));
