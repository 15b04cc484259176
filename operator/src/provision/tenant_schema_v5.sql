-- Version 5 of a tenant's schema: an object of the archive is deleted without a look at every batch. Takes a
-- constraint that no version of the data plane relies on, so that one of the version before goes on working; every
-- statement may run again.

-- To check it, PostgreSQL read all batches for each object that was deleted, for want of an index that every batch would
-- have to pay for. maintain deletes an object's row once no batch as old as it is left.
ALTER TABLE {schema}.batches DROP CONSTRAINT IF EXISTS batches_object_id_fkey;
