-- Version 3 of a tenant's schema: a batch says how many of its lines its pipeline's stages dropped. Only
-- adds to version 2, so that a data plane of the version before goes on working; every statement may run
-- again.

ALTER TABLE {schema}.batches ADD COLUMN IF NOT EXISTS dropped integer NOT NULL DEFAULT 0;
