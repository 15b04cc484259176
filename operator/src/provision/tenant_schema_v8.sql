-- Version 8 of a tenant's schema: the tenant's reader reads what the tenant is billed for. Only adds to version 7, so that
-- a data plane of the version before goes on working; every statement may run again.

GRANT SELECT ON {schema}.usage_ledger TO {reader};
