-- What is dropped stays dropped, so no caller's clock decides it alone. CREATE OR REPLACE keeps who may call the function.

-- Drops the partitions of `logs` that ended more than total_days before `moment`, and before now, the oldest first: a
-- caller whose clock is ahead drops nothing that is kept. Returns how many.
--
-- Dropping one locks readers and writers out, so it waits for those who are there, and whoever comes waits behind it:
-- for two seconds at most, less than what a writer bears. If pg_dump reads for longer, nothing is dropped, and the next
-- call tries again. DETACH CONCURRENTLY would lock nobody out, but runs in no function, and so only as the owner of the
-- table: a login of the data plane that may only call this is worth more.
CREATE OR REPLACE FUNCTION public.drop_expired_partitions(tenant_schema text, moment timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '2s' AS $$
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
    FOR expired IN EXECUTE format('SELECT name FROM %I.partitions WHERE ends <= %L ORDER BY ends', tenant_schema,
                                  least(moment, now()) - kept) LOOP
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
