//! Which registry entries are believed: those that the operator signed, once there is a key to verify them with.
//!
//! Whoever may write to Redis can then make no entry. They can put back an old one, which is refused by whoever has
//! seen a later one; they can remove entries, or all of Redis, which nobody can refuse.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use crds::TenantName;
use crds::signature::{Refusal, VerifyingKey, VerifyingKeys};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::folder::{self, Content};

/// Refused entries that are told of by name in the log.
const TOLD: usize = 20;

/// Settings of whoever reads the registry.
#[derive(Args, Clone, Debug, Default)]
pub struct TrustSettings {
    /// Folder with one file for each public key that the registry may be signed with; a file's name is the key's id.
    /// Absent, or empty until the first key comes: entries are believed unsigned.
    #[arg(long, env = "LOGGERHUB_REGISTRY_KEYS")]
    pub registry_keys: Option<PathBuf>,
}

/// The keys in the folder, now and as they change. A folder that is empty again takes no key away: whoever can empty
/// it is not to switch verification off.
pub(super) fn follow(
    settings: &TrustSettings,
    stop: CancellationToken,
) -> Result<watch::Receiver<Arc<VerifyingKeys>>, Error> {
    let keys = match settings.registry_keys.clone() {
        Some(folder) => {
            let same = |known: &VerifyingKeys, found: &VerifyingKeys| found.is_empty() || known == found;
            folder::follow(folder, Content { what: "keys of the registry", load, same }, stop)?
        }
        None => watch::channel(Arc::default()).1,
    };
    if keys.borrow().is_empty() {
        tracing::warn!("no key to verify the tenant registry with: whoever writes to Redis can make API keys");
    }
    Ok(keys)
}

fn load(folder: &Path) -> Result<VerifyingKeys, Error> {
    let of = || folder.display().to_string();
    let files = folder::files(folder).map_err(|source| Error::RegistryKeys { folder: of(), source })?;
    let key = |(id, bytes): (String, Vec<u8>)| VerifyingKey::parse(&id, &String::from_utf8_lossy(&bytes));
    files.into_iter().map(key).collect::<Result<_, _>>().map_err(|source| Error::RegistryKey { folder: of(), source })
}

/// What was believed so far, and by which keys.
#[derive(Default)]
pub(super) struct Trust {
    keys: Arc<VerifyingKeys>,
    /// The latest entry of each tenant, also of those that are gone.
    latest: HashMap<TenantName, Latest>,
    /// Entries as they stand in Redis that are not believed.
    refused: HashMap<String, Refusal>,
}

/// What other keys change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// They are the same.
    Same,
    /// There are more: what was believed before still is, and what was refused may be believed now.
    More,
    /// One is gone, or there were none: what was believed before counts for nothing.
    Others,
}

/// The latest entry of a tenant that was believed.
#[derive(Default)]
struct Latest {
    revision: u64,
    /// Whether it was removed since.
    gone: bool,
}

impl Trust {
    /// Takes other keys. Forgets what was believed before, unless it is believed by these, too: else an old entry could
    /// be put back when a key is replaced.
    pub(super) fn take(&mut self, keys: Arc<VerifyingKeys>) -> Taken {
        if self.keys == keys {
            return Taken::Same;
        }
        let ids: Vec<&str> = keys.iter().map(VerifyingKey::id).collect();
        tracing::info!("the tenant registry is verified with the keys {ids:?}");
        let more = !self.keys.is_empty() && self.keys.iter().all(|key| keys.holds(key));
        let latest = if more { std::mem::take(&mut self.latest) } else { HashMap::new() };
        *self = Self { keys, latest, refused: HashMap::new() };
        if more { Taken::More } else { Taken::Others }
    }

    /// Whether an entry is believed.
    pub(super) fn believes(&mut self, name: &str, document: &[u8], signature: Option<&str>) -> bool {
        match self.verify(name, document, signature) {
            Ok(()) => {
                self.refused.remove(name);
                true
            }
            Err(refusal) => {
                self.refuse(name, refusal);
                false
            }
        }
    }

    /// Notes that a tenant's entry is gone: only a later one than the last is believed from now on.
    pub(super) fn removed(&mut self, name: &str) {
        self.refused.remove(name);
        if let Some(latest) = name.parse::<TenantName>().ok().and_then(|name| self.latest.get_mut(&name)) {
            latest.gone = true;
        }
    }

    /// Notes that there are no entries but these.
    pub(super) fn only(&mut self, names: &BTreeSet<&str>) {
        self.refused.retain(|name, _| names.contains(name.as_str()));
    }

