-- The operator's login in PostgreSQL: the Secret of `stores.postgres.existingSecret` has this name and password.
-- It makes the three databases, the roles lh_data and lh_maintain, and each tenant's role and schema.
CREATE ROLE lh_operator LOGIN CREATEDB CREATEROLE PASSWORD 'PASSWORD';
