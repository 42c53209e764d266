-- Leads listed by their last activity: without an index each page read and sorted all leads of the org.
--
-- An index on `last_activity_at` itself would be written by nearly every event, and an update that touches one index
-- touches all nine. Measured, 50,000 rows in batches of 2,000: 35,000 updates a second without it, 5,000 with it.
-- So the index is on the week of the last activity. A page goes through the weeks and sorts within one (an
-- incremental sort, which keeps no more than the page), and an update within the week touches no index: 30,000 a
-- second. One that begins a new week costs as much as with the other index; a lead does that a few times in its
-- life, in which it has some 25 events.
create function week_of(at timestamptz) returns date
language sql immutable parallel safe strict
return date_trunc('week', at at time zone 'UTC')::date;

-- The prefix index gets the ids at its end: of thousands of leads with one beginning or one name, a search finds
-- always the same first ones and reads no more than it shows. Ids never change, so no update costs more.
--
-- What a rebuild keeps beside the tables takes their place as it is: it gets the same column and indexes.
do $$
declare
    place text;
begin
    foreach place in array array['public', 'leadpulse_shadow', 'leadpulse_archive'] loop
        continue when to_regclass(place || '.lead_fact') is null;
        execute format(
            'alter table %I.lead_fact add column last_activity_week date
                 generated always as (public.week_of(last_activity_at)) stored', place);
        execute format(
            'create index lead_fact_last_activity on %I.lead_fact (org_id, last_activity_week)
                 where last_activity_week is not null', place);
        execute format('drop index if exists %I.lead_fact_name_prefix', place);
        execute format(
            'create index lead_fact_name_prefix on %I.lead_fact
                 (org_id, search_form(name) text_pattern_ops, board_id, item_id)', place);
    end loop;
end $$;
