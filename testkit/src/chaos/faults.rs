//! The faults, one by one: what is done, what undoes it, and what must be seen meanwhile.

mod archive;
mod catalog;
mod clock;
mod crash;
mod crowd;
mod disk_full;
mod entries;
mod index;
mod pause;
mod queue;
mod vanish;

use std::time::Duration;

use anyhow::ensure;
use dataplane::fail_points::Point;

use super::house::{House, Lives};
use super::load::Load;
use super::proxy::{Mode, Proxy};
use super::requests::Shape;
use crate::eventually;
use crate::ledger::audit::Promise;

/// How long a store is slow: some flushes of several round trips each.
const SLOW: Duration = Duration::from_secs(12);
/// Longest wait until a fault has struck.
const STRIKE: Duration = Duration::from_secs(60);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None: what the others are compared with.
    Nothing,
    /// A role dies at a fail point, twice.
    KilledAt(Point),
    /// A processor dies at a fail point in each of its first lives, more often than entries are
    /// delivered before they are looked at alone.
    KilledOftenAt(Point),
    /// Roles of the shipped program are killed at random moments, so many times.
    KilledAtRandom(u32),
    /// A processor stands still beyond the time after which its entries are claimed.
    PausedPastClaim,
    /// The same at a fail point, so in the middle of a step.
    PausedAt(Point),
    /// The queue's Redis is killed and started again.
    RedisKilled,
    /// Its file loses everything after the last 202.
    RedisTailCut,
    /// Its disk refuses to sync.
    RedisSyncFails,
    /// It is at its memory limit.
    RedisFull,
    /// Its disk is full.
    RedisDiskFull,
    /// Its answers come so much later.
    RedisSlow(Duration),
    /// Connections to Redis are cut again and again.
    RedisCut,
    /// Its machine is gone without a word, and another has its address.
    RedisVanished,
    /// It becomes a replica of another, and back again.
    RedisDemoted,
    /// PostgreSQL is killed and started again.
    PostgresKilled,
    /// It is stopped for a while.
    PostgresStopped,
    /// It answers nothing for a while.
    PostgresStalled,
    /// Its answers come so much later.
    PostgresSlow(Duration),
    /// Connections to it are cut again and again: also between a COMMIT and its answer.
    PostgresCut,
    /// Its machine is gone without a word, and another has its address.
    PostgresVanished,
    /// Its disk is full.
    PostgresFull,
    /// The object store's machine is gone without a word, and another has its address.
    MinioVanished,
    /// The object store is stopped for a while.
    MinioStopped,
    /// Its answers come so much later.
    MinioSlow(Duration),
    /// It answers every request with this status.
    MinioAnswers(u16),
    /// It does what it is asked, and some answers get lost.
    MinioLosesAnswers,
    /// OpenSearch is stopped for a while.
    OpenSearchStopped,
    /// It answers nothing for a while.
    OpenSearchStalled,
    /// Its answers come so much later.
    OpenSearchSlow(Duration),
    /// It answers every request with this status.
    OpenSearchAnswers(u16),
    /// Its answers end in the middle.
    OpenSearchTruncates,
    /// It does what it is asked, and some answers get lost.
    OpenSearchLosesAnswers,
    /// Its machine is gone without a word, and another has its address.
    OpenSearchVanished,
    /// It blocks one tenant's index, as on a full disk.
    OpenSearchReadOnly,
    /// Ten thousand connections come to ingest and say nothing.
    IdleConnections,
    /// Small bodies come that unpack to one long string.
    MemoryAttack,
    /// The queue holds entries that can't be read, and a request has one bad line of a thousand.
    Poison,
    /// Every entry of the queue is there twice.
    Duplicates,
    /// The clocks of the roles differ and step.
    ClockSteps,
    /// The clocks of an ingest and of maintain are days ahead.
    ClockDays,
}

/// What a fault left to be checked.
#[derive(Debug, Default)]
pub struct Struck {
    /// What was seen, in a few words.
    pub seen: Vec<String>,
    /// What was not as it must be.
    pub wrong: Vec<String>,
    /// What was sent by other ways than the load's.
    pub promises: Vec<Promise>,
}

