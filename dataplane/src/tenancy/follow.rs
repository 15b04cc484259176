//! Keeps the registry current: a full load, then the change stream, and each second the epoch and the stream's last
//! change.
//!
//! The stream makes a change known at once; the epoch makes it known even if its announcement was
//! lost. Any disagreement between the two leads to a full load. If the last change that we saw is
//! not in the stream any more, Redis lost the registry, or went back to an older one: what we know stays until
//! the operator has projected it anew.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use crds::TenantName;
use crds::names::{REGISTRY_CHANGES, REGISTRY_EPOCH, REGISTRY_SIGNATURES, REGISTRY_TENANTS};
use crds::registry::{REGISTRY_VERSION, RegistryTenant};
use crds::signature::VerifyingKeys;
use runtime::logging::chain;
use runtime::stores::{Connection, Redis};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::snapshot::{Load, Snapshot, load};
use super::trust::{Taken, Trust, TrustSettings};
use super::{Error, State};

/// Longest wait for a change before the epoch is compared: a revocation whose announcement was
/// lost holds after this, one round-trip and one load, well within the 5 s promised.
const POLL: Duration = Duration::from_secs(1);
/// Entries of a whole registry that are verified before something else has its turn.
const AT_A_TURN: usize = 64;
/// Changes read at once; more follow at once.
const CHANGES_AT_ONCE: usize = 256;
/// How long the operator may take to project a lost registry anew: a resync of 10,000 tenants.
const REBUILD_TIME: Duration = Duration::from_secs(60);

/// Settings of whoever checks keys.
#[derive(Args, Clone, Debug)]
pub struct RegistrySettings {
    /// Folder with one file for each pepper; a file's name is the pepper's id.
    #[arg(long, env = "LOGGERHUB_PEPPERS")]
    pub peppers: PathBuf,
    /// What the registry is verified with.
    #[command(flatten)]
    pub trust: TrustSettings,
}

/// Before the first change.
const BEGINNING: &str = "0";

/// One entry of the change stream: its id and its fields.
type Change = (String, HashMap<String, String>);

/// Reads Redis and publishes what it knows.
pub(super) struct Follower {
    connection: Connection,
    held: Option<Arc<Snapshot>>,
    /// The last change seen.
    cursor: String,
    /// Set while Redis is being filled anew: until then a load takes nothing away.
    rebuilding_until: Option<Instant>,
    /// The keys as they are mounted now.
    keys: watch::Receiver<Arc<VerifyingKeys>>,
    trust: Trust,
    /// Set while what we hold was believed by other keys than those of now.
    unverified: bool,
    /// Set until all of it is read by the keys of now.
    unread: bool,
}

/// An entry as it was read.
enum Read {
    /// The tenant.
    Tenant(Box<RegistryTenant>),
    /// There is none, or none of a form that is ours.
    Nothing,
    /// Somebody else wrote it.
    Refused,
}

/// Where the registry is at one moment.
#[derive(PartialEq, Eq)]
struct Now {
    epoch: Option<u64>,
    /// The last change in the stream, or [`BEGINNING`].
    last: String,
}

impl Now {
    fn of(epoch: Option<u64>, last: Vec<Change>) -> Self {
        Self { epoch, last: last.into_iter().next().map_or_else(|| BEGINNING.to_owned(), |(id, _)| id) }
    }
}

/// A document and its signature.
type Entry = (Option<Vec<u8>>, Option<String>);

impl Follower {
    pub(super) fn new(redis: &Redis, keys: watch::Receiver<Arc<VerifyingKeys>>) -> Result<Self, Error> {
        Ok(Self {
            connection: redis.blocking_connection(POLL)?,
            held: None,
            cursor: BEGINNING.to_owned(),
            rebuilding_until: None,
            keys,
            trust: Trust::default(),
            unverified: false,
            unread: false,
        })
    }

