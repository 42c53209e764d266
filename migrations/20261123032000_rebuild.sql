-- Rebuilding the read models from the stream, beside the live ones (`projector rebuild`).

-- One rebuild: what it is about, how far it is, and who works on it. What a crash must not lose stands here.
create table rebuild (
    id                bigint      generated always as identity primary key,
    phase             text        not null check (phase in (
                          'folding', 'indexing', 'checking', 'catching_up', 'ready',
                          'swapped', 'rolled_back', 'aborted')),
    -- Each process that takes the rebuild over raises it: a former one that froze writes nothing any more.
    attempt           bigint      not null default 1,
    worker            text        not null,
    heartbeat_at      timestamptz not null default now(),
    started_by        text        not null,
    started_at        timestamptz not null default now(),
    phase_at          timestamptz not null default now(),
    stream            text        not null,
    stream_created_at timestamptz not null,
    -- The stream's first sequence and its end when the rebuild began: what is folded in memory.
    from_seq          bigint      not null,
    target_seq        bigint      not null,
    read_seq          bigint      not null default 0,
    passes            integer     not null default 0,
    -- Leads whose bucket is below this are in the shadow table.
    next_bucket       integer     not null default 0,
    leads             bigint      not null default 0,
    -- Over key and state of every copied lead, in no order: what the shadow table is checked against.
    checksum          bigint      not null default 0,
    peak_memory_bytes bigint      not null default 0,
    mapping_hash      text        not null,
    schema_version    bigint      not null,
    swapped_at        timestamptz,
    swapped_seq       bigint,
    swap_lock_ms      double precision,
    swap_tries        integer
);
-- Two rebuilds would build the same shadow tables: the second operator is told no by this.
create unique index rebuild_one_at_a_time on rebuild ((true))
    where phase in ('folding', 'indexing', 'checking', 'catching_up', 'ready');

-- The mapping that the read models were made with, so that a projector with another one can say so.
create table projection_mapping (
    projection text        primary key,
    hash       text        not null,
    -- The one of the tables that were swapped out: a rollback brings it back.
    previous   text,
    since      timestamptz not null default now()
);
