-- Version 7 of a tenant's schema: search reads it by a role of its own, which writes nothing but marks on dead letters.
-- `{reader}` is replaced by that role's checked name. Only adds to version 6, so that a data plane of the version before
-- goes on working; every statement may run again.

-- Whatever somebody gave it.
REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {reader};

GRANT USAGE ON SCHEMA {schema} TO {reader};
GRANT SELECT ON {schema}.logs, {schema}.batches, {schema}.objects, {schema}.spool, {schema}.dead_letters TO {reader};
-- To be tried again, or purged.
GRANT UPDATE (redrive_at, purged_at, raw) ON {schema}.dead_letters TO {reader};
