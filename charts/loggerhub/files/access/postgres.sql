-- The operator's login in PostgreSQL: the Secret of `stores.postgres.existingSecret` has this name and password.
-- It makes the three databases, the roles lh_data, lh_maintain and lh_search, and each tenant's roles and schema.
CREATE ROLE lh_operator LOGIN CREATEDB CREATEROLE PASSWORD 'PASSWORD';
