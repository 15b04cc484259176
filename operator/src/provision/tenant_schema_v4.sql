-- Version 4 of a tenant's schema: its role no longer writes what is others' to write. Takes rights that no
-- version of the data plane ever used, so that one of the version before goes on working; every statement
-- may run again.

-- What is listed here is dropped when it is old, by a function that may drop: only that function's owner writes it.
REVOKE INSERT, UPDATE, DELETE ON {schema}.partitions FROM {role};
-- What was billed is not changed. It is deleted when it is counted and old.
REVOKE UPDATE ON {schema}.usage_ledger FROM {role};
