//! Who a request is: the tenant, from its key only.
//!
//! ```text
//!  Redis registry ──► follow ──► Snapshot ──► Registry::admit(headers, scope) ──► Caller { tenant, … }
//! ```
//! A [`Tenant`] is made nowhere else. Every call to a store takes one, so that no name that came
//! with a request can ever choose whose data is touched.

mod auth;
mod folder;
mod follow;
mod peppers;
mod receipt;
mod snapshot;
mod trust;
mod uses;

pub use auth::{AuthError, Caller};
pub use follow::RegistrySettings;
pub use peppers::Peppers;
pub use receipt::Receipt;
pub use trust::TrustSettings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::TenantName;
use crds::names::Lane;
use crds::registry::RegistryTenant;
use runtime::stores::Redis;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::event::Micros;
use snapshot::Snapshot;
use uses::Uses;

const MICROS_PER_DAY: Micros = 24 * 3600 * 1_000_000;

/// What can go wrong here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of peppers can't be read.
    #[error("read the peppers in `{folder}`")]
    Peppers {
        /// The folder.
        folder: String,
        /// The cause.
        source: std::io::Error,
    },
    /// No pepper, so no key could ever match.
    #[error("no pepper of at least {minimum} bytes in `{folder}`")]
    NoPepper {
        /// The folder.
        folder: String,
        /// Fewest bytes of a pepper.
        minimum: usize,
    },
    /// The folder of the registry's keys can't be read.
    #[error("read the keys of the registry in `{folder}`")]
    RegistryKeys {
        /// The folder.
        folder: String,
        /// The cause.
        source: std::io::Error,
    },
    /// What is there is no key.
    #[error("the keys of the registry in `{folder}`")]
    RegistryKey {
        /// The folder.
        folder: String,
        /// The cause.
        source: crds::signature::BadKey,
    },
    /// By the keys that are mounted nothing in the registry is believed: it is they that are wrong, or all of the
    /// registry is forged. No tenant is gone for that.
    #[error("none of the registry's {entries} entries is signed with a key that is mounted here")]
    NothingBelieved {
        /// Entries that stand there.
        entries: usize,
    },
    /// A client can't be made.
    #[error("connect to the registry")]
    Store(#[from] runtime::stores::Error),
    /// Redis doesn't answer as it should.
    #[error("read the registry")]
    Redis(#[from] redis::RedisError),
}

/// A tenant that the registry knows.
#[derive(Debug, PartialEq, Eq)]
pub struct Tenant {
    registered: RegistryTenant,
}

impl Tenant {
    /// Its name, which is its id in every store.
    pub fn name(&self) -> &TenantName {
        &self.registered.tenant
    }

    /// Everything that the operator registered of it.
    pub fn registered(&self) -> &RegistryTenant {
        &self.registered
    }

    /// What was accepted before this time is kept no longer.
    pub fn kept_after(&self, now: Micros) -> Micros {
        now - Micros::from(self.registered.total_days) * MICROS_PER_DAY
    }

    /// What was accepted before this time need not be in the index any longer.
    pub fn hot_after(&self, now: Micros) -> Micros {
        now - Micros::from(self.registered.hot_days) * MICROS_PER_DAY
    }

    /// The lane of the queue that takes its entries.
    pub fn lane(&self) -> Lane {
        self.registered.pipeline.lane(self.name())
    }
}

/// The tenants and their keys, kept current in memory. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    peppers: watch::Receiver<Arc<Peppers>>,
    state: watch::Receiver<State>,
    uses: Uses,
}

/// What the follower publishes.
#[derive(Clone, Default)]
struct State {
    /// The tenants; `None` until Redis gave them for the first time.
    snapshot: Option<Arc<Snapshot>>,
    /// When Redis last confirmed the snapshot.
    confirmed: Option<Instant>,
    /// Entries that stand in Redis and are not believed.
    refused: usize,
}

/// Longest time that keys are checked by a registry that Redis does not confirm: it may be that only this process
/// can't reach it, and that keys were revoked since. A restart of Redis, or its failover, takes a fraction of it.
pub const MOST_AGE: Duration = Duration::from_secs(15 * 60);

impl Registry {
    /// Follows the registry in Redis until `stop`, for a process that checks no keys. Returns at
    /// once: see [`Self::is_loaded`].
    pub fn follow(redis: &Redis, trust: &TrustSettings, stop: CancellationToken) -> Result<Self, Error> {
        let (publish, state) = watch::channel(State::default());
        let follower = follow::Follower::new(redis, trust::follow(trust, stop.clone())?)?;
        tokio::spawn(follower.run(publish, stop));
        Ok(Self { peppers: Peppers::none().unchanging(), state, uses: Uses::none() })
    }

    /// The same for a process that checks keys: follows the peppers too, and notes when keys are used.
    pub fn check_keys(redis: &Redis, settings: &RegistrySettings, stop: CancellationToken) -> Result<Self, Error> {
        let peppers = Peppers::follow(settings.peppers.clone(), stop.clone())?;
        let uses = Uses::write(redis, stop.clone())?;
        Ok(Self { peppers, uses, ..Self::follow(redis, &settings.trust, stop)? })
    }

    /// A registry that holds these tenants and follows nothing: for tools and tests.
    pub fn fixed(tenants: impl IntoIterator<Item = RegistryTenant>, peppers: Peppers) -> Self {
        let snapshot = Snapshot::new(0, tenants);
        // The sender is dropped: a receiver keeps the last value.
        let (_, state) = watch::channel(State { snapshot: Some(Arc::new(snapshot)), ..State::default() });
        Self { peppers: peppers.unchanging(), state, uses: Uses::none() }
    }

    /// Whether the tenants are known, and by a registry that is not too old to check keys by.
    pub fn is_loaded(&self) -> bool {
        self.state.borrow().snapshot.is_some() && !self.is_too_old()
    }

    /// Whether a key may have been revoked so long ago that it is better to admit nobody.
    fn is_too_old(&self) -> bool {
        self.age().is_some_and(|age| age > MOST_AGE)
    }

    /// Waits until the tenants are known, or for ever if nothing follows Redis any more.
    pub async fn loaded(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| state.snapshot.is_some()).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How long ago Redis last confirmed what we hold; `None` for one that follows nothing. Normally below two seconds.
    ///
    /// While Redis is away, the last known tenants stay in force: reading goes on, with any key for [`MOST_AGE`].
    pub fn age(&self) -> Option<Duration> {
        self.state.borrow().confirmed.map(|at| at.elapsed())
    }

    /// How many entries stand in Redis that are not believed: somebody but the operator wrote them.
    pub fn refused(&self) -> usize {
        self.state.borrow().refused
    }

    /// The tenant of this name, in whatever state: what is queued is stored even while it leaves.
    pub fn tenant(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.snapshot()?.tenants.get(name).cloned()
    }

    /// Every tenant, in whatever state, ordered by name.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        let mut tenants: Vec<_> =
            self.snapshot().map(|snapshot| snapshot.tenants.values().cloned().collect()).unwrap_or_default();
        tenants.sort_by(|a: &Arc<Tenant>, b| a.name().cmp(b.name()));
        tenants
    }

    /// The peppers that keys and receipts are checked under, as they are mounted now.
    pub fn peppers(&self) -> Arc<Peppers> {
        Arc::clone(&self.peppers.borrow())
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.state.borrow().snapshot.clone()
    }
}
