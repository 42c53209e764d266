-- What operators do to a running projection, and the record of it (`projector --help`, `/ops`).

-- How often an operator changed rows or dead letters of the projection from outside. A lane moves its
-- position only while this is what it knows: what it remembers of leads would overwrite the repair.
alter table checkpoint add column repairs bigint not null default 0;

-- A projection that must stand still, whoever owns it and however often it is started.
create table projection_pause (
    projection text        primary key,
    paused_at  timestamptz not null default now(),
    paused_by  text        not null,
    reason     text        not null
);

-- Everything that changed something: who, when, what, why, and what came of it. Append-only but for the end.
create table operator_audit (
    id         bigint      generated always as identity primary key,
    -- The org of the key, for what came through the API; null for the command line.
    org_id     text,
    who        text        not null,
    command    text        not null,
    arguments  jsonb       not null,
    reason     text,
    started_at timestamptz not null default now(),
    -- Null while it goes on, and for ever if its process was killed.
    ended_at   timestamptz,
    succeeded  boolean,
    result     jsonb
);
-- The record of one org, newest first, for its own console.
create index operator_audit_org on operator_audit (org_id, id) where org_id is not null;
