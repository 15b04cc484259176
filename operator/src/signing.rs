//! The keys that the registry is signed with: a Secret of private ones that only the operator reads, and a ConfigMap
//! of public ones that every pod of the data plane mounts.
//!
//! ```text
//!  Secret: none ──► made    every entry signed?    ConfigMap: written ──► pods verify from now on
//!  Secret: one more key ──► ConfigMap: one more ──► pods know it? ──► entries signed anew ──► ConfigMap: the old one out
//! ```
//! A public key reaches the pods before the first signature that needs it; only the very first comes last, so that
//! an upgrade refuses no key. When the last one came to the ConfigMap stands in what the API server keeps of it, so
//! that an operator that begins in between waits as the one before would have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crds::TenantName;
use crds::apikey::age_of;
use crds::names::{registry_keys_config_map, registry_signing_secret};
use crds::registry::RegistryKey;
use crds::signature::{SigningKey, VerifyingKey, VerifyingKeys};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::kubernetes::{FIELD_MANAGER, apply};
use crate::platform::{Error, create_secret, metadata};
use crate::provision::{IssuedKeyRow, Signing, Stores};
use crate::settings::Settings;

/// Longest time until a changed ConfigMap is mounted in every pod and read there: the kubelet takes up to a minute
/// and a half, the pod five seconds.
const MOUNTED: Duration = Duration::from_secs(120);
/// Time between two looks while something is under way.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps the keys, and the registry signed with them.
pub struct Keeper {
    /// The Kubernetes API.
    pub client: Client,
    /// The installation.
    pub settings: Settings,
    /// The registry, and what is known of its tenants.
    pub stores: Stores,
    /// Told what entries are signed with.
    pub publish: watch::Sender<Option<Arc<Signing>>>,
    /// What it did before.
    pub memory: Memory,
}

/// What a [`Keeper`] remembers.
#[derive(Default)]
pub struct Memory {
    /// Public keys that were added to the ConfigMap, and when; `None` before the first look.
    added: Option<HashMap<String, Instant>>,
    /// Whether there were public keys once: then nothing unsigned is believed, even if the ConfigMap is empty.
    in_force: bool,
}

/// The ConfigMap of public keys.
#[derive(Default)]
struct Published {
    /// The keys in it.
    keys: VerifyingKeys,
    /// Names of all that is in it, keys or not.
    names: BTreeSet<String>,
    /// When we changed it last.
    changed: Option<Timestamp>,
}

