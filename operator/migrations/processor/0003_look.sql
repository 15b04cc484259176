-- What waits in tenants' schemas, of many at a time: facts by which maintain decides whose turn it is. Asking each
-- tenant by itself, as its role and in transactions of its own, costs PostgreSQL many times as much, and nearly
-- always there is nothing to be done. Tells nothing of what a tenant sent. Runs as its owner, who may look into every
-- schema.
--
-- A schema that can't be looked into, such as one of an older version, has no row: its tenant is asked by itself.
-- A spool is looked into as far as `max_rows`.
CREATE FUNCTION public.look_at_tenants(schemas text[], max_rows bigint, settled interval)
RETURNS TABLE (tenant_schema text, archiving boolean, spooled_since timestamptz, spooled_rows bigint,
               spooled_bytes bigint, unindexed boolean, to_redrive boolean, last_usage bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    FOR tenant_schema IN SELECT t.schema_name FROM public.tenant_schemas t WHERE t.schema_name = ANY (schemas) LOOP
        BEGIN
            EXECUTE format($sql$
                SELECT EXISTS (SELECT FROM %1$I.archiving), s.since, s.rows, s.bytes,
                       EXISTS (SELECT FROM %1$I.batches WHERE indexed_at IS NULL AND stored_at <= now() - $2),
                       EXISTS (SELECT FROM %1$I.dead_letters
                               WHERE redrive_at IS NOT NULL AND purged_at IS NULL AND batch_id IS NOT NULL),
                       (SELECT max(ledger_id) FROM %1$I.usage_ledger)
                FROM (SELECT min(created_at) AS since, count(*) AS rows,
                             coalesce(sum(octet_length(frame)), 0)::bigint AS bytes
                      FROM (SELECT created_at, frame FROM %1$I.spool ORDER BY spool_id LIMIT $1) first) s
            $sql$, tenant_schema)
                INTO archiving, spooled_since, spooled_rows, spooled_bytes, unindexed, to_redrive, last_usage
                USING max_rows, settled;
            RETURN NEXT;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION public.look_at_tenants(text[], bigint, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.look_at_tenants(text[], bigint, interval) TO lh_maintain;
