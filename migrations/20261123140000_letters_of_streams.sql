-- A letter's sequence says which event it is only together with the stream: in a stream that was recreated
-- the same sequence is another event's. What stands here is of the stream that the projection stands in.
-- A projector of the version before that has something to park ends its attempt and waits for the new one.
-- What a rebuild keeps beside its tables has letters of its own, which the same code takes.
do $$
declare
    place text;
begin
    foreach place in array array['public', 'leadpulse_shadow', 'leadpulse_archive'] loop
        continue when to_regclass(place || '.dead_letter') is null;
        execute format('alter table %I.dead_letter add column stream_created_at timestamptz', place);
        execute format(
            'update %1$I.dead_letter set stream_created_at = coalesce(
                 (select min(c.stream_created_at) from %1$I.checkpoint c where c.projection = dead_letter.projection),
                 ''epoch'')', place);
        execute format(
            'alter table %I.dead_letter alter column stream_created_at set not null,
                 drop constraint dead_letter_pkey, add primary key (projection, stream_created_at, seq)', place);
    end loop;
end $$;
