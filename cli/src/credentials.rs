//! The API key that a command uses: given, or read from a Secret of the tenant's.

use anyhow::{Context, bail, ensure};
use crds::TenantName;
use crds::apikey::ApiKey;
use crds::tenant::{ApiKeySpec, Scope};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::args::ApiArgs;
use crate::kubernetes::{Doing, Kubernetes};

/// Most bytes that are read of a key's file.
const LONGEST_FILE: u64 = 4096;

/// The key that was given as a file or in the environment.
pub fn given(api: &ApiArgs) -> anyhow::Result<Option<ApiKey>> {
    let text = match (&api.key_file, &api.api_key) {
        (Some(path), _) => {
            let size = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
            ensure!(size <= LONGEST_FILE, "{} is too large for a file that holds a key", path.display());
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
        }
        (None, Some(key)) if api.key.is_none() => key.clone(),
        _ => return Ok(None),
    };
    Ok(Some(ApiKey::parse(text.trim())?))
}

/// The key in the Secret that the Tenant names for it.
pub async fn from_secret(
    kubernetes: &Kubernetes,
    tenant: &TenantName,
    scope: Scope,
    named: Option<&str>,
) -> anyhow::Result<ApiKey> {
    let keys = kubernetes.tenant(tenant.as_str()).await?.spec.api_keys;
    let reference = &choose(tenant, &keys, scope, named)?.secret_ref;
    let place = format!("{}/{}", reference.namespace, reference.name);
    let secrets = Api::<Secret>::namespaced(kubernetes.client.clone(), &reference.namespace);
    let secret = secrets.get_opt(&reference.name).await.doing("get", "secrets", &place)?;
    let secret = secret.with_context(|| format!("there is no Secret {place}: is Tenant {tenant} Ready?"))?;
    let held = secret.data.unwrap_or_default().remove("apiKey");
    let held = held.with_context(|| format!("Secret {place} has no apiKey"))?;
    let text = std::str::from_utf8(&held.0).unwrap_or_default();
    ApiKey::parse(text.trim()).with_context(|| format!("Secret {place}"))
}

/// The key to use: the named one, or the one that may do least beside what is needed.
fn choose<'a>(
    tenant: &TenantName,
    keys: &'a [ApiKeySpec],
    scope: Scope,
    named: Option<&str>,
) -> anyhow::Result<&'a ApiKeySpec> {
    if let Some(name) = named {
        return keys.iter().find(|key| key.name == name).with_context(|| format!("Tenant {tenant} has no key {name}"));
    }
    let Some(key) = keys.iter().filter(|key| key.scopes.contains(&scope)).min_by_key(|key| key.scopes.len()) else {
        bail!(
            "Tenant {tenant} has no key with scope {scope:?}: issue one with `kubectl loggerhub keys issue {tenant} \
             NAME --scope {scope:?} --secret NAMESPACE/NAME`, or give one with --key-file"
        )
    };
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_key_is_the_one_that_may_do_least() {
        let key = |name: &str, scopes: &[Scope]| -> ApiKeySpec {
            let secret = json!({"name": name, "namespace": "acme"});
            serde_json::from_value(json!({"name": name, "scopes": scopes, "secretRef": secret})).unwrap()
        };
        let (ingest, query, admin) = (Scope::Ingest, Scope::Query, Scope::Admin);
        let keys = [key("all", &[ingest, query, admin]), key("main", &[ingest, query]), key("ui", &[query])];
        let tenant: TenantName = "acme".parse().unwrap();
        for (from, scope, named, expected) in [
            (&keys[..], query, None, Some("ui")),
            (&keys[..], admin, None, Some("all")),
            (&keys[..], query, Some("main"), Some("main")),
            (&keys[..], query, Some("other"), None),
            (&keys[1..], admin, None, None),
            (&[], query, None, None),
        ] {
            let chosen = choose(&tenant, from, scope, named);
            assert_eq!(chosen.ok().map(|key| key.name.as_str()), expected, "{scope:?} {named:?}");
        }
        let refused = choose(&tenant, &keys[1..], admin, None).unwrap_err().to_string();
        assert!(refused.contains("keys issue acme NAME --scope Admin"), "{refused}");
    }
}
