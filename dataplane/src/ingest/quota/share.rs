//! One replica's share of a tenant's quotas: what it has leased, and what it last saw in Redis. All of
//! it is arithmetic on values; the time is given.

use std::time::{Duration, Instant};

use crds::registry::{IngestQuotas, Rate};

/// Part of a second's rate that is leased ahead: a replica at its limit asks twice a second.
const LEASE_SECONDS: f64 = 0.5;
/// Part of the burst that one replica leases at most.
const LEASE_BURST: f64 = 0.25;

/// What a request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingest) struct Cost {
    /// Bytes of its body, decompressed.
    pub(in crate::ingest) bytes: u64,
    /// Its events.
    pub(in crate::ingest) events: u64,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Bytes of events.
    Bytes,
    /// Events.
    Events,
}

impl Dimension {
    /// As users read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Events => "events",
        }
    }

    /// As metrics name a refusal for it.
    pub(in crate::ingest) fn outcome(self) -> &'static str {
        match self {
            Self::Bytes => "quota_bytes",
            Self::Events => "quota_events",
        }
    }
}

/// Why a request must wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the tenant's quota of {rate} {what} per second (at most {burst} at once) is used up; send again in {seconds} s",
    rate = limit.per_second, what = dimension.name(), burst = limit.burst, seconds = self.retry_after_seconds()
)]
pub struct Exceeded {
    /// What there is too little of.
    pub dimension: Dimension,
    /// Its limit.
    pub limit: Rate,
    /// How long until there is enough, if nobody else takes it.
    pub wait: Duration,
}

impl Exceeded {
    /// Whole seconds, rounded up: earlier would be in vain.
    pub fn retry_after_seconds(&self) -> u64 {
        self.wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
    }
}

/// Whether a request was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was.
    Enough,
    /// Redis can't have enough either.
    Refused(Exceeded),
    /// Redis may have enough.
    LeaseNeeded,
}

/// What to ask Redis for in one dimension; a rate of 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Wanted {
    pub(super) rate: u64,
    pub(super) burst: u64,
    /// What the request lacks.
    pub(super) need: f64,
    /// What would be good to have.
    pub(super) want: f64,
}

/// What to ask Redis for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ask {
    pub(super) bytes: Wanted,
    pub(super) events: Wanted,
}

/// What Redis says of one dimension.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Leased {
    pub(super) granted: f64,
    /// What is left in Redis; below zero while a large body is paid back.
    pub(super) left: f64,
}

/// What Redis says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answer {
    pub(super) bytes: Leased,
    pub(super) events: Leased,
}

/// Header fields of draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` and `RateLimit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The limits.
    pub policy: String,
    /// What is left of them.
    pub limits: String,
}

/// One dimension's share.
#[derive(Debug, Clone)]
struct Bucket {
    dimension: Dimension,
    limit: Rate,
    /// Leased and not used.
    own: f64,
    /// What Redis had when it was last asked.
    seen: Option<(f64, Instant)>,
    /// The bucket of a replica that has to do without Redis.
    alone: Option<(f64, Instant)>,
}

/// Time for which a tenant is refused at most for what it owes.
const LONGEST_DEBT: Duration = Duration::from_secs(60);

/// One replica's share of one tenant's quotas.
#[derive(Debug, Clone)]
pub(super) struct Share {
    quotas: IngestQuotas,
    bytes: Option<Bucket>,
    events: Option<Bucket>,
    in_vain: Option<InVain>,
}

/// A packed body that was unpacked, and only then seen to be more than there is.
#[derive(Debug, Clone)]
struct InVain {
    /// Its bytes as sent.
    length: u64,
    exceeded: Exceeded,
    /// When its sender was told to come again.
    until: Instant,
}

/// What a bucket that held `tokens` some time ago holds now.
fn refilled(tokens: f64, since: Duration, rate: f64, burst: f64) -> f64 {
    (tokens + since.as_secs_f64() * rate).min(burst)
}

impl Bucket {
    fn new(dimension: Dimension, limit: Rate) -> Self {
        Self { dimension, limit, own: 0.0, seen: None, alone: None }
    }

