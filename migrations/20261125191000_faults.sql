-- Why the projection stands still although a projector runs, which only its log and its health told: for
-- `projector status`, and for the projector that is started next, which is not ready before it is past it.
create table projection_fault (
    projection text        primary key,
    since      timestamptz not null default now(),
    -- The projection is past it when it has everything up to here.
    seq        bigint      not null,
    what       text        not null
);
