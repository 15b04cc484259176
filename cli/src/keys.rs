//! `keys`: a tenant's API keys, which are entries of its `spec.apiKeys`. The operator acts on them;
//! no key passes through here.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use crds::condition::types::CREDENTIALS_READY;
use crds::tenant::{ApiKeySpec, ApiKeyStatus, KeySource, PreviousKey, Scope};
use crds::{ROTATE_KEYS_ANNOTATION, Tenant, TenantName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep};

use crate::args::{Global, IssueArgs, KeysCommand};
use crate::kubernetes::{Doing, Kubernetes, MANAGER, condition};
use crate::output::{self, Row};

/// Longest wait until the operator has acted: it takes a second, and seconds more where a store is slow.
const ACTED: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Tries against others who change the same Tenant.
const TRIES: usize = 5;

/// A key as it is listed. Times are seconds since 1970.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct KeyRow {
    name: String,
    scopes: Vec<Scope>,
    source: KeySource,
    secret: String,
    key_id: Option<String>,
    issued_at: Option<i64>,
    expires_at: Option<i64>,
    /// Rounded down to the hour.
    last_used_at: Option<i64>,
    previous: Option<PreviousRow>,
}

/// A key that was replaced and still works.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct PreviousRow {
    key_id: String,
    expires_at: i64,
    last_used_at: Option<i64>,
}

/// Does what is asked for.
pub async fn run(global: &Global, command: KeysCommand) -> anyhow::Result<()> {
    let kubernetes = Kubernetes::connect(global).await?;
    match command {
        KeysCommand::List { tenant } => output::list(global.output, &rows(&kubernetes.tenant(tenant.as_str()).await?)),
        KeysCommand::Issue(args) => issue(&kubernetes, args).await,
        KeysCommand::Rotate { tenant, names, all: _ } => rotate(&kubernetes, &tenant, &names).await,
        KeysCommand::Revoke { tenant, name } => revoke(&kubernetes, &tenant, &name).await,
    }
}

async fn issue(kubernetes: &Kubernetes, args: IssueArgs) -> anyhow::Result<()> {
    let IssueArgs { tenant, name, scope, secret: (namespace, secret), existing } = args;
    let mut key = json!({"name": name, "scopes": scope, "secretRef": {"name": secret, "namespace": namespace}});
    if existing {
        key["source"] = json!(KeySource::Existing);
    }
    change(kubernetes, &tenant, |keys| with_key(keys, &key)).await?;
    let id_of = |tenant: &Tenant| issued(tenant).iter().find(|key| key.0 == name).map(|key| key.1.clone());
    let id = acted(kubernetes, &tenant, id_of).await?;
    eprintln!("key {name} ({id}) of Tenant {tenant} is in Secret {namespace}/{secret}, entry apiKey");
    Ok(())
}

/// Asks for new keys by the annotation that the operator acts on once for each value.
async fn rotate(kubernetes: &Kubernetes, tenant: &TenantName, names: &[String]) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let request = rotation(&kubernetes.tenant(tenant.as_str()).await?, names, &now)?;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ROTATE_KEYS_ANNOTATION: request}}}));
    let patched = kubernetes.tenants().patch(tenant.as_str(), &params(), &patch).await;
    patched.doing("patch", "tenants.loggerhub.io", tenant.as_str())?;
    let handled = |tenant: &Tenant| tenant.status.as_ref()?.last_handled_key_rotation.clone();
    acted(kubernetes, tenant, |tenant| handled(tenant).filter(|handled| *handled == request)).await?;
    eprintln!("new keys are in the Secrets; those before still work for their overlap: see `keys list {tenant}`");
    Ok(())
}

/// The annotation's value: names, and a nonce of its own for each request.
fn rotation(tenant: &Tenant, names: &[String], nonce: &str) -> anyhow::Result<String> {
    let known = |name: &&String| tenant.spec.api_keys.iter().any(|key| key.name == **name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        bail!("there is no key {unknown}");
    }
    Ok(if names.is_empty() { format!("*@{nonce}") } else { format!("{}@{nonce}", names.join(",")) })
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() }
}

async fn revoke(kubernetes: &Kubernetes, tenant: &TenantName, name: &str) -> anyhow::Result<()> {
    change(kubernetes, tenant, |keys| without_key(keys, name)).await?;
    acted(kubernetes, tenant, |tenant| issued(tenant).iter().all(|key| key.0 != name).then_some(())).await?;
    eprintln!("key {name} of Tenant {tenant} is revoked");
    Ok(())
}