impl Struck {
    /// Notes what was seen, and whether it is as it must be.
    pub(super) fn note(&mut self, holds: bool, what: String) {
        if holds {
            self.seen.push(what);
        } else {
            self.wrong.push(what);
        }
    }
}

impl Fault {
    /// Every fault, with so many random kills.
    pub fn all(kills: u32) -> Vec<Self> {
        let mut faults = vec![Self::Nothing];
        faults.extend(Point::ALL.map(Self::KilledAt));
        faults.extend([Point::ProcessRead, Point::ProcessStored].map(Self::KilledOftenAt));
        faults.push(Self::KilledAtRandom(kills));
        faults.push(Self::PausedPastClaim);
        let paused = [Point::ProcessCopying, Point::ProcessUncommitted, Point::ProcessStored, Point::ProcessMarked];
        faults.extend(paused.map(Self::PausedAt));
        faults.push(Self::PausedAt(Point::ArchiveNoted));
        faults.push(Self::PausedAt(Point::ArchivePut));
        faults.extend([
            Self::RedisKilled,
            Self::RedisTailCut,
            Self::RedisSyncFails,
            Self::RedisFull,
            Self::RedisDiskFull,
            Self::RedisCut,
            Self::RedisVanished,
            Self::RedisDemoted,
            Self::RedisSlow(Duration::from_millis(100)),
            Self::PostgresStalled,
            Self::PostgresSlow(Duration::from_millis(300)),
            Self::PostgresCut,
            Self::PostgresVanished,
            Self::MinioVanished,
            Self::MinioSlow(Duration::from_secs(2)),
            Self::MinioAnswers(503),
            Self::MinioAnswers(507),
            Self::MinioLosesAnswers,
            Self::OpenSearchStalled,
            Self::OpenSearchSlow(Duration::from_secs(3)),
            Self::OpenSearchAnswers(429),
            Self::OpenSearchAnswers(503),
            Self::OpenSearchTruncates,
            Self::OpenSearchLosesAnswers,
            Self::OpenSearchVanished,
            Self::OpenSearchReadOnly,
            Self::IdleConnections,
            Self::MemoryAttack,
            Self::Poison,
            Self::Duplicates,
            Self::ClockSteps,
            Self::ClockDays,
            Self::PostgresKilled,
            Self::PostgresStopped,
            Self::PostgresFull,
            Self::MinioStopped,
            Self::OpenSearchStopped,
        ]);
        faults
    }

    /// The few that a short run has: each touches nothing but its own house.
    pub fn short() -> Vec<Self> {
        vec![Self::KilledAtRandom(10), Self::PausedPastClaim, Self::RedisKilled, Self::PostgresCut]
    }

