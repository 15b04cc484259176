-- Version 5 of a tenant's schema: an object of the archive is deleted without a look at every batch, and its role no
-- longer deletes what was billed. A maintain of the version before sums up no usage and deletes nothing that is
-- expired, until its upgrade, or until the operator's rollback has given the right back; every statement may run again.

-- To check it, PostgreSQL read all batches for each object that was deleted, for want of an index that every batch would
-- have to pay for. maintain deletes an object's row once no batch as old as it is left.
ALTER TABLE {schema}.batches DROP CONSTRAINT IF EXISTS batches_object_id_fkey;

-- Deleted when it is counted and old: by public.delete_counted_usage.
REVOKE DELETE ON {schema}.usage_ledger FROM {role};