    fn rate(&self) -> f64 {
        self.limit.per_second as f64
    }

    fn burst(&self) -> f64 {
        self.limit.burst as f64
    }

    /// Most that Redis can have now: others may have taken some.
    fn at_most(&self, now: Instant) -> f64 {
        self.seen.map_or(self.burst(), |(left, at)| {
            refilled(left, now.saturating_duration_since(at), self.rate(), self.burst())
        })
    }

    /// What is missing for `cost`.
    fn lacks(&self, cost: f64) -> f64 {
        (cost - self.own).max(0.0)
    }

    /// Why `cost` can't be had, if Redis surely has too little. More than a burst is never asked for.
    fn shortage(&self, cost: f64, now: Instant) -> Option<Exceeded> {
        let lacking = self.lacks(cost);
        let short = lacking.min(self.burst()) - self.at_most(now);
        let wait = || Duration::try_from_secs_f64(short / self.rate()).unwrap_or(Duration::MAX);
        (lacking > 0.0 && short > 0.0).then(|| Exceeded { dimension: self.dimension, limit: self.limit, wait: wait() })
    }

    fn wanted(&self, cost: f64) -> Wanted {
        let want = (self.rate() * LEASE_SECONDS).min(self.burst() * LEASE_BURST).max(1.0);
        Wanted { rate: self.limit.per_second, burst: self.limit.burst, need: self.lacks(cost), want }
    }

    /// Fills the replica's own bucket at its part of the rate and moves what is needed into the share.
    fn fill_alone(&mut self, cost: f64, replicas: u64, now: Instant) -> Result<f64, Exceeded> {
        let part = replicas.max(1) as f64;
        let (rate, burst) = (self.rate() / part, self.burst() / part);
        let had = match self.alone {
            Some((tokens, at)) => refilled(tokens, now.saturating_duration_since(at), rate, burst),
            // What was seen last is what there was to divide.
            None => (self.at_most(now) / part).max(0.0),
        };
        self.alone = Some((had, now));
        let lacking = self.lacks(cost);
        let short = lacking.min(burst) - had;
        if lacking > 0.0 && short > 0.0 {
            let wait = Duration::try_from_secs_f64(short / rate).unwrap_or(Duration::MAX);
            return Err(Exceeded { dimension: self.dimension, limit: self.limit, wait });
        }
        Ok(lacking)
    }
}

impl Share {
    pub(super) fn new(quotas: IngestQuotas) -> Self {
        Self {
            quotas,
            bytes: quotas.bytes.map(|limit| Bucket::new(Dimension::Bytes, limit)),
            events: quotas.events.map(|limit| Bucket::new(Dimension::Events, limit)),
            in_vain: None,
        }
    }

    /// The quotas that this is a share of.
    pub(super) fn quotas(&self) -> IngestQuotas {
        self.quotas
    }

    /// Refuses if not even this much can be had.
    pub(super) fn foresee(&self, least: Cost, now: Instant) -> Result<(), Exceeded> {
        // Of two shortages the longer one decides when to come again.
        let shortages = self.buckets(least).filter_map(|(bucket, cost)| bucket.shortage(cost, now));
        shortages.max_by_key(|exceeded| exceeded.wait).map_or(Ok(()), Err)
    }