    /// Its name in the table.
    pub fn name(self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::KilledAt(point) => format!("killed at {}", point.name()),
            Self::KilledOftenAt(point) => format!("killed 6 times at {}", point.name()),
            Self::KilledAtRandom(kills) => format!("{kills} random kill -9"),
            Self::PausedPastClaim => "processor paused past its claim".to_owned(),
            Self::PausedAt(point) => format!("paused at {}", point.name()),
            Self::RedisKilled => "redis killed 3 times".to_owned(),
            Self::RedisTailCut => "redis loses its file's tail".to_owned(),
            Self::RedisSyncFails => "redis can't fsync (EIO)".to_owned(),
            Self::RedisFull => "redis at maxmemory".to_owned(),
            Self::RedisDiskFull => "redis disk full".to_owned(),
            Self::RedisCut => "redis connections cut".to_owned(),
            Self::RedisVanished => "redis machine vanished".to_owned(),
            Self::RedisDemoted => "redis demoted and promoted".to_owned(),
            Self::RedisSlow(delay) => format!("redis slow by {delay:?}"),
            Self::PostgresKilled => "postgres killed".to_owned(),
            Self::PostgresStopped => "postgres stopped".to_owned(),
            Self::PostgresStalled => "postgres stalled 8 s".to_owned(),
            Self::PostgresSlow(delay) => format!("postgres slow by {delay:?}"),
            Self::PostgresCut => "postgres connections cut".to_owned(),
            Self::PostgresVanished => "postgres machine vanished".to_owned(),
            Self::PostgresFull => "postgres disk full".to_owned(),
            Self::MinioVanished => "minio machine vanished".to_owned(),
            Self::MinioStopped => "minio stopped".to_owned(),
            Self::MinioSlow(delay) => format!("minio slow by {delay:?}"),
            Self::MinioAnswers(status) => format!("minio answers {status}"),
            Self::MinioLosesAnswers => "minio answers get lost".to_owned(),
            Self::OpenSearchStopped => "opensearch stopped".to_owned(),
            Self::OpenSearchStalled => "opensearch stalled 14 s".to_owned(),
            Self::OpenSearchSlow(delay) => format!("opensearch slow by {delay:?}"),
            Self::OpenSearchAnswers(status) => format!("opensearch answers {status}"),
            Self::OpenSearchTruncates => "opensearch answers truncated".to_owned(),
            Self::OpenSearchLosesAnswers => "opensearch answers get lost".to_owned(),
            Self::OpenSearchVanished => "opensearch machine vanished".to_owned(),
            Self::OpenSearchReadOnly => "opensearch index of one tenant blocked".to_owned(),
            Self::IdleConnections => "10000 idle connections".to_owned(),
            Self::MemoryAttack => "small bodies, large refusals".to_owned(),
            Self::Poison => "poison entries and lines".to_owned(),
            Self::Duplicates => "every queue entry twice".to_owned(),
            Self::ClockSteps => "clocks differ and step by hours".to_owned(),
            Self::ClockDays => "clocks days ahead".to_owned(),
        }
    }

    /// Whether it needs the program with fail points.
    pub fn needs_fail_points(self) -> bool {
        matches!(self, Self::KilledAt(_) | Self::KilledOftenAt(_) | Self::PausedAt(_))
    }

    /// Whether it acts on a server that other houses use too.
    pub fn needs_the_servers_alone(self) -> bool {
        matches!(
            self,
            Self::PostgresKilled
                | Self::PostgresStopped
                | Self::PostgresFull
                | Self::MinioStopped
                | Self::OpenSearchStopped
        )
    }

    /// Whether its Redis writes to a disk of its own, small enough to be filled.
    pub fn needs_a_small_disk(self) -> bool {
        self == Self::RedisDiskFull
    }

    /// How large the requests are.
    pub fn shape(self) -> Shape {
        match self {
            // Some megabytes a second fill a small Redis soon.
            Self::RedisFull => Shape { padding: 8 * 1024, most_events: 150 },
            _ => Shape::default(),
        }
    }

    /// What is added to the environment of a child's first lives.
    pub fn lives(self) -> Lives {
        match self {
            Self::KilledAt(point) => vec![(crash::victim(point), crash::lives(point, "kill", 2))],
            Self::KilledOftenAt(point) => vec![(crash::victim(point), crash::lives(point, "kill", 6))],
            Self::PausedAt(point) => vec![(crash::victim(point), crash::lives(point, "stop", 1))],
            Self::ClockSteps => clock::lives(),
            Self::ClockDays => clock::lives_of_days(),
            _ => Vec::new(),
        }
    }

    /// Strikes, and undoes it.
    pub async fn strike(self, house: &House, load: &Load) -> anyhow::Result<Struck> {
        match self {
            Self::Nothing => Ok(Struck::default()),
            Self::KilledAt(point) => crash::at(house, point, 2).await,
            Self::KilledOftenAt(point) => crash::at(house, point, 6).await,
            Self::KilledAtRandom(kills) => crash::at_random(house, kills).await,
            Self::PausedPastClaim => pause::past_claim(house).await,
            Self::PausedAt(point) => pause::at(house, point).await,
            Self::RedisKilled => queue::killed(house, load).await,
            Self::RedisTailCut => queue::tail_cut(house, load).await,
            Self::RedisSyncFails => queue::sync_fails(house, load).await,
            Self::RedisFull => queue::full(house, load).await,
            Self::RedisDiskFull => queue::disk_full(house, load).await,
            Self::RedisCut => catalog::cut(&house.proxies.redis).await,
            Self::RedisVanished => vanish::gone(&house.proxies.redis, load).await,
            Self::RedisDemoted => vanish::demoted(house, load, &house.another_redis().await?).await,
            Self::RedisSlow(delay) => slow(&house.proxies.redis, delay, load).await,
            Self::PostgresKilled => catalog::killed(load).await,
            Self::PostgresStopped => catalog::stopped(house, load).await,
            Self::PostgresStalled => hinder(&house.proxies.postgres, Mode::Stall, catalog::STALL, load).await,
            Self::PostgresSlow(delay) => slow(&house.proxies.postgres, delay, load).await,
            Self::PostgresCut => catalog::cut(&house.proxies.postgres).await,
            Self::PostgresVanished => vanish::gone(&house.proxies.postgres, load).await,
            Self::PostgresFull => disk_full::full(house, load).await,
            Self::MinioVanished => vanish::gone(&house.proxies.minio, load).await,
            Self::MinioStopped => archive::stopped(load).await,
            Self::MinioSlow(delay) => slow(&house.proxies.minio, delay, load).await,
            Self::MinioAnswers(status) => archive::answers(house, status).await,
            Self::MinioLosesAnswers => archive::loses_answers(house).await,
            Self::OpenSearchStopped => index::stopped(load).await,
            Self::OpenSearchStalled => hinder(&house.proxies.opensearch, Mode::Stall, index::AWAY, load).await,
            Self::OpenSearchSlow(delay) => slow(&house.proxies.opensearch, delay, load).await,
            Self::OpenSearchAnswers(status) => index::answers(house, status).await,
            Self::OpenSearchTruncates => index::truncates(house).await,
            Self::OpenSearchLosesAnswers => index::loses_answers(house).await,
            Self::OpenSearchVanished => vanish::gone(&house.proxies.opensearch, load).await,
            Self::OpenSearchReadOnly => index::read_only(house).await,
            Self::IdleConnections => crowd::idle(house, load).await,
            Self::MemoryAttack => crowd::memory(house, load).await,
            Self::Poison => entries::poison(house).await,
            Self::Duplicates => entries::duplicates(house).await,
            Self::ClockSteps => clock::steps(house).await,
            Self::ClockDays => clock::days(house).await,
        }
    }
}

