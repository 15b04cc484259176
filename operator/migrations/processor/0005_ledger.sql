-- What was billed is deleted by nobody but through this: tenants' roles, as which processors and search work, lose the
-- right to do it themselves (version 5 of a tenant's schema).

-- Deletes at most `max_rows` rows of a tenant's ledger, from its oldest end, that are counted (up to number `counted`),
-- were accepted before `before`, and are kept no longer by this clock. Returns how many.
CREATE FUNCTION public.delete_counted_usage(tenant_schema text, before timestamptz, counted bigint, max_rows bigint)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    kept    interval;
    deleted bigint;
BEGIN
    SELECT make_interval(days => total_days) INTO kept FROM public.tenant_schemas WHERE schema_name = tenant_schema;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no tenant schema %', tenant_schema USING ERRCODE = 'undefined_object';
    END IF;
    -- By number, which is nearly the order of acceptance: as far as the oldest ones are old.
    EXECUTE format($sql$
        DELETE FROM %1$I.usage_ledger WHERE ledger_id IN
            (SELECT ledger_id FROM (SELECT ledger_id, accepted_at FROM %1$I.usage_ledger WHERE ledger_id <= $2
                                    ORDER BY ledger_id LIMIT $3) AS oldest WHERE accepted_at < $1)
    $sql$, tenant_schema) USING least(before, now() - kept), counted, max_rows;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

REVOKE ALL ON FUNCTION public.delete_counted_usage(text, timestamptz, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.delete_counted_usage(text, timestamptz, bigint, bigint) TO lh_maintain;
