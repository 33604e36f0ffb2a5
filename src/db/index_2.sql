-- outcrop.db, version 2: what a step depends on beside the stack it stands on, so that its result is known elsewhere.

-- The digest of the step's key without its parent; records of an older engine have none.
alter table cache_record add column step blob check (step is null or length(step) = 32);
-- JSON: what the step was seen to read of the stack below. NULL: all of it counts.
alter table cache_record add column reads text check (reads is null or json_valid(reads));
create index cache_record_step on cache_record (step, id) where valid = 1 and step is not null;
