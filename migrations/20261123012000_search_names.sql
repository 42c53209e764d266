-- Search by name: exact, prefix and trigram, over one normal form of the name.

create extension if not exists pg_trgm;
create extension if not exists btree_gin;

-- NFKC, lower case, Hebrew without points and accents; query-api does the same to what is asked for.
-- The ranges are Unicode's Hebrew marks without maqaf (05BE), paseq (05C0) and sof pasuq (05C3), which
-- are no points.
create function search_form(name text) returns text
language sql immutable parallel safe strict
return lower(regexp_replace(normalize(name, nfkc), '[\u0591-\u05BD\u05BF\u05C1\u05C2\u05C4\u05C5\u05C7]', '', 'g'));

-- Leads by a part of the name: three characters and more. Trigrams of one org only: that is what
-- btree_gin is for. An update that leaves the name alone does not touch these indexes.
create index lead_fact_name_trigram on lead_fact using gin (org_id, search_form(name) gin_trgm_ops);
-- Leads by the whole name or its beginning, in any length.
create index lead_fact_name_prefix on lead_fact (org_id, search_form(name) text_pattern_ops);
