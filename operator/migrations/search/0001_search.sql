-- loggerhub_search_db: saved searches and metadata of the search cache.

CREATE TABLE public.saved_searches (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant     text NOT NULL,
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    query      jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, name)
);

CREATE TABLE public.search_cache (
    tenant     text NOT NULL,
    query_hash bytea NOT NULL,
    hits       bigint NOT NULL DEFAULT 0,
    cached_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, query_hash)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON public.saved_searches, public.search_cache TO lh_data;
