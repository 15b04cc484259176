-- Search has a login of its own.
GRANT SELECT, INSERT, UPDATE, DELETE ON public.saved_searches, public.search_cache TO lh_search;
REVOKE ALL ON public.saved_searches, public.search_cache FROM lh_data;
