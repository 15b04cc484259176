//! The one way in: whatever protocol logs came by, they are accepted here.
//!
//! ```text
//!  protocol ─► arrive (who it is) ─► admit (quota, budget) ─► its bytes, each paid for by hold
//!           ─► accept: unpack ─► the protocol's decoder ─► Events ─► key ─► quota ─► queue ─► Kept, or Refusal
//! ```
//! A protocol brings bytes, packed or not, and a function that finds events in them; it reads from its peer and
//! answers in its own words. Everything else is the same for all and stands here: limits, the memory budget, quotas, idempotency,
//! receipts, metrics. Nothing here knows how a request came.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crds::TenantName;
use crds::tenant::Scope;
use runtime::metrics::Metrics;
use runtime::stores::{self, Redis};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::Found;
use super::keys::{Keys, Seen};
use super::limits::{BYTE_COST, MAX_IDEMPOTENCY_KEY, REQUEST_COST};
use super::metrics::{IngestMetrics, Outcome};
use super::quota::{Cost, Quotas};
use super::unpack::Unpacking;
use crate::cache::{Cache, Fate};
use crate::event::{Micros, keyed_batch_id, new_batch_id};
use crate::fail_points::{Point, reach};
use crate::fair::workers::Workers;
use crate::queue::entry::BatchHeader;
use crate::queue::{Batch, Budget, Claim, Producer};
use crate::tenancy::{AuthError, Caller, Receipt, Registry, Tenant};

pub use super::events::{Events, Known, Rejected, Taking};
pub use super::parse::Form;
pub use super::quota::{Dimension, Exceeded, Fields};
pub use super::refusal::{Cause, Refusal};
pub use super::unpack::{Encoding, Packed};

/// What is larger than this is unpacked and decoded on a thread of its own: about half a millisecond of work.
const DECODE_INLINE: usize = 256 * 1024;
/// Longest wait until a batch is stored; an ordinary flush takes a tenth of a second. Less than a server waits
/// for requests in flight at a stop.
const STORED_WITHIN: Duration = Duration::from_secs(10);
/// Requests that wait for that at once; others are answered as soon as their batch is queued. Each
/// looks twenty times a second, so that these are 10,000 commands a second, a tenth of what a Redis can.
const FOLLOWED: usize = 512;

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    registry: Registry,
    producer: Producer,
    keys: Keys,
    cache: Option<Cache>,
    /// Places for requests that wait until their batch is stored.
    followed: Arc<Semaphore>,
    /// Places for large requests that are unpacked and decoded: one a core, since each further thread would
    /// only hold memory of its own. Tenants take turns, so that nobody waits behind another's thousand bodies.
    decoding: Workers,
    quotas: Quotas,
    budget: Budget,
    metrics: IngestMetrics,
}

/// A request under way: whose it is, and what it holds of the budget until it is answered.
#[derive(Debug)]
pub struct Arrival {
    caller: Caller,
    claim: Claim,
    /// Bytes that the claim has room for.
    held: usize,
    began: Instant,
}

/// What a request brings: bytes, and how its protocol finds events in them.
pub struct Lines {
    packed: Packed,
    decode: Decode,
}

type Decode = Box<dyn FnOnce(&[u8], &mut Events<'_>) -> Result<(), Refusal> + Send>;

/// What a request wishes.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Its sender's name for the batch: the same bytes under the same name have one effect.
    pub key: Option<IdempotencyKey<'a>>,
    /// What becomes of the good events beside a bad one.
    pub taking: Taking,
    /// Set to wait until the batch is stored, by [`Intake::stored`].
    pub follow: Option<Follow>,
}

/// A sender's name for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey<'a>(&'a [u8]);

/// A place among the requests that wait until their batch is stored.
#[derive(Debug)]
pub struct Follow {
    _place: OwnedSemaphorePermit,
}

/// What the queue has, on disk where Redis is set so.
#[derive(Debug)]
pub struct Kept {
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// The batch.
    pub batch_id: Uuid,
    /// When it was accepted.
    pub accepted_at: Micros,
    /// Events that are processed: all but the rejected.
    pub accepted: usize,
    /// Events that are dead letters, by their position.
    pub rejected: Vec<Rejected>,
    /// What the sender can show to learn what became of the batch.
    pub receipt: String,
    /// The same bytes were kept before under the same key. False: as far as is known.
    pub duplicate: bool,
    follow: Option<Follow>,
}

