//! Who a request is: the tenant, from its key only.
