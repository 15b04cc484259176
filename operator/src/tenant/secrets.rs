//! The Secrets that tenants read their keys from. Read by name only: the operator neither lists
//! nor watches Secrets.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use kube::{Api, Resource, ResourceExt};

use crds::apikey::ApiKey;
use crds::condition::Reason;
use crds::tenant::SecretRef;
use crds::{TENANT_LABEL, Tenant};

use super::plan::SecretSeen;
use super::validate::Problem;
use crate::context::Context;
use crate::kubernetes::{apply, explain, is_forbidden, is_not_found};
use crate::settings::Settings;

const API_KEY: &str = "apiKey";
const TENANT: &str = "tenant";
const INGEST_URL: &str = "ingestUrl";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const MANAGER: &str = "loggerhub-operator";

/// Looks at a key's Secret.
pub async fn look(ctx: &Context, tenant: &Tenant, at: &SecretRef) -> Result<SecretSeen, Problem> {
    let secrets = Api::<Secret>::namespaced(ctx.client.clone(), &at.namespace);
    let found = secrets.get_opt(&at.name).await.map_err(|error| problem(&ctx.settings, at, &error))?;
    let Some(secret) = found else { return Ok(SecretSeen::Absent) };
    let label = |name: &str| secret.labels().get(name).map(String::as_str);
    if label(TENANT_LABEL) != Some(&tenant.name_any()) || label(MANAGED_BY) != Some(MANAGER) {
        return Ok(SecretSeen::Foreign);
    }
    let data = secret.data.as_ref();
    let key = data.and_then(|data| data.get(API_KEY)).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let complete = rest(&ctx.settings, tenant)
        .iter()
        .all(|(name, value)| data.and_then(|data| data.get(*name)).is_some_and(|found| found.0 == value.as_bytes()));
    let owned = secret.owner_references().iter().any(|owner| Some(&owner.uid) == tenant.meta().uid.as_ref());
    Ok(SecretSeen::Ours { key: key.and_then(|text| ApiKey::parse(text).ok()), complete: complete && owned })
}

/// Writes a key to its Secret.
pub async fn write(ctx: &Context, tenant: &Tenant, at: &SecretRef, key: &ApiKey) -> Result<(), Problem> {
    let secrets = Api::<Secret>::namespaced(ctx.client.clone(), &at.namespace);
    let labels = BTreeMap::from([
        (TENANT_LABEL.to_owned(), tenant.name_any()),
        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "loggerhub".to_owned()),
    ]);
    let mut data: BTreeMap<String, ByteString> = rest(&ctx.settings, tenant)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), ByteString(value.into_bytes())))
        .collect();
    data.insert(API_KEY.to_owned(), ByteString(key.to_string().into_bytes()));
    let metadata = ObjectMeta {
        name: Some(at.name.clone()),
        namespace: Some(at.namespace.clone()),
        labels: Some(labels),
        // A namespaced object may be owned by a cluster-scoped one: it goes when the Tenant goes.
        owner_references: tenant.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let secret = Secret { metadata, data: Some(data), ..Secret::default() };
    apply(&secrets, &secret).await.map_err(|error| problem(&ctx.settings, at, &error))?;
    Ok(())
}

/// What the Secret holds besides the key.
fn rest(settings: &Settings, tenant: &Tenant) -> Vec<(&'static str, String)> {
    let mut rest = vec![(TENANT, tenant.name_any())];
    rest.extend(settings.ingest_url.clone().map(|url| (INGEST_URL, url)));
    rest
}

/// What a refusal of the API means for the one who reads the condition.
fn problem(settings: &Settings, at: &SecretRef, error: &kube::Error) -> Problem {
    let SecretRef { name, namespace } = at;
    if is_forbidden(error) {
        let (release, home) = (&settings.release, &settings.namespace);
        let message = format!(
            "the operator may not write Secrets in namespace `{namespace}` (Secret `{name}`): run kubectl create \
             rolebinding {release}-tenant-secrets -n {namespace} --clusterrole={release}-tenant-secrets \
             --serviceaccount={home}:{release}-operator"
        );
        return Problem { reason: Reason::SecretAccessDenied, message };
    }
    if is_not_found(error) {
        let message = format!("namespace `{namespace}` does not exist: run kubectl create namespace {namespace}");
        return Problem { reason: Reason::NamespaceNotFound, message };
    }
    let message = format!("Secret `{namespace}/{name}`: {}", explain(error));
    Problem { reason: Reason::BackendUnavailable, message }
}
