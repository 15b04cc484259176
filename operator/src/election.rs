//! Leader election: of several operators one works, the others stand by.
//!
//! The protocol is client-go's, over a Lease of `coordination.k8s.io`. Nobody compares clocks: a
//! lease has run out once it was *seen* unchanged for as long as it says, on the watcher's own
//! clock. A lease is no fence: a leader that stood still may go on for a moment after another has
//! taken over. What that could harm happens under the tenant's lock in PostgreSQL.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rand::RngExt;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::kubernetes::{explain, is_conflict};

/// How long a lease stands that nobody renews.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long leads no more. Below [`DURATION`]: it has ended before
/// anybody else begins.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between two renewals, and the longest between two looks at somebody else's lease.
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait to give the lease back when stopping; without it, it runs out.
const RESIGN: Duration = Duration::from_secs(3);

/// A candidate.
#[derive(Clone)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    me: String,
}

/// The lease is ours.
pub struct Leadership {
    election: Election,
    /// When the last renewal that succeeded was begun.
    renewed_at: Instant,
}

/// Somebody's lease, and since when it is seen unchanged.
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

/// What came of a renewal.
enum Renewal {
    Done,
    /// Somebody has written the Lease between our look and our write; the next look tells who.
    Conflict,
    NotOurs,
}

impl Election {
    /// For the Lease `name`. Each candidate is another one, also of the same pod after a restart.
    pub fn new(client: Client, namespace: &str, name: String) -> Self {
        // A pod's hostname is its name, for whoever reads the Lease.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let me = format!("{}_{}", host.trim(), Uuid::now_v7());
        Self { leases: Api::namespaced(client, namespace), name, me }
    }

    /// Who this candidate is, as the Lease says it.
    pub fn identity(&self) -> &str {
        &self.me
    }

    /// Waits until the lease is ours.
    pub async fn win(&self) -> Leadership {
        let mut seen: Option<Seen> = None;
        loop {
            let begun = Instant::now();
            match timeout(DEADLINE, self.try_to_win(&mut seen)).await {
                Ok(Ok(true)) => return Leadership { election: self.clone(), renewed_at: begun },
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!("ask for the lease {}: {}", self.name, explain(&error)),
                Err(_) => tracing::warn!("ask for the lease {}: no answer within {DEADLINE:?}", self.name),
            }
            // Candidates that started together do not go on together; nor does one sleep past the end.
            let retry = RETRY.mul_f64(rand::rng().random_range(1.0..1.2));
            let stands = seen.as_ref().map(|seen| stands_for(&seen.spec, &self.me, seen.since.elapsed()));
            sleep(stands.filter(|stands| !stands.is_zero()).map_or(retry, |stands| stands.min(retry))).await;
        }
    }

    async fn try_to_win(&self, seen: &mut Option<Seen>) -> kube::Result<bool> {
        let Some(found) = self.leases.get_opt(&self.name).await? else { return self.create().await };
        let spec = found.spec.clone().unwrap_or_default();
        let seen = match seen {
            Some(seen) if seen.spec == spec => seen,
            _ => seen.insert(Seen { spec, since: Instant::now() }),
        };
        if !stands_for(&seen.spec, &self.me, seen.since.elapsed()).is_zero() {
            return Ok(false);
        }
        let taken = held_by(&self.me, Some(&seen.spec), Timestamp::now());
        self.replace(found, taken).await
    }

    async fn create(&self) -> kube::Result<bool> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(held_by(&self.me, None, Timestamp::now())) };
        unless_conflict(self.leases.create(&PostParams::default(), &lease).await)
    }

    /// Writes what `found` is to be, if nobody has written it since.
    async fn replace(&self, found: Lease, spec: LeaseSpec) -> kube::Result<bool> {
        let lease = Lease { spec: Some(spec), ..found };
        unless_conflict(self.leases.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// The Lease, if it is ours.
    async fn ours(&self) -> kube::Result<Option<(Lease, LeaseSpec)>> {
        let Some(found) = self.leases.get_opt(&self.name).await? else { return Ok(None) };
        let spec = found.spec.clone().unwrap_or_default();
        Ok((spec.holder_identity.as_ref() == Some(&self.me)).then_some((found, spec)))
    }

    /// Renews the lease if it is still ours.
    async fn renew(&self) -> kube::Result<Renewal> {
        let Some((found, spec)) = self.ours().await? else { return Ok(Renewal::NotOurs) };
        let renewed = held_by(&self.me, Some(&spec), Timestamp::now());
        Ok(if self.replace(found, renewed).await? { Renewal::Done } else { Renewal::Conflict })
    }
}

impl Leadership {
    /// Renews the lease, and ends when it is lost: whoever led must stop at once.
    pub async fn lost(&mut self) {
        loop {
            sleep(RETRY).await;
            let begun = Instant::now();
            let left = DEADLINE.saturating_sub(self.renewed_at.elapsed());
            match timeout(left, self.election.renew()).await {
                Ok(Ok(Renewal::Done)) => self.renewed_at = begun,
                Ok(Ok(Renewal::Conflict)) => {}
                Ok(Ok(Renewal::NotOurs)) => {
                    tracing::error!("the lease {} is another operator's", self.election.name);
                    return;
                }
                Ok(Err(error)) => tracing::warn!("renew the lease {}: {}", self.election.name, explain(&error)),
                Err(_) => {}
            }
            if self.renewed_at.elapsed() >= DEADLINE {
                tracing::error!("the lease {} could not be renewed for {DEADLINE:?}", self.election.name);
                return;
            }
        }
    }

    /// What an operator that led before has noted on the lease.
    pub async fn noted(&self, annotation: &str) -> kube::Result<Option<String>> {
        let found = self.election.ours().await?;
        Ok(found.and_then(|(lease, _)| lease.metadata.annotations?.remove(annotation)))
    }

    /// Notes something on the lease, for the operator that leads next. Not while [`Self::lost`] renews it.
    pub async fn note(&self, annotation: &str, value: &str) -> kube::Result<()> {
        let Some((mut lease, spec)) = self.election.ours().await? else { return Ok(()) };
        let annotations = lease.metadata.annotations.get_or_insert_default();
        if annotations.insert(annotation.to_owned(), value.to_owned()).as_deref() != Some(value) {
            self.election.replace(lease, spec).await?;
        }
        Ok(())
    }

    /// Gives the lease back, so that the next one need not wait until it runs out. Call it when
    /// nothing is in flight any more.
    pub async fn resign(self) {
        let given_back = timeout(RESIGN, async {
            let Some((found, spec)) = self.election.ours().await? else { return Ok(false) };
            self.election.replace(found, given_back(&spec)).await
        });
        match given_back.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("give the lease back: {}", explain(&error)),
            Err(_) => tracing::warn!("give the lease back: no answer within {RESIGN:?}"),
        }
    }
}

