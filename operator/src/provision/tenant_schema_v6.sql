-- Version 6 of a tenant's schema: a spool row that can't be read is set aside, and keeps no other from the archive.
-- Only adds to version 5, so that a data plane of the version before goes on working; every statement may run again.

-- Since when it is set aside, and why: maintain leaves it where it is until nothing of its time is kept any more.
ALTER TABLE {schema}.spool ADD COLUMN IF NOT EXISTS unreadable_at timestamptz;
ALTER TABLE {schema}.spool ADD COLUMN IF NOT EXISTS unreadable text;
CREATE INDEX IF NOT EXISTS spool_unreadable ON {schema}.spool (spool_id) WHERE unreadable_at IS NOT NULL;
