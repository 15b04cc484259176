//! The Secrets that hold tenants' keys: those that we write, and those that we only read. By name
//! only: the operator neither lists nor watches Secrets.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, Preconditions};
use kube::{Api, Resource, ResourceExt};

use crds::apikey::ApiKey;
use crds::condition::Reason;
use crds::tenant::SecretRef;
use crds::{TENANT_LABEL, Tenant};

use super::decide::SecretSeen;
use crate::context::Context;
use crate::kubernetes::{apply, apply_beside, explain, is_forbidden, is_not_found};
use crate::settings::Settings;
use crate::tenant::problem::Problem;

const API_KEY: &str = "apiKey";
const TENANT: &str = "tenant";
const INGEST_URL: &str = "ingestUrl";
/// Annotation of a Secret that we write: id of the key that this one takes the place of, and that works on
/// for the overlap. It says so from the one write that makes the new key to its registration.
const REPLACES: &str = "loggerhub.io/replaces-key";
/// Annotation of a Secret that was there, empty, and that we were told to write a key to.
const ADOPTED: &str = "loggerhub.io/adopted";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const MANAGER: &str = "loggerhub-operator";

/// What a Secret is to hold.
pub struct Written {
    /// The key.
    pub key: ApiKey,
    /// Id of the key that this one takes the place of.
    pub replaces: Option<String>,
    /// Whether somebody else made the Secret.
    pub adopted: bool,
}

/// Looks at the Secret of a key that we generate.
pub async fn look(ctx: &Context, tenant: &Tenant, at: &SecretRef) -> Result<SecretSeen, Problem> {
    let secrets = Api::<Secret>::namespaced(ctx.client.clone(), &at.namespace);
    let found = secrets.get_opt(&at.name).await.map_err(|error| problem(&ctx.settings, at, &error))?;
    let Some(secret) = found else { return Ok(SecretSeen::Absent) };
    if !is_ours(&secret, tenant) {
        return Ok(SecretSeen::Foreign { empty: is_empty(&secret) });
    }
    let data = secret.data.as_ref();
    let adopted = is_adopted(&secret);
    let key = data.and_then(|data| data.get(API_KEY)).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let complete = rest(&ctx.settings, tenant)
        .iter()
        .all(|(name, value)| data.and_then(|data| data.get(*name)).is_some_and(|found| found.0 == value.as_bytes()));
    Ok(SecretSeen::Ours {
        key: key.and_then(|text| ApiKey::parse(text).ok()),
        replaces: secret.annotations().get(REPLACES).cloned(),
        complete: complete && (adopted || is_owned(&secret, tenant)),
        adopted,
    })
}

/// What somebody else's Secret holds as key; nothing if it lacks the entry.
pub async fn read(ctx: &Context, at: &SecretRef) -> Result<Option<Vec<u8>>, Problem> {
    let secrets = Api::<Secret>::namespaced(ctx.client.clone(), &at.namespace);
    let found = secrets.get_opt(&at.name).await.map_err(|error| match is_forbidden(&error) {
        true => denied(&ctx.settings, at, "read", "tenant-secrets-reader"),
        false => problem(&ctx.settings, at, &error),
    })?;
    let Some(mut secret) = found else {
        let SecretRef { name, namespace } = at;
        let message = format!(
            "Secret `{namespace}/{name}` does not exist: an existing key is read from its entry `apiKey`. Create \
             the Secret, or have your secret store sync it"
        );
        return Err(Problem { reason: Reason::SecretMissing, message });
    };
    Ok(secret.data.as_mut().and_then(|data| data.remove(API_KEY)).map(|bytes| bytes.0))
}