    pub(super) async fn run(mut self, publish: watch::Sender<State>, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let step = tokio::select! {
                step = self.step() => step,
                () = stop.cancelled() => return,
            };
            let pause = match step {
                Ok(true) => {
                    publish.send_replace(State {
                        snapshot: self.held.clone(),
                        confirmed: Some(Instant::now()),
                        refused: self.trust.refused(),
                    });
                    if std::mem::take(&mut failing) {
                        tracing::info!("the tenant registry answers again");
                    }
                    continue;
                }
                Ok(false) if failing => POLL,
                Ok(false) => {
                    tracing::warn!("Redis holds no tenant registry: waiting for the operator to project it");
                    POLL
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(error = chain(&error), "can't follow the tenant registry");
                    }
                    publish.send_modify(|state| state.refused = self.trust.refused());
                    POLL
                }
            };
            failing = true;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Waits for changes or for the next poll. `false`: Redis holds no registry.
    async fn step(&mut self) -> Result<bool, Error> {
        let keys = Arc::clone(&self.keys.borrow_and_update());
        let taken = self.trust.take(keys);
        self.unverified |= taken == Taken::Others;
        self.unread |= taken != Taken::Same;
        let Some(held) = self.held.clone().filter(|_| !self.unread) else { return self.load().await };
        let changes = self.changes().await?;
        let names = named(&changes);
        let (now, entries) = self.entries(&names).await?;
        let Some(epoch_after) = epoch_after(held.epoch, &changes) else { return self.load().await };
        let rebuilt = self.rebuilding_until.is_some_and(|until| until <= Instant::now());
        let as_held = now == Now { epoch: Some(held.epoch), last: self.cursor.clone() };
        if rebuilt || (changes.is_empty() && !as_held) {
            return self.load().await;
        }
        if let Some((id, _)) = changes.last() {
            self.cursor.clone_from(id);
            let mut next = Snapshot::clone(&held);
            next.epoch = epoch_after;
            for (name, (document, signature)) in names.iter().zip(entries) {
                match self.read(name, document.as_deref(), signature.as_deref()) {
                    Read::Tenant(tenant) => next.put(*tenant),
                    Read::Nothing => next.remove_named(name),
                    Read::Refused => {}
                }
            }
            self.held = Some(Arc::new(next));
        }
        Ok(true)
    }

    /// What the stream announced since the cursor; empty after [`POLL`] without any.
    async fn changes(&mut self) -> Result<Vec<Change>, Error> {
        let read: Option<Vec<(String, Vec<Change>)>> = redis::cmd("XREAD")
            .arg("BLOCK")
            .arg(POLL.as_millis() as u64)
            .arg("COUNT")
            .arg(CHANGES_AT_ONCE)
            .arg("STREAMS")
            .arg(REGISTRY_CHANGES)
            .arg(&self.cursor)
            .query_async(&mut self.connection)
            .await?;
        Ok(read.unwrap_or_default().into_iter().flat_map(|(_, changes)| changes).collect())
    }

    /// An entry, if it is to be believed.
    fn read(&mut self, name: &str, document: Option<&[u8]>, signature: Option<&str>) -> Read {
        let Some(document) = document else {
            self.trust.removed(name);
            return Read::Nothing;
        };
        if !self.trust.believes(name, document, signature) {
            return Read::Refused;
        }
        read(name, document).map_or(Read::Nothing, |tenant| Read::Tenant(Box::new(tenant)))
    }

    /// The epoch, the last change, and the named tenants' entries, at one moment.
    async fn entries(&mut self, names: &[String]) -> Result<(Now, Vec<Entry>), Error> {
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("GET").arg(REGISTRY_EPOCH);
        pipe.cmd("XREVRANGE").arg(REGISTRY_CHANGES).arg(&["+", "-", "COUNT", "1"]);
        if names.is_empty() {
            let (epoch, last): (Option<u64>, Vec<Change>) = pipe.query_async(&mut self.connection).await?;
            return Ok((Now::of(epoch, last), Vec::new()));
        }
        type Found = (Option<u64>, Vec<Change>, Vec<Option<Vec<u8>>>, Vec<Option<String>>);
        pipe.cmd("HMGET").arg(REGISTRY_TENANTS).arg(names).cmd("HMGET").arg(REGISTRY_SIGNATURES).arg(names);
        let (epoch, last, documents, signatures): Found = pipe.query_async(&mut self.connection).await?;
        Ok((Now::of(epoch, last), documents.into_iter().zip(signatures).collect()))
    }

    /// Reads everything, at one moment.
    async fn load(&mut self) -> Result<bool, Error> {
        type Everything = (Option<u64>, HashMap<String, Vec<u8>>, HashMap<String, String>, Vec<Change>, Vec<Change>);
        let (found, documents, signatures, last, ours): Everything = redis::pipe()
            .atomic()
            .cmd("GET")
            .arg(REGISTRY_EPOCH)
            .cmd("HGETALL")
            .arg(REGISTRY_TENANTS)
            .cmd("HGETALL")
            .arg(REGISTRY_SIGNATURES)
            .cmd("XREVRANGE")
            .arg(REGISTRY_CHANGES)
            .arg(&["+", "-", "COUNT", "1"])
            .cmd("XRANGE")
            .arg(REGISTRY_CHANGES)
            .arg(&[&self.cursor, &self.cursor])
            .query_async(&mut self.connection)
            .await?;
        let rebuilding = self.rebuilding_until.is_some_and(|until| Instant::now() < until);
        let now = Now::of(found, last);
        let lost = self.cursor != BEGINNING && ours.is_empty();
        // What other keys made us believe counts for nothing.
        let held = self.held.clone().filter(|_| !self.unverified);
        let next = match (load(found, lost, rebuilding, now.last != BEGINNING), held) {
            (Load::Keep, _) => return Ok(false),
            (Load::Merge, Some(held)) => {
                tracing::warn!("Redis lost the tenant registry: for a while, what is missing there stays valid");
                self.rebuilding_until.get_or_insert_with(|| Instant::now() + REBUILD_TIME);
                let mut merged = Snapshot::clone(&held);
                self.read_all(&documents, &signatures, Some(&held))
                    .await
                    .into_iter()
                    .for_each(|tenant| merged.put(tenant));
                merged
            }
            (Load::Merge | Load::Replace, held) => {
                self.rebuilding_until = None;
                let tenants = self.read_all(&documents, &signatures, held.as_deref()).await;
                if tenants.is_empty() && self.trust.refused() > 0 && self.trust.refused() == documents.len() {
                    return Err(Error::NothingBelieved { entries: documents.len() });
                }
                for gone in held.iter().flat_map(|held| held.tenants.keys()) {
                    if !documents.contains_key(gone.as_str()) {
                        self.trust.removed(gone.as_str());
                    }
                }
                Snapshot::new(0, tenants)
            }
        };
        let epoch = found.unwrap_or_default();
        tracing::info!(epoch, tenants = next.tenants.len(), "loaded the tenant registry");
        self.held = Some(Arc::new(Snapshot { epoch, ..next }));
        (self.unverified, self.unread) = (false, false);
        self.cursor = now.last;
        Ok(true)
    }