fn unless_conflict(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// How long a lease that was seen unchanged for so long still keeps `me` away; zero: it may be taken.
fn stands_for(spec: &LeaseSpec, me: &str, unchanged_for: Duration) -> Duration {
    match spec.holder_identity.as_deref() {
        None | Some("") => Duration::ZERO,
        Some(holder) if holder == me => Duration::ZERO,
        Some(_) => {
            let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            seconds.map_or(DURATION, Duration::from_secs).saturating_sub(unchanged_for)
        }
    }
}

/// The lease as `me` holds it from now on.
fn held_by(me: &str, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
    let before = before.cloned().unwrap_or_default();
    let goes_on = before.holder_identity.as_deref() == Some(me);
    let transitions = before.lease_transitions.unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: before.acquire_time.filter(|_| goes_on).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if goes_on { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

/// The lease as nobody's.
fn given_back(before: &LeaseSpec) -> LeaseSpec {
    LeaseSpec { lease_transitions: before.lease_transitions, ..LeaseSpec::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn of(holder: &str) -> LeaseSpec {
        held_by(holder, None, at(0))
    }

    #[test]
    fn a_lease_is_free_if_it_is_nobodys_or_ours_or_was_seen_unchanged_for_its_time() {
        let seconds = Duration::from_secs;
        let short = LeaseSpec { lease_duration_seconds: Some(3), ..of("other") };
        let odd = LeaseSpec { lease_duration_seconds: None, ..of("other") };
        for (spec, unchanged_for, stands) in [
            (LeaseSpec::default(), seconds(0), seconds(0)),
            (given_back(&of("other")), seconds(0), seconds(0)),
            (LeaseSpec { holder_identity: Some(String::new()), ..of("other") }, seconds(0), seconds(0)),
            (of("me"), seconds(0), seconds(0)),
            (of("other"), seconds(0), seconds(15)),
            (of("other"), Duration::from_millis(14_999), Duration::from_millis(1)),
            (of("other"), seconds(15), seconds(0)),
            (of("other"), seconds(60), seconds(0)),
            (short, seconds(1), seconds(2)),
            (odd, seconds(14), seconds(1)),
        ] {
            assert_eq!(stands_for(&spec, "me", unchanged_for), stands, "{spec:?} {unchanged_for:?}");
        }
    }

    #[test]
    fn what_its_times_say_is_not_looked_at() {
        let long_ago = LeaseSpec { renew_time: Some(MicroTime(at(-1_000_000))), ..of("other") };
        assert_eq!(stands_for(&long_ago, "me", Duration::ZERO), DURATION);
    }

    #[test]
    fn a_renewal_keeps_when_it_began_and_a_takeover_counts() {
        let first = held_by("a", None, at(1));
        assert_eq!((first.lease_transitions, first.lease_duration_seconds), (Some(1), Some(15)));
        let renewed = held_by("a", Some(&first), at(3));
        assert_eq!((&renewed.acquire_time, renewed.lease_transitions), (&first.acquire_time, Some(1)));
        assert_eq!(renewed.renew_time, Some(MicroTime(at(3))));
        let taken = held_by("b", Some(&renewed), at(30));
        assert_eq!((taken.acquire_time, taken.lease_transitions), (Some(MicroTime(at(30))), Some(2)));
        let after_release = held_by("c", Some(&given_back(&renewed)), at(40));
        assert_eq!(after_release.lease_transitions, Some(2));
    }
}
