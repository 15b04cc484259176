-- Only where the server is LoggerHub's alone, by its superuser: nobody but the operator's login connects to the databases
-- that every server has, or makes temporary tables there. PUBLIC may otherwise. Each statement is one line.
REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO lh_operator;
