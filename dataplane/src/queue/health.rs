//! What the queue's Redis can promise right now: looked at each second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runtime::logging::chain;
use runtime::stores::Connection;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often Redis is looked at.
const POLL: Duration = Duration::from_secs(1);
/// Part of `maxmemory`, in percent, above which nothing new is accepted: the rest is for what
/// acknowledging, claiming and rewriting need until processors have caught up.
const FULL_PERCENT: u64 = 80;

/// Seconds by which our clock and Redis's may differ. Events carry the time of their acceptance, and what is accepted by
/// a clock that is a day ahead can't be stored; one of the two is wrong long before.
const CLOCKS_DIFFER: i64 = 12 * 3600;

/// What Redis must be set to for an answer to mean that the write is on disk, and stays.
const DURABLE: [(&str, &str); 4] = [
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("no-appendfsync-on-rewrite", "no"),
    ("maxmemory-policy", "noeviction"),
];

/// What a 202 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The events are on Redis's disk.
    Disk,
    /// The events are in Redis's memory, or Redis does not say where.
    Memory,
}

/// Redis as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Whether it answers and takes writes. A replica does not, and neither does a server that still loads its file.
    pub answering: bool,
    /// What a 202 means; [`Durability::Memory`] until known.
    pub durability: Durability,
    /// Whether it is too full to accept more.
    pub full: bool,
    /// Bytes that it may use; 0 is without limit.
    pub max_memory: u64,
    /// Replicas that are connected.
    pub replicas: u32,
    /// Seconds by which our clock is ahead of Redis's.
    pub clock_ahead_seconds: i64,
}

impl Health {
    /// Before the first look.
    pub(super) const UNKNOWN: Self = Self {
        answering: false,
        durability: Durability::Memory,
        full: false,
        max_memory: 0,
        replicas: 0,
        clock_ahead_seconds: 0,
    };
}