/// Has answers come so much later: flushes take longer than the time after which another processor claims their entries.
async fn slow(proxy: &Proxy, delay: Duration, load: &Load) -> anyhow::Result<Struck> {
    hinder(proxy, Mode::Slow(delay), SLOW, load).await
}

/// Has a proxy do this for a while, in which ingest must go on.
async fn hinder(proxy: &Proxy, mode: Mode, length: Duration, load: &Load) -> anyhow::Result<Struck> {
    let before = load.sender.answers.accepted();
    proxy.set(mode);
    tokio::time::sleep(length).await;
    proxy.set(Mode::Pass);
    let accepted = load.sender.answers.accepted() - before;
    let mut struck = Struck::default();
    struck.note(accepted > 0, format!("{accepted} requests accepted meanwhile"));
    Ok(struck)
}

/// Has a proxy break so many requests or answers in this way; `what` names them.
async fn break_by(proxy: &Proxy, mode: Mode, at_least: u64, what: &str) -> anyhow::Result<Struck> {
    proxy.set(mode);
    let broken = broken(proxy, at_least).await;
    proxy.set(Mode::Pass);
    Ok(Struck { seen: vec![format!("{} {what}", broken?)], ..Struck::default() })
}

/// Waits until a proxy has broken so many requests or answers.
async fn broken(proxy: &Proxy, at_least: u64) -> anyhow::Result<u64> {
    eventually(&format!("the proxy has broken {at_least} requests or answers"), STRIKE, || async {
        let broken = proxy.broken();
        ensure!(broken >= at_least, "{broken} so far");
        Ok(broken)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_fault_has_a_name_of_its_own_and_the_short_run_disturbs_nobody() {
        let all = Fault::all(40);
        let names: HashSet<String> = all.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), all.len());
        for fault in Fault::short() {
            assert!(!fault.needs_the_servers_alone() && !fault.needs_fail_points(), "{}", fault.name());
        }
    }
}