impl Arrival {
    /// Whose request it is.
    pub fn tenant(&self) -> &Tenant {
        &self.caller.tenant
    }

    /// Takes room for so many bytes more of what the request brings, before they are kept.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.claim.grow(BYTE_COST * bytes)?;
        self.held += bytes;
        Ok(())
    }
}

impl Lines {
    /// These bytes, in which `decode` finds events. It may run on a thread of its own.
    pub fn new(
        packed: Packed,
        decode: impl FnOnce(&[u8], &mut Events<'_>) -> Result<(), Refusal> + Send + 'static,
    ) -> Self {
        Self { packed, decode: Box::new(decode) }
    }
}

impl<'a> IdempotencyKey<'a> {
    /// 1 to 255 visible ASCII characters.
    pub fn parse(text: &'a [u8]) -> Result<Self, Refusal> {
        if (1..=MAX_IDEMPOTENCY_KEY).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic) {
            Ok(Self(text))
        } else {
            Err(Refusal::InvalidIdempotencyKey)
        }
    }
}

impl Intake {
    /// The way into this queue, for who is in the registry. Requests hold up to `max_in_flight_bytes`; replicas are
    /// counted until `stop`. Without a cache, what it is good for is left out.
    pub fn start(
        redis: &Redis,
        registry: Registry,
        producer: Producer,
        cache: Option<Cache>,
        max_in_flight_bytes: usize,
        stop: CancellationToken,
    ) -> Result<Self, stores::Error> {
        Ok(Self {
            registry,
            producer,
            keys: Keys::new(cache.clone()),
            cache,
            followed: Arc::new(Semaphore::new(FOLLOWED)),
            decoding: Workers::new(std::thread::available_parallelism().map_or(1, usize::from)),
            quotas: Quotas::new(redis, stop)?,
            budget: Budget::new(max_in_flight_bytes),
            metrics: IngestMetrics::default(),
        })
    }

    /// Who may send.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Begins a request: its key decides whether it may send. A refused one is counted.
    pub fn arrive(&self, caller: Result<Caller, AuthError>) -> Result<Arrival, Refusal> {
        let began = Instant::now();
        let caller = caller.and_then(|caller| caller.require(Scope::Ingest).map(|()| caller));
        match caller {
            Ok(caller) => {
                let claim = self.budget.claim_for(caller.tenant.name());
                Ok(Arrival { caller, claim, held: 0, began })
            }
            Err(error) => {
                let refusal = Refusal::from(error);
                self.count_request(refusal.code().as_str(), began);
                Err(refusal)
            }
        }
    }

    /// Refuses what there is surely no room for, before anything of it is read. `bytes` are those that it will have
    /// at least, once unpacked.
    pub fn admit(&self, arrival: &mut Arrival, bytes: u64) -> Result<(), Refusal> {
        self.quotas.foresee(arrival.tenant(), Cost { bytes, events: 1 })?;
        Ok(arrival.claim.grow(REQUEST_COST)?)
    }