/// Changes `spec.apiKeys` as it is now: whoever changes the Tenant meanwhile makes it begin again.
/// What this program knows nothing of stays as it was.
async fn change(
    kubernetes: &Kubernetes,
    tenant: &TenantName,
    changed: impl Fn(Vec<Value>) -> anyhow::Result<Vec<Value>>,
) -> anyhow::Result<()> {
    kubernetes.tenant(tenant.as_str()).await?;
    let tenants = Api::<DynamicObject>::all_with(kubernetes.client.clone(), &ApiResource::erase::<Tenant>(&()));
    for _ in 0..TRIES {
        let found = tenants.get(tenant.as_str()).await.doing("get", "tenants.loggerhub.io", tenant.as_str())?;
        let before = found.data["spec"]["apiKeys"].as_array().cloned().unwrap_or_default();
        let after = changed(before.clone())?;
        if after == before {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "spec": {"apiKeys": after},
        });
        match tenants.patch(tenant.as_str(), &params(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => sleep(PAUSE).await,
            done => return done.doing("patch", "tenants.loggerhub.io", tenant.as_str()).map(drop),
        }
    }
    bail!("Tenant {tenant} was changed by others {TRIES} times meanwhile: try again")
}

/// Waits until the operator has done it, and says at the end why it has not.
async fn acted<T>(
    kubernetes: &Kubernetes,
    tenant: &TenantName,
    seen: impl Fn(&Tenant) -> Option<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + ACTED;
    loop {
        let found = kubernetes.tenant(tenant.as_str()).await?;
        if let Some(seen) = seen(&found) {
            return Ok(seen);
        }
        if Instant::now() >= deadline {
            let conditions = found.status.map(|status| status.conditions).unwrap_or_default();
            let (status, reason, message) = condition(&conditions, CREDENTIALS_READY);
            bail!(
                "spec.apiKeys is changed, and the operator has not acted on it within {} s: \
                 CredentialsReady={status} {reason} {message}",
                ACTED.as_secs()
            );
        }
        sleep(PAUSE).await;
    }
}

fn issued(tenant: &Tenant) -> Vec<(String, String)> {
    let keys = tenant.status.iter().flat_map(|status| &status.api_keys);
    keys.map(|key| (key.name.clone(), key.key_id.clone())).collect()
}

fn with_key(mut keys: Vec<Value>, key: &Value) -> anyhow::Result<Vec<Value>> {
    let Some(there) = keys.iter().find(|there| there["name"] == key["name"]) else {
        keys.push(key.clone());
        return Ok(keys);
    };
    let source = |key: &Value| key.get("source").cloned().unwrap_or_else(|| json!(KeySource::Generate));
    let same = ["scopes", "secretRef"].iter().all(|field| there[field] == key[field]) && source(there) == source(key);
    ensure!(
        same,
        "there is such a key with other scopes, another Secret or another source: revoke it first, or use another name"
    );
    Ok(keys)
}

fn without_key(mut keys: Vec<Value>, name: &str) -> anyhow::Result<Vec<Value>> {
    let at = keys.iter().position(|key| key["name"] == name);
    keys.remove(at.with_context(|| format!("there is no key {name}"))?);
    Ok(keys)
}

fn rows(tenant: &Tenant) -> Vec<KeyRow> {
    let issued = tenant.status.as_ref().map(|status| status.api_keys.as_slice()).unwrap_or_default();
    let row = |key: &ApiKeySpec| row(key, issued.iter().find(|issued| issued.name == key.name));
    tenant.spec.api_keys.iter().map(row).collect()
}

fn row(key: &ApiKeySpec, issued: Option<&ApiKeyStatus>) -> KeyRow {
    let seconds = |time: &Time| time.0.as_second();
    let previous = |previous: &PreviousKey| PreviousRow {
        key_id: previous.key_id.clone(),
        expires_at: seconds(&previous.expires_at),
        last_used_at: previous.last_used_at.as_ref().map(seconds),
    };
    KeyRow {
        name: key.name.clone(),
        scopes: key.scopes.clone(),
        source: key.source,
        secret: format!("{}/{}", key.secret_ref.namespace, key.secret_ref.name),
        key_id: issued.map(|issued| issued.key_id.clone()),
        issued_at: issued.map(|issued| seconds(&issued.issued_at)),
        expires_at: issued.and_then(|issued| issued.expires_at.as_ref()).map(seconds),
        last_used_at: issued.and_then(|issued| issued.last_used_at.as_ref()).map(seconds),
        previous: issued.and_then(|issued| issued.previous.as_ref()).map(previous),
    }
}

