-- loggerhub_processor_db: what all tenants' schemas share.

-- The index that each series is written to now. maintain moves it on at a rollover.
CREATE TABLE public.index_series (
    series       text PRIMARY KEY,
    hot_days     integer NOT NULL,
    write_number bigint NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now()
);

-- Which version of the template each tenant's schema is at.
CREATE TABLE public.tenant_schemas (
    schema_name text PRIMARY KEY,
    tenant      text NOT NULL UNIQUE,
    version     integer NOT NULL,
    total_days  integer NOT NULL
);

GRANT SELECT ON public.index_series, public.tenant_schemas TO lh_data, lh_maintain;
GRANT UPDATE ON public.index_series TO lh_maintain;

-- The smallest UUIDv7 of a moment: bounds of partitions, which are cut by the event id.
CREATE FUNCTION public.uuid_floor(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- The moment of a UUIDv7, to the millisecond.
CREATE FUNCTION public.uuid_moment(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT to_timestamp(('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;

-- Width of a tenant's partitions in days: at most ten are alive at a time.
CREATE FUNCTION public.partition_days(total_days integer) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT greatest(1, ceil(total_days / 8.0)::integer)
$$;

-- Makes the partition of `moment` and the one after it, and fills a hole where one was dropped.
-- Ranges begin at whole multiples of the width, and never overlap one that is there, also after the
-- width has changed. The table `partitions` is made to agree with the catalog first. Returns how many
-- were made. Runs as its owner, so that maintain needs no DDL of its own.
CREATE FUNCTION public.ensure_partitions(tenant_schema text, moment timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    days     integer;
    width    interval;
    begins   timestamptz;
    ends     timestamptz;
    until    timestamptz;
    found_at timestamptz;
    made     integer := 0;
    leaf     text;
    origin   constant timestamptz := '2020-01-01 00:00:00+00';
BEGIN
    SELECT public.partition_days(total_days) INTO days FROM public.tenant_schemas WHERE schema_name = tenant_schema;
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
    begins := date_bin(width, moment, origin);
    until := begins + 2 * width;
    WHILE begins < until LOOP
        EXECUTE format('SELECT ends FROM %I.partitions WHERE begins <= %L AND ends > %L', tenant_schema, begins, begins)
            INTO found_at;
        IF found_at IS NOT NULL THEN
            begins := found_at;
            CONTINUE;
        END IF;
        EXECUTE format('SELECT min(begins) FROM %I.partitions WHERE begins > %L', tenant_schema, begins) INTO found_at;
        ends := least(date_bin(width, begins, origin) + width, found_at);
        leaf := 'logs_' || to_char(begins AT TIME ZONE 'UTC', 'YYYYMMDD');
        EXECUTE format('CREATE TABLE %I.%I PARTITION OF %I.logs FOR VALUES FROM (%L) TO (%L)',
                       tenant_schema, leaf, tenant_schema, public.uuid_floor(begins), public.uuid_floor(ends));
        EXECUTE format('INSERT INTO %I.partitions (name, begins, ends) VALUES (%L, %L, %L)', tenant_schema, leaf, begins, ends);
        made := made + 1;
        begins := ends;
    END LOOP;
    RETURN made;
END
$$;

-- Drops the partitions that ended more than total_days before `moment`. Returns how many.
CREATE FUNCTION public.drop_expired_partitions(tenant_schema text, moment timestamptz) RETURNS integer
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
        EXECUTE format('DROP TABLE IF EXISTS %I.%I', tenant_schema, expired.name);
        EXECUTE format('DELETE FROM %I.partitions WHERE name = %L', tenant_schema, expired.name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

REVOKE ALL ON FUNCTION public.ensure_partitions(text, timestamptz), public.drop_expired_partitions(text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.ensure_partitions(text, timestamptz), public.drop_expired_partitions(text, timestamptz) TO lh_maintain;
