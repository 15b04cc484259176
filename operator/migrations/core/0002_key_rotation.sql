-- A key that was replaced works on for a while beside its successor.

ALTER TABLE public.api_keys
    -- Set once another key took this one's place: from then on it is refused. NULL: the current key of its name.
    ADD COLUMN expires_at timestamptz,
    -- Nonce of the rotation that was asked for and that this key, or one before it, carried out.
    ADD COLUMN rotation_request text,
    -- The Secret that we wrote the key's text to, until that Secret is gone.
    ADD COLUMN secret_namespace text,
    ADD COLUMN secret_name text;

DROP INDEX public.api_keys_one_live_key_per_name;
CREATE UNIQUE INDEX api_keys_one_current_key_per_name ON public.api_keys (tenant, name)
    WHERE revoked_at IS NULL AND expires_at IS NULL;
CREATE INDEX api_keys_live ON public.api_keys (tenant) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_written ON public.api_keys (tenant) WHERE secret_name IS NOT NULL;