    /// Refuses a packed body of so many bytes as sent, if it is like one that was unpacked in vain and comes before that
    /// one may: at least half as long, since half as long again and again is soon nothing.
    pub(super) fn foresee_packed(&self, length: u64, now: Instant) -> Result<(), Exceeded> {
        match &self.in_vain {
            Some(InVain { length: before, exceeded, until }) if now < *until && length >= before / 2 => {
                Err(Exceeded { wait: *until - now, ..exceeded.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Notes that a packed body of so many bytes as sent was unpacked in vain.
    pub(super) fn unpacked_in_vain(&mut self, length: u64, exceeded: &Exceeded, now: Instant) {
        // As its sender was told, in whole seconds: then it may be tried.
        let wait = Duration::from_secs(exceeded.retry_after_seconds()).min(LONGEST_DEBT);
        let before = self.in_vain.take().filter(|before| now < before.until);
        let length = before.as_ref().map_or(length, |before| before.length.min(length));
        let until = before.map_or(now + wait, |before| before.until.max(now + wait));
        self.in_vain = Some(InVain { length, exceeded: exceeded.clone(), until });
    }

    /// Takes the cost from what is leased.
    pub(super) fn take(&mut self, cost: Cost, now: Instant) -> Taken {
        if self.buckets(cost).all(|(bucket, cost)| bucket.lacks(cost) <= 0.0) {
            self.spend(cost);
            return Taken::Enough;
        }
        match self.foresee(cost, now) {
            Ok(()) => Taken::LeaseNeeded,
            Err(exceeded) => Taken::Refused(exceeded),
        }
    }

    /// What to ask Redis for.
    pub(super) fn ask(&self, cost: Cost) -> Ask {
        let wanted = |bucket: &Option<Bucket>, cost: u64| bucket.as_ref().map(|bucket| bucket.wanted(cost as f64));
        Ask {
            bytes: wanted(&self.bytes, cost.bytes).unwrap_or_default(),
            events: wanted(&self.events, cost.events).unwrap_or_default(),
        }
    }

    /// Notes Redis's answer and takes the cost if it is enough.
    pub(super) fn answered(&mut self, cost: Cost, answer: Answer, now: Instant) -> Result<(), Exceeded> {
        for (bucket, leased) in [(&mut self.bytes, answer.bytes), (&mut self.events, answer.events)] {
            if let Some(bucket) = bucket {
                bucket.own += leased.granted;
                bucket.seen = Some((leased.left, now));
                bucket.alone = None;
            }
        }
        self.settle(cost, now)
    }

    /// Does without Redis: this replica's part of the rate, of what was last seen.
    pub(super) fn alone(&mut self, cost: Cost, replicas: u64, now: Instant) -> Result<(), Exceeded> {
        let mut lacking = Vec::new();
        for (bucket, cost) in [(&mut self.bytes, cost.bytes), (&mut self.events, cost.events)] {
            if let Some(bucket) = bucket {
                lacking.push(bucket.fill_alone(cost as f64, replicas, now)?);
            }
        }
        let buckets = [&mut self.bytes, &mut self.events].into_iter().flatten();
        for (bucket, lacking) in buckets.zip(lacking) {
            bucket.own += lacking;
            if let Some((tokens, _)) = &mut bucket.alone {
                *tokens -= lacking;
            }
        }
        self.settle(cost, now)
    }

    /// Takes the cost whether there is enough or not. What is owed is bounded by [`LONGEST_DEBT`] of the rate.
    pub(super) fn charge(&mut self, cost: Cost) {
        self.spend(cost);
        for bucket in [&mut self.bytes, &mut self.events].into_iter().flatten() {
            bucket.own = bucket.own.max(-bucket.rate() * LONGEST_DEBT.as_secs_f64());
        }
    }

    /// Puts a cost that was taken back into the share.
    pub(super) fn give_back(&mut self, cost: Cost) {
        self.spend_with(cost, -1.0);
    }

    /// The header fields of an answer.
    pub(super) fn fields(&self, now: Instant) -> Fields {
        let (mut policy, mut limits) = (Vec::new(), Vec::new());
        for bucket in [&self.bytes, &self.events].into_iter().flatten() {
            let name = bucket.dimension.name();
            let Rate { per_second, burst } = bucket.limit;
            let left = (bucket.at_most(now).max(0.0) + bucket.own).min(bucket.burst()).max(0.0).floor();
            let full_in = ((bucket.burst() - left) / bucket.rate()).ceil();
            policy.push(format!("\"{name}\";q={burst};w={}", burst.div_ceil(per_second)));
            limits.push(format!("\"{name}\";r={left};t={full_in}"));
        }
        Fields { policy: policy.join(", "), limits: limits.join(", ") }
    }

    fn buckets(&self, cost: Cost) -> impl Iterator<Item = (&Bucket, f64)> {
        let both = [(&self.bytes, cost.bytes), (&self.events, cost.events)];
        both.into_iter().filter_map(|(bucket, cost)| Some((bucket.as_ref()?, cost as f64)))
    }

    fn settle(&mut self, cost: Cost, now: Instant) -> Result<(), Exceeded> {
        match self.take(cost, now) {
            Taken::Enough => Ok(()),
            Taken::Refused(exceeded) => Err(exceeded),
            // Redis said no, and its clock or its roundings are a little behind ours.
            Taken::LeaseNeeded => Err(self.soon(cost)),
        }
    }

    fn soon(&self, cost: Cost) -> Exceeded {
        let lacking = self.buckets(cost).find(|(bucket, cost)| bucket.lacks(*cost) > 0.0);
        let (dimension, limit) = lacking.map_or_else(
            || (Dimension::Bytes, Rate { per_second: 0, burst: 0 }),
            |(bucket, _)| (bucket.dimension, bucket.limit),
        );
        Exceeded { dimension, limit, wait: Duration::from_millis(100) }
    }

    fn spend(&mut self, cost: Cost) {
        self.spend_with(cost, 1.0);
    }

    fn spend_with(&mut self, cost: Cost, sign: f64) {
        for (bucket, cost) in [(&mut self.bytes, cost.bytes), (&mut self.events, cost.events)] {
            if let Some(bucket) = bucket {
                bucket.own -= sign * cost as f64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(bytes: Option<(u64, u64)>, events: Option<(u64, u64)>) -> IngestQuotas {
        let rate = |(per_second, burst)| Rate { per_second, burst };
        IngestQuotas { bytes: bytes.map(rate), events: events.map(rate) }
    }

    fn cost(bytes: u64, events: u64) -> Cost {
        Cost { bytes, events }
    }

    fn leased(granted: f64, left: f64) -> Leased {
        Leased { granted, left }
    }

    #[test]
    fn a_lease_is_used_up_before_redis_is_asked_again() {
        let now = Instant::now();
        let mut share = Share::new(quotas(None, Some((100, 1000))));
        assert_eq!(share.take(cost(5_000, 10), now), Taken::LeaseNeeded);
        let ask = share.ask(cost(5_000, 10));
        assert_eq!((ask.bytes, ask.events.need, ask.events.want), (Wanted::default(), 10.0, 50.0));
        let answer = Answer { bytes: leased(0.0, 0.0), events: leased(50.0, 950.0) };
        assert_eq!(share.answered(cost(5_000, 10), answer, now), Ok(()));
        assert_eq!(share.take(cost(1, 40), now), Taken::Enough);
        assert_eq!(share.take(cost(1, 1), now), Taken::LeaseNeeded);
        share.give_back(cost(1, 5));
        assert_eq!(share.take(cost(1, 5), now), Taken::Enough);
    }

    #[test]
    fn what_redis_cannot_have_is_refused_here_until_it_may_have_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut share = Share::new(quotas(Some((1_000, 10_000)), Some((10, 100))));
        let empty = Answer { bytes: leased(0.0, 5_000.0), events: leased(0.0, 0.0) };
        let refused = share.answered(cost(100, 20), empty, start).unwrap_err();
        assert_eq!((refused.dimension, refused.wait), (Dimension::Events, Duration::from_secs(2)));
        assert_eq!(refused.retry_after_seconds(), 2);
        assert!(refused.to_string().contains("10 events per second (at most 100 at once)"), "{refused}");
        for (millis, what, expected) in [
            (0, cost(1, 1), Some(100)),
            (50, cost(1, 1), Some(50)),
            (100, cost(1, 1), None),
            (100, cost(1, 20), Some(1_900)),
            // Both are short: the longer wait counts.
            (0, cost(10_000, 1), Some(5_000)),
        ] {
            let seen = share.foresee(what, at(millis)).err().map(|exceeded| exceeded.wait.as_millis());
            assert_eq!(seen, expected, "{millis} {what:?}");
        }
    }

    #[test]
    fn what_is_owed_is_made_up_for_first_and_bounded() {
        let now = Instant::now();
        let mut share = Share::new(quotas(None, Some((10, 100))));
        let full = Answer { bytes: leased(0.0, 0.0), events: leased(5.0, 95.0) };
        share.answered(cost(1, 1), full, now).unwrap();
        share.charge(cost(0, 150));
        // 4 were left of what was leased.
        assert_eq!(share.ask(cost(0, 1)).events.need, 147.0);
        let wait = share.foresee(cost(0, 1), now).unwrap_err().wait;
        assert_eq!(wait, Duration::from_millis(500), "until Redis can lend a burst");
        share.charge(cost(0, 1_000_000));
        assert_eq!(share.ask(cost(0, 1)).events.need, 601.0, "a minute of the rate");
    }

    #[test]
    fn more_than_a_burst_waits_for_a_full_bucket_only() {
        let now = Instant::now();
        let mut share = Share::new(quotas(Some((10, 100)), None));
        assert_eq!(share.take(cost(5_000, 1), now), Taken::LeaseNeeded);
        let lent = Answer { bytes: leased(5_000.0, -4_900.0), events: leased(0.0, 0.0) };
        assert_eq!(share.answered(cost(5_000, 1), lent, now), Ok(()));
        let refused = share.foresee(cost(1, 1), now).unwrap_err();
        assert_eq!(refused.retry_after_seconds(), 491, "it is paid back first");
    }

    #[test]
    fn without_redis_a_replica_has_its_part_of_the_rate() {
        let start = Instant::now();
        let mut share = Share::new(quotas(None, Some((100, 1000))));
        assert_eq!(share.alone(cost(1, 500), 2, start), Ok(()), "half of a full bucket");
        let refused = share.alone(cost(1, 50), 2, start).unwrap_err();
        assert_eq!(refused.wait, Duration::from_secs(1));
        assert_eq!(share.alone(cost(1, 50), 2, start + Duration::from_secs(1)), Ok(()));
        assert!(share.alone(cost(1, 1), 2, start + Duration::from_secs(1)).is_err());
    }

    #[test]
    fn the_header_fields_tell_limit_remaining_and_reset() {
        let now = Instant::now();
        let mut share = Share::new(quotas(Some((1_000, 5_500)), Some((10, 100))));
        let answer = Answer { bytes: leased(500.0, 1_000.0), events: leased(5.0, 95.0) };
        share.answered(cost(500, 5), answer, now).unwrap();
        let fields = share.fields(now);
        assert_eq!(fields.policy, r#""bytes";q=5500;w=6, "events";q=100;w=10"#);
        assert_eq!(fields.limits, r#""bytes";r=1000;t=5, "events";r=95;t=1"#);
    }

    #[test]
    fn a_packed_body_that_was_unpacked_in_vain_is_not_unpacked_again_before_it_may_come() {
        let now = Instant::now();
        let mut share = Share::new(IngestQuotas { bytes: None, events: Some(Rate { per_second: 1, burst: 10 }) });
        assert_eq!(share.foresee_packed(1_000, now), Ok(()));
        let wait = Duration::from_millis(1_500);
        let exceeded = Exceeded { dimension: Dimension::Events, limit: Rate { per_second: 1, burst: 10 }, wait };
        share.unpacked_in_vain(1_000, &exceeded, now);
        let refused = |share: &Share, length, after: u64| {
            share.foresee_packed(length, now + Duration::from_millis(after)).err().map(|why| why.retry_after_seconds())
        };
        for (length, after, expected) in [
            (1_000, 0, Some(2)),
            (5_000, 1_001, Some(1)),
            (500, 1_999, Some(1)),
            // Much smaller ones are another matter, and each may try once it was told to.
            (499, 0, None),
            (1_000, 2_000, None),
        ] {
            assert_eq!(refused(&share, length, after), expected, "{length} {after}");
        }
        share.unpacked_in_vain(400, &exceeded, now + Duration::from_millis(1_000));
        assert_eq!([refused(&share, 200, 2_999), refused(&share, 199, 2_999)], [Some(1), None], "always smaller ones");
        assert_eq!(refused(&share, 1_000, 3_000), None);
        let for_ever = Exceeded { wait: Duration::MAX, ..exceeded };
        share.unpacked_in_vain(400, &for_ever, now);
        assert_eq!(refused(&share, 1_000, 61_000), None, "bounded, as a debt is");
    }
}
