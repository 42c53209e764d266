-- How many of the versions were raised for AgentMetrics alone: the rest is about leads as well. A projector that
-- does not know this column raises for both.
alter table org_version add column of_metrics bigint not null default 0;