/// Publishes Redis's health until `stop`.
pub(super) async fn watch(connection: Connection, publish: watch::Sender<Health>, stop: CancellationToken) {
    loop {
        let seen = tokio::select! {
            seen = look(&connection) => seen,
            () = stop.cancelled() => return,
        };
        let health = match &seen {
            Ok(Seen::Working(health)) => *health,
            Ok(Seen::Skewed(clock_ahead_seconds)) => {
                Health { answering: false, clock_ahead_seconds: *clock_ahead_seconds, ..*publish.borrow() }
            }
            Ok(Seen::Idle(_)) | Err(_) => Health { answering: false, ..*publish.borrow() },
        };
        let before = publish.send_replace(health);
        match &seen {
            Err(error) if before.answering => tracing::warn!(error = chain(error), "the queue does not answer"),
            Ok(Seen::Idle(reason)) if before.answering => tracing::warn!("the queue takes no writes: {reason}"),
            Ok(Seen::Skewed(seconds)) if before.clock_ahead_seconds.abs() <= CLOCKS_DIFFER => tracing::error!(
                seconds,
                "our clock is {seconds} s ahead of Redis's: nothing is accepted until they agree"
            ),
            Ok(Seen::Working(_)) if !before.answering && health.durability == Durability::Memory => tracing::warn!(
                "the queue's Redis does not write each event to disk before it answers: set appendonly yes, \
                 appendfsync always, no-appendfsync-on-rewrite no and maxmemory-policy noeviction"
            ),
            Ok(Seen::Working(_)) if !before.answering => tracing::info!("the queue answers"),
            Ok(Seen::Working(_)) if !before.full && health.full => tracing::warn!("the queue is full"),
            _ => {}
        }
        if let Ok(Seen::Idle(reason)) = &seen {
            // Its name may lead to the server that took its place, and nothing else ends the connections to it.
            connection.renew(reason);
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What a look came to.
enum Seen {
    /// It takes writes.
    Working(Health),
    /// It answers and takes none, for this reason.
    Idle(&'static str),
    /// It takes them, and our clock is so many seconds ahead of its own: one of them is wrong.
    Skewed(i64),
}

async fn look(connection: &Connection) -> redis::RedisResult<Seen> {
    let mut pipe = redis::pipe();
    pipe.cmd("TIME");
    for section in ["memory", "replication", "persistence"] {
        pipe.cmd("INFO").arg(section);
    }
    for (name, _) in DURABLE {
        pipe.cmd("CONFIG").arg("GET").arg(name);
    }
    let replies: Vec<redis::RedisResult<redis::Value>> =
        pipe.ignore_errors().query_async(&mut connection.clone()).await?;
    let ours = seconds_now();
    let mut replies = replies.into_iter();
    // A Redis that hides its clock is believed to be right.
    let theirs = replies.next().and_then(|time| redis::from_redis_value::<(i64, i64)>(time.ok()?).ok());
    let clock_ahead_seconds = theirs.map_or(0, |(seconds, _)| ours.saturating_sub(seconds));
    let mut section = || match replies.next() {
        Some(section) => Ok::<String, redis::RedisError>(redis::from_redis_value(section?)?),
        None => Ok(String::new()),
    };
    let (memory, replication, persistence) = (section()?, section()?, section()?);
    if let Some(reason) = takes_no_writes(&replication, &persistence) {
        return Ok(Seen::Idle(reason));
    }
    if clock_ahead_seconds.abs() > CLOCKS_DIFFER {
        return Ok(Seen::Skewed(clock_ahead_seconds));
    }
    // A Redis that hides its settings promises nothing.
    let settings: Vec<String> = replies
        .map(|setting| setting.and_then(|pair| Ok(redis::from_redis_value::<Vec<(String, String)>>(pair)?)))
        .map(|setting| setting.ok().and_then(|pair| Some(pair.into_iter().next()?.1)).unwrap_or_default())
        .collect();
    let durable = settings == DURABLE.map(|(_, value)| value);
    Ok(Seen::Working(Health {
        answering: true,
        durability: if durable { Durability::Disk } else { Durability::Memory },
        full: is_full(&memory),
        max_memory: number(&memory, "maxmemory"),
        replicas: u32::try_from(number(&replication, "connected_slaves")).unwrap_or(u32::MAX),
        clock_ahead_seconds,
    }))
}

fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Why a server that answers takes no writes, by `INFO replication` and `INFO persistence`.
fn takes_no_writes(replication: &str, persistence: &str) -> Option<&'static str> {
    if replication.lines().any(|line| line.trim_end() == "role:slave") {
        return Some("its Redis is a replica");
    }
    (number(persistence, "loading") > 0).then_some("its Redis loads its file")
}

/// Whether `INFO memory` says that the limit is near.
pub(super) fn is_full(memory: &str) -> bool {
    let (used, most) = (number(memory, "used_memory"), number(memory, "maxmemory"));
    most > 0 && used.saturating_mul(100) > most.saturating_mul(FULL_PERCENT)
}

/// A number of `INFO`; 0 if it is not there.
fn number(info: &str, name: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_and_a_server_that_loads_take_no_writes() {
        for (replication, persistence, expected) in [
            ("# Replication\r\nrole:master\r\nconnected_slaves:1\r\n", "loading:0\r\n", None),
            ("role:slave\r\nmaster_host:b\r\n", "loading:0\r\n", Some("its Redis is a replica")),
            ("role:master\r\n", "# Persistence\r\nloading:1\r\n", Some("its Redis loads its file")),
            // One that hides what it is shows it with the first write.
            ("", "", None),
        ] {
            assert_eq!(takes_no_writes(replication, persistence), expected, "{replication:?} {persistence:?}");
        }
    }

    #[test]
    fn the_queue_is_full_near_its_limit_only() {
        for (memory, expected) in [
            ("used_memory:81\r\nused_memory_human:81B\r\nmaxmemory:100\r\n", true),
            ("used_memory:80\r\nmaxmemory:100\r\n", false),
            ("used_memory:81\r\nmaxmemory:0\r\n", false),
            ("# Memory\r\n", false),
            ("", false),
        ] {
            assert_eq!(is_full(memory), expected, "{memory:?}");
        }
    }
}
