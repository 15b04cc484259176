-- The same as before, but spool rows that are set aside because they can't be read (version 6 of a tenant's schema) wait
-- for nothing. In a schema of an older version, `unreadable_at` is the outer one. CREATE OR REPLACE keeps who may call it.
CREATE OR REPLACE FUNCTION public.look_at_tenants(schemas text[], max_rows bigint, settled interval)
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
                      FROM (SELECT NULL::timestamptz AS unreadable_at) AS before
                      CROSS JOIN LATERAL (SELECT created_at, frame FROM %1$I.spool WHERE unreadable_at IS NULL
                                          ORDER BY spool_id LIMIT $1) AS first) s
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