impl Keeper {
    /// Works until `shutdown`: again and again while something is under way, then at every resync.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let backoff = Backoff::default();
        loop {
            let wait = match self.keep().await {
                Ok(settled) => {
                    backoff.succeeded("signing");
                    if settled { Duration::from_secs(self.settings.resync_seconds) } else { INTERVAL }
                }
                Err(error) => {
                    tracing::warn!("the registry is not signed yet: {}", runtime::logging::chain(&error));
                    backoff.failed("signing").min(Duration::from_secs(30))
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Whether there is nothing left to do.
    async fn keep(&mut self) -> Result<bool, Error> {
        let Published { keys: mut published, names, changed } = self.published().await?;
        let mut keys = self.private_keys(&published).await?;
        let memory = &mut self.memory;
        memory.in_force |= !names.is_empty();
        let in_force = memory.in_force;
        let added = memory.added.get_or_insert_with(|| added_before(&keys, changed));
        if in_force && keys.iter().any(|key| !published.holds(&key.public())) {
            let (now, missing) = (Instant::now(), keys.iter().map(SigningKey::public));
            let missing: Vec<VerifyingKey> = missing.filter(|key| !published.holds(key)).collect();
            added.extend(missing.iter().map(|key| (key.id().to_owned(), now)));
            published = published.iter().cloned().chain(missing).collect();
            self.publish_keys(&published).await?;
        }
        let ids: Vec<&str> = keys.iter().map(SigningKey::id).collect();
        let added = self.memory.added.iter().flatten();
        let fresh: Vec<&str> = added.filter(|(_, at)| at.elapsed() < MOUNTED).map(|(id, _)| id.as_str()).collect();
        let chosen = signer(&ids, |id| fresh.contains(&id));
        let (signer, public) = (keys.swap_remove(chosen), keys_of(&keys));
        let ours: VerifyingKeys = public.iter().cloned().chain([signer.public()]).collect();
        let accepted = published.iter().chain(ours.iter()).cloned().collect();
        self.publish.send_replace(Some(Arc::new(Signing { signer, accepted, in_force })));

        let signed = self.sign_all().await?;
        if !signed || chosen != 0 {
            return Ok(false);
        }
        if !in_force {
            self.publish_keys(&ours).await?;
            tracing::info!("every registry entry is signed: the data plane verifies them from now on");
            // What is signed with from now on is the same, and is in force.
            return Ok(false);
        }
        if published != ours || names.iter().any(|name| ours.iter().all(|key| key.id() != name)) {
            // Nothing that is ours is signed with the others any more.
            self.publish_keys(&ours).await?;
        }
        Ok(true)
    }

    /// Signs the entries of this installation's tenants. Others are another's, or nobody's.
    async fn sign_all(&self) -> Result<bool, Error> {
        let Stores { postgres, registry, .. } = &self.stores;
        // Whoever took the stores over signs with keys of his own.
        postgres.still_ours().await.map_err(Error::Registry)?;
        let rows = postgres.live_tenants(&self.settings.installation).await.map_err(Error::Registry)?;
        let names: Vec<TenantName> = rows.into_iter().map(|row| row.tenant).collect();
        let mut signed = true;
        for seen in &registry.to_sign(&names).await.map_err(Error::Registry)? {
            let issued = postgres.keys(&seen.entry.tenant, &[]).await.map_err(Error::Registry)?;
            let lives = |key: &RegistryKey| issued.iter().any(|row| is_of(key, row));
            signed &= registry.sign(seen, lives).await.map_err(Error::Registry)?;
        }
        Ok(signed)
    }

    /// The private keys, the newest first. One is made where there is none.
    async fn private_keys(&self, published: &VerifyingKeys) -> Result<Vec<SigningKey>, Error> {
        let name = registry_signing_secret(&self.settings.release);
        let failed = |source: kube::Error| Error::Secret { name: name.clone(), source: Box::new(source) };
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.settings.namespace);
        let data = match secrets.get_opt(&name).await.map_err(failed)? {
            Some(found) => found.data.unwrap_or_default(),
            None => {
                let key = ByteString(SigningKey::generate()?);
                let data = BTreeMap::from([(next_id(published.iter().map(VerifyingKey::id)), key)]);
                create_secret(&secrets, &self.settings, &name, data).await?
            }
        };
        let mut keys = data
            .iter()
            .map(|(id, bytes)| SigningKey::from_pkcs8(id, &bytes.0))
            .collect::<Result<Vec<SigningKey>, _>>()?;
        if keys.is_empty() {
            return Err(Error::Content { name, lacks: "it holds no key".to_owned() });
        }
        keys.sort_by(|a, b| age_of(b.id()).cmp(&age_of(a.id())));
        Ok(keys)
    }

    /// The public keys that the pods have, or will have in a minute.
    async fn published(&self) -> Result<Published, Error> {
        let name = registry_keys_config_map(&self.settings.release);
        let failed = |source: kube::Error| Error::ConfigMap { name: name.clone(), source: Box::new(source) };
        let config_maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.settings.namespace);
        Ok(config_maps.get_opt(&name).await.map_err(failed)?.map(Published::of).unwrap_or_default())
    }

    /// Has the ConfigMap hold these keys and nothing else: what is no key would keep pods from starting.
    async fn publish_keys(&self, keys: &VerifyingKeys) -> Result<(), Error> {
        let name = registry_keys_config_map(&self.settings.release);
        let failed = |source: kube::Error| Error::ConfigMap { name: name.clone(), source: Box::new(source) };
        let config_maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.settings.namespace);
        let data: BTreeMap<String, String> = keys.iter().map(|key| (key.id().to_owned(), key.to_string())).collect();
        let config_map =
            ConfigMap { metadata: metadata(&self.settings, &name), data: Some(data.clone()), ..ConfigMap::default() };
        let applied = apply(&config_maps, &config_map).await.map_err(&failed)?;
        // An apply leaves what others have put there.
        let others: Vec<String> =
            Published::of(applied).names.into_iter().filter(|id| !data.contains_key(id)).collect();
        if !others.is_empty() {
            let gone: Map<String, Value> = others.iter().map(|id| (id.clone(), Value::Null)).collect();
            let patch = Patch::Merge(json!({"data": gone, "binaryData": gone}));
            config_maps.patch(&name, &PatchParams::default(), &patch).await.map_err(&failed)?;
            tracing::warn!("took {others:?} out of ConfigMap {name}: nothing signs with them");
        }
        let ids: Vec<&str> = keys.iter().map(VerifyingKey::id).collect();
        tracing::info!("ConfigMap {name} holds the public keys {ids:?}");
        Ok(())
    }
}