    /// Accepts what a request brings, or nothing of it.
    pub async fn accept(&self, arrival: &mut Arrival, lines: Lines, options: Options<'_>) -> Result<Kept, Refusal> {
        arrival.hold(lines.packed.len().saturating_sub(arrival.held))?;
        let (tenant, accepted_at) = (Arc::clone(&arrival.caller.tenant), now());
        let packed = lines.packed.is_packed().then_some(lines.packed.len());
        if let Some(length) = packed {
            self.quotas.foresee_packed(&tenant, length)?;
        }
        let Options { key, taking, follow } = options;
        let reading = Reading { decode: lines.decode, taking, keyed: key.is_some(), now: accepted_at };
        let (read, unpacked) = self.read(tenant.name(), lines.packed, reading, &mut arrival.claim).await;
        if read.as_ref().is_err_and(|refusal| refusal.cause() == Cause::Sender) {
            self.pay_for_refused(&tenant, unpacked, packed).await;
        }
        let Read { found: Found { events, raw, rejected }, body_hash } = read?;
        let (batch_id, seen) = self.identify(&tenant, key, body_hash.as_ref()).await;
        if seen == Seen::Other {
            self.pay_for_refused(&tenant, unpacked, packed).await;
            return Err(Refusal::IdempotencyKeyReused { kept: false });
        }
        let cost = Cost { bytes: unpacked as u64, events: events.len() as u64 };
        self.pay(&tenant, cost, packed).await?;
        let receipt = self.receipt(&tenant, batch_id, accepted_at, events.len());
        let (accepted, raw_bytes) = (events.len() - rejected.len(), raw.len());
        let key_id = arrival.caller.key_id.clone();
        let header = BatchHeader { batch_id, accepted_at, key_id, body_hash, events };
        if let (Some(cache), Some(_)) = (&self.cache, &follow) {
            cache.lease_fates(&tenant).await;
        }
        reach(Point::IngestParsed);
        if let Err(refusal) = self.queue(arrival, header, raw).await {
            self.quotas.give_back(&tenant, cost);
            return Err(refusal);
        }
        reach(Point::IngestQueued);
        if let (Some(hash), Seen::Unknown) = (&body_hash, seen) {
            self.keys.remember(&tenant, batch_id, hash).await;
        }
        self.metrics.events.inc_by(accepted as u64);
        self.metrics.rejected_events.inc_by(rejected.len() as u64);
        self.metrics.raw_bytes.inc_by(raw_bytes as u64);
        Ok(Kept { tenant, batch_id, accepted_at, accepted, rejected, receipt, duplicate: seen == Seen::Same, follow })
    }

    /// A place to wait until a batch is stored; `None` if no processor can say so, or too many wait.
    pub fn follow(&self) -> Option<Follow> {
        self.cache.as_ref()?;
        self.followed.clone().try_acquire_owned().ok().map(|place| Follow { _place: place })
    }

    /// Waits until a batch is stored that was accepted to be followed; `None` if it is not soon, or is not followed.
    pub async fn stored(&self, kept: &Kept) -> Option<Fate> {
        let (cache, _) = self.cache.as_ref().zip(kept.follow.as_ref())?;
        cache.await_fate(&kept.tenant, kept.batch_id, kept.accepted_at, STORED_WITHIN).await
    }

    /// Counts what became of a request.
    pub fn count(&self, arrival: &Arrival, outcome: &Result<Kept, Refusal>) {
        let code = outcome.as_ref().map_or_else(|refusal| refusal.code().as_str(), |_| "accepted");
        self.count_request(code, arrival.began);
        let outcome = outcome.as_ref().map_or_else(Refusal::outcome, |_| "accepted");
        self.metrics.by_tenant.count(arrival.tenant().name(), outcome);
    }

    /// What the request's tenant may still send; `None` if nothing is limited.
    pub fn quota_left(&self, arrival: &Arrival) -> Option<Fields> {
        self.quotas.fields(arrival.tenant())
    }

    /// Shows what is counted here.
    pub fn register(&self, metrics: &Metrics) {
        self.metrics.register(metrics);
    }

    /// Sets the gauges to what holds now.
    pub fn refresh_metrics(&self) {
        self.metrics.in_flight_bytes.set(i64::try_from(self.budget.in_flight()).unwrap_or(i64::MAX));
        let age = self.registry.age().map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        self.metrics.registry_age_seconds.set(age);
        self.metrics.clock_ahead_seconds.set(self.producer.health().clock_ahead_seconds);
    }

    fn count_request(&self, code: &'static str, began: Instant) {
        self.metrics.requests.get_or_create(&Outcome { code }).inc();
        self.metrics.seconds.0.observe(began.elapsed().as_secs_f64());
    }

    fn receipt(&self, tenant: &Tenant, batch_id: Uuid, accepted_at: Micros, events: usize) -> String {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let receipt = Receipt { tenant: tenant.name().clone(), batch_id, accepted_at, events };
        self.registry.peppers().sign(&receipt)
    }

