-- maintain moves a series on, and decides nothing else about it.
REVOKE UPDATE ON public.index_series FROM lh_maintain;
GRANT UPDATE (write_number, updated_at) ON public.index_series TO lh_maintain;

-- The same as before, but it drops partitions of `logs` only: whoever could write the table `partitions` could
-- have named any table of the schema. CREATE OR REPLACE keeps who may call it.
CREATE OR REPLACE FUNCTION public.drop_expired_partitions(tenant_schema text, moment timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept    interval;
    expired record;
    dropped integer := 0;
BEGIN
    SELECT make_interval(days => total_days) INTO kept FROM public.tenant_schemas WHERE schema_name = tenant_schema;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no tenant schema %', tenant_schema USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('partitions:' || tenant_schema, 0));
    FOR expired IN EXECUTE format('SELECT name FROM %I.partitions WHERE ends <= %L', tenant_schema, moment - kept) LOOP
        IF EXISTS (SELECT FROM pg_inherits
                   WHERE inhrelid = to_regclass(format('%I.%I', tenant_schema, expired.name))
                     AND inhparent = to_regclass(format('%I.logs', tenant_schema))) THEN
            EXECUTE format('DROP TABLE %I.%I', tenant_schema, expired.name);
            dropped := dropped + 1;
        END IF;
        EXECUTE format('DELETE FROM %I.partitions WHERE name = %L', tenant_schema, expired.name);
    END LOOP;
    RETURN dropped;
END
$$;
