-- Run by a superuser in each database of LoggerHub's, once the operator has made it, and again after it was restored:
-- nobody who may only connect makes large objects, which no quota counts and no expiry finds. LoggerHub uses none.
REVOKE EXECUTE ON FUNCTION lo_create(oid), lo_creat(integer), lo_from_bytea(oid, bytea), lo_put(oid, bigint, bytea),
    lo_open(oid, integer), lowrite(integer, bytea), lo_truncate(integer, integer), lo_truncate64(integer, bigint)
    FROM PUBLIC;
