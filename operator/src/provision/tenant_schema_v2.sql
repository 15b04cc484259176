-- Version 2 of a tenant's schema: dead letters can be listed, sent through again and purged, and a
-- batch says which other one has its Idempotency-Key. Only adds to version 1, so that a data plane
-- of the version before goes on working; every statement may run again.

-- Where the batch's Idempotency-Key was another batch's first: that one's id, which is also the id
-- that its client was told.
ALTER TABLE {schema}.batches ADD COLUMN IF NOT EXISTS first_batch_id uuid;
CREATE INDEX IF NOT EXISTS batches_by_first ON {schema}.batches (first_batch_id) WHERE first_batch_id IS NOT NULL;

-- How often the line was tried.
ALTER TABLE {schema}.dead_letters ADD COLUMN IF NOT EXISTS attempts integer NOT NULL DEFAULT 1;
-- When it was tried last, if more than once.
ALTER TABLE {schema}.dead_letters ADD COLUMN IF NOT EXISTS retried_at timestamptz;
-- Since when it is to be tried again: maintain does it and sets this back.
ALTER TABLE {schema}.dead_letters ADD COLUMN IF NOT EXISTS redrive_at timestamptz;
-- How often that was begun and not ended: a line that kills whoever looks at it is left alone.
ALTER TABLE {schema}.dead_letters ADD COLUMN IF NOT EXISTS redrive_starts integer NOT NULL DEFAULT 0;
-- When its tenant had enough of it. The row stays as long as its batch, because late indexing must
-- go on knowing that this line of the batch is no event.
ALTER TABLE {schema}.dead_letters ADD COLUMN IF NOT EXISTS purged_at timestamptz;
CREATE INDEX IF NOT EXISTS dead_letters_newest_first ON {schema}.dead_letters (created_at DESC, event_id DESC);
CREATE INDEX IF NOT EXISTS dead_letters_to_redrive ON {schema}.dead_letters (redrive_at) WHERE redrive_at IS NOT NULL;