    /// The tenants of a whole registry. One whose entry is not believed stays as it is held.
    async fn read_all(
        &mut self,
        documents: &HashMap<String, Vec<u8>>,
        signatures: &HashMap<String, String>,
        held: Option<&Snapshot>,
    ) -> Vec<RegistryTenant> {
        self.trust.only(&documents.keys().map(String::as_str).collect());
        let mut tenants = Vec::with_capacity(documents.len());
        for (number, (name, document)) in documents.iter().enumerate() {
            match self.read(name, Some(document), signatures.get(name).map(String::as_str)) {
                Read::Tenant(tenant) => tenants.push(*tenant),
                Read::Nothing => {}
                Read::Refused => {
                    let before = name.parse::<TenantName>().ok().and_then(|name| held?.tenants.get(&name).cloned());
                    tenants.extend(before.map(|before| before.registered().clone()));
                }
            }
            // To verify ten thousand takes a while: others have their turns.
            if number % AT_A_TURN == AT_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        tenants
    }
}

/// The tenants that changes name, each once.
fn named(changes: &[Change]) -> Vec<String> {
    let mut names: Vec<_> = changes.iter().filter_map(|(_, fields)| fields.get("tenant").cloned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The epoch after these changes, if none is missing between `held` and the last of them.
fn epoch_after(held: u64, changes: &[Change]) -> Option<u64> {
    changes.iter().try_fold(held, |epoch, (_, fields)| {
        let next: u64 = fields.get("epoch")?.parse().ok()?;
        (next == epoch + 1 && fields.contains_key("tenant")).then_some(next)
    })
}

/// A tenant's document, unless it is of a version that we don't know.
fn read(name: &str, document: &[u8]) -> Option<RegistryTenant> {
    match serde_json::from_slice::<RegistryTenant>(document) {
        Ok(tenant) if tenant.version != REGISTRY_VERSION => {
            tracing::warn!(tenant.name = name, tenant.version, "skipped a tenant of a version that is not ours");
            None
        }
        Ok(tenant) if tenant.tenant.as_str() != name => {
            tracing::warn!(tenant.name = name, "skipped a registry entry under another tenant's name");
            None
        }
        Ok(tenant) => Some(tenant),
        Err(error) => {
            tracing::warn!(tenant.name = name, %error, "skipped a registry entry that can't be read");
            None
        }
    }
}

impl Snapshot {
    /// Forgets a tenant by a name that may not be one.
    fn remove_named(&mut self, name: &str) {
        if let Ok(name) = name.parse::<TenantName>() {
            self.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(tenant: Option<&str>, epoch: &str) -> Change {
        let fields = [("epoch", Some(epoch)), ("tenant", tenant)];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        ("1-0".to_owned(), fields.collect())
    }

    #[test]
    fn a_missing_change_is_noticed() {
        let a = |epoch| change(Some("a"), epoch);
        for (changes, expected) in [
            (vec![], Some(7)),
            (vec![a("8")], Some(8)),
            (vec![a("8"), a("9")], Some(9)),
            (vec![a("9")], None),
            (vec![a("8"), a("10")], None),
            (vec![a("1")], None),
            (vec![a("x")], None),
            (vec![change(None, "8")], None),
        ] {
            assert_eq!(epoch_after(7, &changes), expected, "{changes:?}");
        }
    }

    #[test]
    fn each_tenant_is_read_once() {
        assert_eq!(named(&[change(Some("b"), "1"), change(Some("a"), "2"), change(Some("b"), "3")]), ["a", "b"]);
    }
}
