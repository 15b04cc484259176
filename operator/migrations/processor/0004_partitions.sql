-- Partitions: nobody waits behind one that is made or dropped, whatever reads the table meanwhile, every moment that a
-- tenant keeps has one, and no caller's clock decides alone what is dropped. CREATE OR REPLACE keeps who may call the
-- functions.

-- Makes the partitions from the oldest moment that is kept, or from `moment` if that is older, to three after that of
-- `moment`: so one that can't be made now is no reason to hurry. Fills holes; ranges begin at whole multiples of the
-- width, and never overlap one that is there, also after the width has changed. The table `partitions` is made to agree
-- with the catalog first. Returns how many were made.
--
-- Each is made beside the table and attached, which waits for no reader and no writer, pg_dump and an anti-wraparound
-- vacuum included, and makes none wait. PARTITION OF would lock them all out, and stand before them in the queue for as
-- long as the dump takes. What else may hold the table's lock (another schema change) is waited for for two seconds.
CREATE OR REPLACE FUNCTION public.ensure_partitions(tenant_schema text, moment timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '2s' AS $$
DECLARE
    days     integer;
    kept     interval;
    width    interval;
    begins   timestamptz;
    ends     timestamptz;
    until    timestamptz;
    found_at timestamptz;
    made     integer := 0;
    leaf     text;
    origin   constant timestamptz := '2020-01-01 00:00:00+00';
BEGIN
    SELECT public.partition_days(total_days), make_interval(days => total_days) INTO days, kept
    FROM public.tenant_schemas WHERE schema_name = tenant_schema;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no tenant schema %', tenant_schema USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('partitions:' || tenant_schema, 0));
    EXECUTE format('DELETE FROM %I.partitions WHERE to_regclass(format(''%%I.%%I'', %L, name)) IS NULL', tenant_schema, tenant_schema);
    EXECUTE format($sql$
        INSERT INTO %I.partitions (name, begins, ends)
        SELECT leaf, public.uuid_moment(bounds[1]::uuid), public.uuid_moment(bounds[2]::uuid)
        FROM (SELECT c.relname AS leaf,
                     regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''(.*)''\) TO \(''(.*)''\)') AS bounds
              FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = to_regclass(format('%%I.logs', %L))) AS leaves
        WHERE bounds IS NOT NULL
        ON CONFLICT DO NOTHING $sql$, tenant_schema, tenant_schema);
    width := make_interval(days => days);
    begins := date_bin(width, least(moment, greatest(moment, now()) - kept), origin);
    until := date_bin(width, moment, origin) + 4 * width;
    WHILE begins < until LOOP
        EXECUTE format('SELECT ends FROM %I.partitions WHERE begins <= %L AND ends > %L', tenant_schema, begins, begins)
            INTO found_at;
        IF found_at IS NOT NULL THEN
            begins := found_at;
            CONTINUE;
        END IF;
        EXECUTE format('SELECT min(begins) FROM %I.partitions WHERE begins > %L', tenant_schema, begins) INTO found_at;
        ends := least(date_bin(width, begins, origin) + width, found_at);
        leaf := 'logs_' || to_char(begins, 'YYYYMMDD');
        EXECUTE format('CREATE TABLE %I.%I (LIKE %I.logs INCLUDING ALL)', tenant_schema, leaf, tenant_schema);
        EXECUTE format('ALTER TABLE %I.logs ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                       tenant_schema, tenant_schema, leaf, public.uuid_floor(begins), public.uuid_floor(ends));
        EXECUTE format('INSERT INTO %I.partitions (name, begins, ends) VALUES (%L, %L, %L)', tenant_schema, leaf, begins, ends);
        made := made + 1;
        begins := ends;
    END LOOP;
    RETURN made;
END
$$;

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