/// Deletes a Secret if it is ours and still this Tenant's, as we saw it. Fine if it is gone.
pub async fn remove(ctx: &Context, tenant: &Tenant, at: &SecretRef) -> Result<(), Problem> {
    let secrets = Api::<Secret>::namespaced(ctx.client.clone(), &at.namespace);
    let found = secrets.get_opt(&at.name).await.map_err(|error| problem(&ctx.settings, at, &error))?;
    let Some(secret) = found.filter(|secret| is_ours(secret, tenant) && is_owned(secret, tenant)) else {
        return Ok(());
    };
    let as_seen = Preconditions { uid: secret.uid(), resource_version: secret.resource_version() };
    let params = DeleteParams { preconditions: Some(as_seen), ..DeleteParams::default() };
    match secrets.delete(&at.name, &params).await {
        Err(error) if !is_not_found(&error) => Err(problem(&ctx.settings, at, &error)),
        _ => Ok(()),
    }
}

/// Whether we wrote the Secret for a Tenant of this name.
fn is_ours(secret: &Secret, tenant: &Tenant) -> bool {
    let label = |name: &str| secret.labels().get(name).map(String::as_str);
    label(TENANT_LABEL) == Some(&tenant.name_any()) && label(MANAGED_BY) == Some(MANAGER)
}

/// Whether a Secret that we did not make may be given a key: it holds nothing, and nobody else makes something of it.
fn is_empty(secret: &Secret) -> bool {
    let holds = secret.data.as_ref().is_some_and(|data| !data.is_empty());
    let plain = secret.type_.as_deref().is_none_or(|type_| type_ == "Opaque");
    let claimed = secret.labels().contains_key(TENANT_LABEL) || secret.labels().contains_key(MANAGED_BY);
    plain && !holds && !claimed && secret.owner_references().is_empty() && secret.immutable != Some(true)
}

/// Whether somebody else made the Secret that we write keys to: it stays when the Tenant goes.
fn is_adopted(secret: &Secret) -> bool {
    secret.annotations().contains_key(ADOPTED)
}

/// Whether the Secret goes when this very Tenant goes.
fn is_owned(secret: &Secret, tenant: &Tenant) -> bool {
    secret.owner_references().iter().any(|owner| Some(&owner.uid) == tenant.meta().uid.as_ref())
}

/// Writes a key to its Secret, all in one write. An adopted Secret does not become the Tenant's.
pub async fn write(ctx: &Context, tenant: &Tenant, at: &SecretRef, written: &Written) -> Result<(), Problem> {
    let Written { key, replaces, adopted } = written;
    let adopted = *adopted;
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
    let mut annotations: BTreeMap<String, String> = BTreeMap::new();
    annotations.extend(replaces.iter().map(|id| (REPLACES.to_owned(), id.clone())));
    annotations.extend(adopted.then(|| (ADOPTED.to_owned(), "true".to_owned())));
    let metadata = ObjectMeta {
        name: Some(at.name.clone()),
        namespace: Some(at.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        // A namespaced object may be owned by a cluster-scoped one: it goes when the Tenant goes.
        owner_references: tenant.controller_owner_ref(&()).filter(|_| !adopted).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let secret = Secret { metadata, data: Some(data), ..Secret::default() };
    // Of an adopted one nothing is overwritten that its owner has set.
    let written = if adopted { apply_beside(&secrets, &secret).await } else { apply(&secrets, &secret).await };
    written.map(drop).map_err(|error| problem(&ctx.settings, at, &error))
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
        return denied(settings, at, "write", "tenant-secrets");
    }
    if is_not_found(error) {
        let message = format!("namespace `{namespace}` does not exist: run kubectl create namespace {namespace}");
        return Problem { reason: Reason::NamespaceNotFound, message };
    }
    let message = format!("Secret `{namespace}/{name}`: {}", explain(error));
    Problem { reason: Reason::BackendUnavailable, message }
}

/// What we may not do, and the binding that allows it.
fn denied(settings: &Settings, at: &SecretRef, doing: &str, role: &str) -> Problem {
    let SecretRef { name, namespace } = at;
    let (release, home) = (&settings.release, &settings.namespace);
    let message = format!(
        "the operator may not {doing} Secrets in namespace `{namespace}` (Secret `{name}`): run kubectl create \
         rolebinding {release}-{role} -n {namespace} --clusterrole={release}-{role} \
         --serviceaccount={home}:{release}-operator"
    );
    Problem { reason: Reason::SecretAccessDenied, message }
}