impl Row for KeyRow {
    const HEADER: &'static [&'static str] = &["NAME", "SCOPES", "SECRET", "ID", "AGE", "LAST USED", "PREVIOUS"];
    const NONE: &'static str = "no keys: `keys issue` makes one";

    fn cells(&self, now: i64) -> Vec<String> {
        let scopes: Vec<_> = self.scopes.iter().map(|scope| format!("{scope:?}")).collect();
        let age = self.issued_at.map(|at| output::age(now - at)).unwrap_or_default();
        vec![
            self.name.clone(),
            scopes.join(","),
            self.secret.clone(),
            self.key_id.clone().unwrap_or_default(),
            age,
            self.last_used_at.map(|at| ago(at, now)).unwrap_or_default(),
            self.previous.as_ref().map(|previous| previous.cell(now)).unwrap_or_default(),
        ]
    }
}

impl PreviousRow {
    fn cell(&self, now: i64) -> String {
        let end = output::age(self.expires_at - now);
        let used = self.last_used_at.map_or("not used".to_owned(), |at| format!("used {}", ago(at, now)));
        format!("{}, ends in {end}, {used}", self.key_id)
    }
}

fn ago(at: i64, now: i64) -> String {
    format!("{} ago", output::age(now - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, scopes: &[Scope]) -> Value {
        json!({"name": name, "scopes": scopes, "secretRef": {"name": format!("{name}-key"), "namespace": "acme"}})
    }

    #[test]
    fn issuing_and_revoking_change_one_entry_and_keep_what_is_not_known_of_others() {
        let mut main = key("main", &[Scope::Query]);
        main["later"] = json!({"is": "kept"});
        let shipper = key("shipper", &[Scope::Ingest]);
        let both = with_key(vec![main.clone()], &shipper).unwrap();
        assert_eq!(both, [main.clone(), shipper.clone()]);
        assert_eq!(with_key(both.clone(), &shipper).unwrap(), both, "again changes nothing");
        assert_eq!(with_key(both.clone(), &key("main", &[Scope::Query])).unwrap(), both);
        assert!(with_key(both.clone(), &key("main", &[Scope::Admin])).is_err());
        assert_eq!(without_key(both.clone(), "shipper").unwrap(), [main]);
        assert!(without_key(both.clone(), "other").is_err());
        let mut existing = shipper.clone();
        existing["source"] = json!("Existing");
        assert!(with_key(both, &existing).is_err(), "another source");
        let mut defaulted = shipper.clone();
        defaulted["source"] = json!("Generate");
        assert_eq!(with_key(vec![defaulted.clone()], &shipper).unwrap(), [defaulted], "as the API server fills it in");
    }

    #[test]
    fn a_rotation_names_keys_that_there_are() {
        let spec =
            json!({"namespaces": ["acme"], "apiKeys": [key("main", &[Scope::Query]), key("b", &[Scope::Admin])]});
        let tenant = Tenant::new("acme", serde_json::from_value(spec).unwrap());
        for (names, expected) in
            [(&[][..], Some("*@7")), (&["main"], Some("main@7")), (&["b", "main"], Some("b,main@7")), (&["c"], None)]
        {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(rotation(&tenant, &names, "7").ok().as_deref(), expected, "{names:?}");
        }
    }

    #[test]
    fn a_row_joins_what_is_wanted_with_what_is_issued() {
        let keys = [key("main", &[Scope::Ingest, Scope::Query]), key("new", &[Scope::Admin])];
        let spec = json!({"namespaces": ["acme"], "apiKeys": keys});
        let mut tenant = Tenant::new("acme", serde_json::from_value(spec).unwrap());
        let issued = json!({
            "name": "main", "keyId": "abc", "issuedAt": "2026-01-01T00:00:00Z", "lastUsedAt": "2026-01-01T00:00:00Z",
            "previous": {"keyId": "old", "expiresAt": "2026-01-01T20:01:00Z"},
        });
        tenant.status = serde_json::from_value(json!({"apiKeys": [issued]})).unwrap();
        let mut rows = rows(&tenant);
        let cells: Vec<_> = rows.iter().map(|row| row.cells(1_767_225_660).join("|")).collect();
        let main = "main|Ingest,Query|acme/main-key|abc|60s|60s ago|old, ends in 20h, not used";
        assert_eq!(cells, [main, "new|Admin|acme/new-key||||"]);
        let mut previous = rows.remove(0).previous.unwrap();
        previous.last_used_at = Some(1_767_225_600);
        assert_eq!(previous.cell(1_767_232_800), "old, ends in 18h, used 2h ago");
    }
}
