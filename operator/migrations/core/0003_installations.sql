-- Whose these stores are: an installation runs in one cluster, and what it has not seen for a while is not gone.

CREATE TABLE public.installations (
    installation text PRIMARY KEY,
    -- UID of the namespace kube-system of the cluster that it runs in.
    cluster      text NOT NULL,
    bound_at     timestamptz NOT NULL DEFAULT now()
);

-- Which installation set the password of a platform role last, and a salted form of it to compare with.
CREATE TABLE public.role_logins (
    role         text PRIMARY KEY,
    installation text NOT NULL,
    verifier     text NOT NULL,
    set_at       timestamptz NOT NULL DEFAULT now()
);

-- Tenants whose Tenant an installation does not find, and since when.
CREATE TABLE public.missing_tenants (
    installation  text NOT NULL,
    tenant        text NOT NULL,
    missing_since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (installation, tenant)
);

-- The Tenant object that a key was last seen with: the Secret of a key that came with another one, of a cluster
-- or a Tenant that is gone, was not taken away by anybody on purpose.
ALTER TABLE public.api_keys ADD COLUMN tenant_uid text;
UPDATE public.api_keys AS k SET tenant_uid = t.uid FROM public.tenants AS t WHERE t.name = k.tenant;