impl Published {
    fn of(config_map: ConfigMap) -> Self {
        let (data, binary) = (config_map.data.unwrap_or_default(), config_map.binary_data.unwrap_or_default());
        let ours = config_map.metadata.managed_fields.into_iter().flatten();
        let changed =
            ours.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER)).filter_map(|entry| entry.time);
        Self {
            keys: data.iter().filter_map(|(id, text)| VerifyingKey::parse(id, text).ok()).collect(),
            names: data.into_keys().chain(binary.into_keys()).collect(),
            changed: changed.map(|time| time.0).max(),
        }
    }
}

/// What the operator before may have added, by when the ConfigMap was changed: the newest key, at most.
fn added_before(keys: &[SigningKey], changed: Option<Timestamp>) -> HashMap<String, Instant> {
    let age = changed.and_then(|changed| Duration::try_from(Timestamp::now().duration_since(changed)).ok());
    let at = age.and_then(|age| Instant::now().checked_sub(age));
    keys.first().map(|key| key.id().to_owned()).zip(at).into_iter().collect()
}

/// Whether the registry has the key as it was issued, with no more scopes.
fn is_of(key: &RegistryKey, row: &IssuedKeyRow) -> bool {
    let issued = &row.key;
    issued.id == key.id && issued.digest == key.digest && key.scopes.iter().all(|scope| issued.scopes.contains(scope))
}

fn keys_of(keys: &[SigningKey]) -> Vec<VerifyingKey> {
    keys.iter().map(SigningKey::public).collect()
}

/// Which of the keys, the newest first, signs: the newest that the pods know, or the newest if they know none.
fn signer(ids: &[&str], is_fresh: impl Fn(&str) -> bool) -> usize {
    ids.iter().position(|id| !is_fresh(id)).unwrap_or_default()
}

/// An id that none of these public keys has: a lost private key is not replaced under its name.
fn next_id<'a>(published: impl Iterator<Item = &'a str>) -> String {
    let number = |id: &str| id.strip_prefix('k').and_then(|number| number.parse::<u64>().ok());
    format!("k{}", published.filter_map(number).max().unwrap_or_default() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_key_that_the_pods_know_signs() {
        for (ids, fresh, expected) in [
            (&["k1"][..], &[][..], 0),
            (&["k2", "k1"], &["k2"], 1),
            (&["k2", "k1"], &[], 0),
            // The private key of before is lost: nothing else can sign.
            (&["k2"], &["k2"], 0),
            (&["k3", "k2"], &["k2", "k3"], 0),
        ] {
            assert_eq!(signer(ids, |id| fresh.contains(&id)), expected, "{ids:?} {fresh:?}");
        }
    }

    #[test]
    fn a_new_key_has_a_new_id() {
        for (published, expected) in [(&[][..], "k1"), (&["k1"], "k2"), (&["k9", "k10", "mine"], "k11")] {
            assert_eq!(next_id(published.iter().copied()), expected);
        }
    }
}