    /// How many entries are not believed.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    fn verify(&mut self, name: &str, document: &[u8], signature: Option<&str>) -> Result<(), Refusal> {
        if self.keys.is_empty() {
            return Ok(());
        }
        // Under what is no tenant's name the operator signs nothing.
        let tenant: TenantName = name.parse().map_err(|_| Refusal::Wrong)?;
        let revision = self.keys.verify(&tenant, document, signature)?.revision;
        let latest = self.latest.entry(tenant).or_default();
        if revision < latest.revision || (latest.gone && revision == latest.revision) {
            return Err(Refusal::Older);
        }
        *latest = Latest { revision, gone: false };
        Ok(())
    }

    /// Says it once for each entry and reason.
    fn refuse(&mut self, name: &str, refusal: Refusal) {
        if self.refused.insert(name.to_owned(), refusal) != Some(refusal) && self.refused.len() <= TOLD {
            tracing::warn!(
                tenant.name = name,
                "refused a registry entry: {refusal}; what was known of the tenant before stays"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::signature::SigningKey;

    fn key(id: &str) -> SigningKey {
        SigningKey::from_pkcs8(id, &SigningKey::generate().unwrap()).unwrap()
    }

    fn trust(key: &SigningKey) -> Trust {
        let mut trust = Trust::default();
        assert_eq!(trust.take(Arc::new([key.public()].into_iter().collect())), Taken::Others);
        trust
    }

    #[test]
    fn only_what_is_signed_and_not_older_is_believed() {
        let key = key("k1");
        let mut trust = trust(&key);
        let acme = "acme".parse().unwrap();
        let by = |revision| key.sign(&acme, revision, b"{}").to_string();
        for (document, signature, believed) in [
            ("{}", None, false),
            ("{}", Some(by(5)), true),
            ("{}", Some(by(5)), true),
            ("{ }", Some(by(6)), false),
            ("{}", Some(by(4)), false),
            ("{}", Some(by(7)), true),
            ("{}", Some(by(6)), false),
        ] {
            let said = trust.believes("acme", document.as_bytes(), signature.as_deref());
            assert_eq!(said, believed, "{document} {signature:?}");
        }
        assert_eq!(trust.refused(), 1);
        assert!(!trust.believes("globex", b"{}", Some(&by(9))), "another tenant's");
        // Said again and again, it stays one removal.
        for _ in 0..10 {
            trust.removed("acme");
        }
        assert!(!trust.believes("acme", b"{}", Some(&by(7))), "what was removed is put back");
        assert!(trust.believes("acme", b"{}", Some(&by(8))), "the operator wrote it anew");
        trust.only(&BTreeSet::from(["acme"]));
        assert_eq!(trust.refused(), 0, "the other is not there any more");
    }

    #[test]
    fn without_keys_all_is_believed_and_with_others_it_begins_anew() {
        let (one, other) = (key("k1"), key("k2"));
        let mut trust = Trust::default();
        assert_eq!(trust.take(Arc::default()), Taken::Same);
        assert!(trust.believes("acme", b"{}", None));
        assert_eq!(trust.take(Arc::new([one.public()].into_iter().collect())), Taken::Others);
        let acme = "acme".parse().unwrap();
        assert!(trust.believes("acme", b"{}", Some(&one.sign(&acme, 9, b"{}").to_string())));
        assert_eq!(trust.take(Arc::new([other.public()].into_iter().collect())), Taken::Others);
        assert!(!trust.believes("acme", b"{}", Some(&one.sign(&acme, 10, b"{}").to_string())));
        assert!(trust.believes("acme", b"{}", Some(&other.sign(&acme, 3, b"{}").to_string())), "its clock is behind");
    }

    #[test]
    fn a_key_that_is_added_lets_no_old_entry_in() {
        let (one, other) = (key("k1"), key("k2"));
        let (both, acme) = (Arc::new([one.public(), other.public()].into_iter().collect()), "acme".parse().unwrap());
        let mut trust = trust(&one);
        assert!(trust.believes("acme", b"{}", Some(&one.sign(&acme, 9, b"{}").to_string())));
        assert!(!trust.believes("acme", b"{}", Some(&other.sign(&acme, 10, b"{}").to_string())));
        assert_eq!(trust.take(both), Taken::More);
        assert!(!trust.believes("acme", b"{}", Some(&one.sign(&acme, 8, b"{}").to_string())), "put back meanwhile");
        assert!(trust.believes("acme", b"{}", Some(&other.sign(&acme, 10, b"{}").to_string())));
        assert_eq!(trust.take(Arc::new([other.public()].into_iter().collect())), Taken::Others);
        assert!(
            trust.believes("acme", b"{}", Some(&other.sign(&acme, 3, b"{}").to_string())),
            "10 may have been forged with the other"
        );
    }

    #[tokio::test]
    async fn a_folder_may_be_empty_and_holds_nothing_but_keys() {
        let folder = std::env::temp_dir().join(format!("loggerhub-registry-keys-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(load(&folder).unwrap().is_empty());
        let public = key("k1").public();
        std::fs::write(folder.join("k1"), public.to_string() + "\n").unwrap();
        assert!(load(&folder).unwrap().holds(&public));
        std::fs::write(folder.join("k2"), "nonsense").unwrap();
        assert!(matches!(load(&folder), Err(Error::RegistryKey { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(load(&folder), Err(Error::RegistryKeys { .. })));
    }
}