    /// The batch's id, and what is known of its key.
    async fn identify(
        &self,
        tenant: &Tenant,
        key: Option<IdempotencyKey<'_>>,
        body_hash: Option<&[u8; 32]>,
    ) -> (Uuid, Seen) {
        let (Some(IdempotencyKey(key)), Some(body_hash)) = (key, body_hash) else {
            return (new_batch_id(), Seen::Unknown);
        };
        let batch_id = keyed_batch_id(tenant.name(), key);
        (batch_id, self.keys.look_up(tenant, batch_id, body_hash).await)
    }

    /// Takes the cost of a request from its tenant's quotas. `packed` is its length as sent, if it was unpacked.
    async fn pay(&self, tenant: &Tenant, cost: Cost, packed: Option<usize>) -> Result<(), Exceeded> {
        let paid = self.quotas.take(tenant, cost).await;
        if let (Err(exceeded), Some(length)) = (&paid, packed) {
            self.quotas.unpacked_in_vain(tenant, length, exceeded);
        }
        paid
    }

    /// Takes from a tenant's quotas what reading a request cost that was then refused. It is taken at once: a sender of
    /// nothing but bad requests never comes to where good ones pay. What can't be had is owed.
    async fn pay_for_refused(&self, tenant: &Tenant, unpacked: usize, packed: Option<usize>) {
        let cost = refused_cost(unpacked);
        if self.pay(tenant, cost, packed).await.is_err() {
            self.quotas.charge(tenant, cost);
        }
    }

    /// Gives a batch to the queue, in the lane where its tenant's events go now. A body may have been under way for
    /// half a minute: its tenant may be gone since it was admitted, or in another pipeline.
    async fn queue(&self, arrival: &mut Arrival, header: BatchHeader, raw: Vec<u8>) -> Result<(), Refusal> {
        let tenant = self.registry.still_admits(&arrival.caller)?;
        // What it holds goes with the batch, and is given back when that is answered.
        arrival.held = 0;
        Ok(self.producer.send(Batch { tenant, header, raw, claim: arrival.claim.take() }).await?)
    }

    /// Unpacks and decodes: what is small at once, else on a thread of its own. Says how many bytes were
    /// unpacked, also of what is refused.
    async fn read(
        &self,
        tenant: &TenantName,
        packed: Packed,
        reading: Reading,
        claim: &mut Claim,
    ) -> (Result<Read, Refusal>, usize) {
        let mut unpacking = match packed.unpacking() {
            Ok(unpacking) => unpacking,
            Err(refusal) => return (Err(refusal), 0),
        };
        match unpacking.go_on(DECODE_INLINE, claim) {
            Ok(whole) if whole && unpacking.len() <= DECODE_INLINE => {
                return (reading.read(&mut unpacking, claim), unpacking.len());
            }
            Ok(_) => {}
            Err(refusal) => return (Err(refusal), unpacking.len()),
        }
        let _place = self.decoding.place(tenant).await;
        let mut carried = claim.take();
        let work = move || (reading.read(&mut unpacking, &mut carried), unpacking.len(), carried);
        match tokio::task::spawn_blocking(work).await {
            Ok((read, unpacked, carried)) => {
                *claim = carried;
                (read, unpacked)
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// How bytes are to be read.
struct Reading {
    decode: Decode,
    taking: Taking,
    /// Whether they came under an idempotency key, and are hashed.
    keyed: bool,
    now: Micros,
}

/// What was read.
struct Read {
    found: Found,
    /// SHA-256 of what was unpacked, to tell a resend from another body under the same key.
    body_hash: Option<[u8; 32]>,
}

impl Reading {
    fn read(self, unpacking: &mut Unpacking, claim: &mut Claim) -> Result<Read, Refusal> {
        let body = unpacking.whole(claim)?;
        let mut events = Events::new(self.taking, self.now, body.len(), claim);
        (self.decode)(body, &mut events)?;
        let found = events.finish()?;
        Ok(Read { found, body_hash: self.keyed.then(|| Sha256::digest(body).into()) })
    }
}

/// What a request counts in its tenant's quotas that was unpacked and then refused: reading it took as much as if it had been
/// events of a kilobyte. Without that, bodies of some hundred bytes that unpack to 20 MiB would be for nothing.
fn refused_cost(unpacked: usize) -> Cost {
    let bytes = unpacked as u64;
    Cost { bytes, events: bytes.div_ceil(1024).max(1) }
}

fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}
