-- What dashboards ask most, kept by the instances of query-api for the next one that starts: it answers
-- these before it says that it is ready. Losing it costs some slow reads after a start, no more.
create table hot_read (
    org_id     text             not null,
    -- Which read, and its parameters in one spelling.
    family     text             not null,
    question   text             not null,
    -- Asked by somebody who may see personal data: another answer.
    pii        boolean          not null,
    per_second double precision not null,
    asked_at   timestamptz      not null,
    primary key (org_id, family, question, pii)
);
