//! Fixtures of this room's tables.

use std::time::{Duration, SystemTime};

use crds::Tenant;
use crds::apikey::Pepper;
use crds::tenant::Scope;
use serde_json::json;

use crate::provision::{IssuedKey, IssuedKeyRow};

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

/// The pepper of these tables.
pub(crate) fn pepper() -> Pepper {
    Pepper { id: "p1".into(), bytes: vec![1; 32] }
}

/// A moment, by its second.
pub(crate) fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

/// A row of acme's key `main`, whose digest matches nothing.
pub(crate) fn key_row(id: &str, issued_at: SystemTime, expires_at: Option<SystemTime>) -> IssuedKeyRow {
    let key = IssuedKey {
        name: "main".into(),
        scopes: vec![Scope::Ingest],
        id: id.into(),
        digest: [0; 32],
        pepper_id: pepper().id,
        expires_at,
        request: None,
        secret: None,
    };
    IssuedKeyRow { tenant: "acme".into(), key, issued_at, revoked: false, inherited: false }
}
