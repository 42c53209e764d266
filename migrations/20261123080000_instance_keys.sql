-- A key without an org is of the whole instance. It runs its operators' commands (`/ops/instance`) and
-- reads no org's figures; the constraint keeps each of the two scopes' worlds from the other.
alter table api_key alter column org_id drop not null;
alter table api_key add constraint api_key_of_org_or_instance check (
    case when org_id is null then scopes = array['ops:instance'] else not 'ops:instance' = any (scopes) end
);
