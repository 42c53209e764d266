-- Marks of whole agents are few among those of leads, and are taken in portions of their own.
create index agent_dirty_whole on agent_dirty (id) where board_id is null;
