-- loggerhub_core_db: the source of truth of tenants, plans, keys and usage.

CREATE TABLE public.tenants (
    name            text PRIMARY KEY,
    -- The Tenant's metadata.uid: for information; ownership goes by installation and name.
    uid             text NOT NULL,
    installation    text NOT NULL,
    display_name    text,
    plan            text NOT NULL,
    -- Active, Suspended, Deleting, or Retained (its Tenant is gone, its data stays).
    state           text NOT NULL CHECK (state IN ('Active', 'Suspended', 'Deleting', 'Retained')),
    pipeline        text NOT NULL,
    isolation       text NOT NULL,
    index_series    text NOT NULL,
    hot_days        integer NOT NULL,
    total_days      integer NOT NULL,
    database_schema text NOT NULL UNIQUE,
    bucket          text NOT NULL,
    prefix          text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (bucket, prefix)
);

CREATE TABLE public.plans (
    name text PRIMARY KEY
);

CREATE TABLE public.api_keys (
    key_id     text PRIMARY KEY,
    tenant     text NOT NULL REFERENCES public.tenants (name) ON DELETE CASCADE,
    name       text NOT NULL,
    scopes     text[] NOT NULL,
    -- HMAC-SHA-256 of the secret; the secret itself is nowhere but in the tenant's Secret.
    digest     bytea NOT NULL CHECK (length(digest) = 32),
    pepper_id  text NOT NULL,
    issued_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

CREATE UNIQUE INDEX api_keys_one_live_key_per_name ON public.api_keys (tenant, name) WHERE revoked_at IS NULL;

-- Usage rolled up from the tenants' ledgers; what billing reads.
CREATE TABLE public.usage_hourly (
    tenant text NOT NULL,
    hour   timestamptz NOT NULL,
    events bigint NOT NULL,
    bytes  bigint NOT NULL,
    PRIMARY KEY (tenant, hour)
);

-- How far each tenant's ledger is rolled up: the last ledger_id that counts in usage_hourly.
CREATE TABLE public.usage_watermarks (
    tenant    text PRIMARY KEY,
    ledger_id bigint NOT NULL
);

GRANT SELECT, INSERT, UPDATE ON public.usage_hourly, public.usage_watermarks TO lh_maintain;
