-- Which lead of the agent changed, where the mark is about one: the worker remembers agents' leads and reads
-- only those again. Null in both: anything about the agent may have changed, and all of its leads are read.
-- Marks of the code before have null, so the two versions of a rollout work on one table.
alter table agent_dirty add column board_id bigint, add column item_id bigint;
-- What a rebuild keeps beside the tables has marks of its own, which the same code takes.
alter table if exists leadpulse_shadow.agent_dirty add column board_id bigint, add column item_id bigint;
alter table if exists leadpulse_archive.agent_dirty add column board_id bigint, add column item_id bigint;
