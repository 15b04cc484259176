//! Fixtures of this room's tables.

use crds::Tenant;
use serde_json::json;

/// A Tenant as a person writes it, with one key.
pub(crate) fn acme() -> Tenant {
    serde_json::from_value(json!({
        "apiVersion": "loggerhub.io/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "acme", "uid": "1", "generation": 1},
        "spec": {
            "namespaces": ["acme"],
            "apiKeys": [{"name": "main", "scopes": ["Ingest"], "secretRef": {"name": "key", "namespace": "acme"}}],
        },
    }))
    .unwrap()
}
