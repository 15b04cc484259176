//! A connection to Redis that is made anew when its server is lost without a word, or takes no writes any more.
//!
//! A connection that ends is replaced by the client's own manager. One that does not end is replaced here: where a
//! machine vanishes, or a name leads to another server while the one before lives on as its replica, the socket
//! stays as it is, and everybody who asks through it is told "no answer" or READONLY for as long as it does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value};

/// Least time between two replacements: a server that is slow, or a replica for a while, is not flooded with
/// connections by those who ask it all the time.
const LEAST: Duration = Duration::from_secs(1);
/// Answers by which a server says that it is not the one to write to: a replica, and one that has lost its master.
const NOT_THE_ONE: [&str; 2] = ["READONLY", "MASTERDOWN"];

/// A shared connection: pipelined, reconnecting, every answer bounded. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    client: redis::Client,
    config: ConnectionManagerConfig,
    renewals: Renewals,
    current: Mutex<Current>,
}

struct Current {
    /// The renewal that it was made after.
    number: u64,
    manager: ConnectionManager,
}

/// How often a server's connections were replaced: what one of them notices is true of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Renewals {
    state: Arc<Mutex<(u64, Option<Instant>)>>,
}

impl Renewals {
    fn number(&self) -> u64 {
        self.lock().0
    }

    /// Begins the next, unless somebody has done so since `seen`, or just before. `true` if it did.
    fn begin(&self, seen: u64, now: Instant) -> bool {
        let mut state = self.lock();
        let just_before = state.1.is_some_and(|last| now.saturating_duration_since(last) < LEAST);
        if state.0 != seen || just_before {
            return false;
        }
        *state = (seen + 1, Some(now));
        true
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Option<Instant>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub(super) fn new(client: redis::Client, config: ConnectionManagerConfig, renewals: Renewals) -> RedisResult<Self> {
        let number = renewals.number();
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        let current = Mutex::new(Current { number, manager });
        Ok(Self { shared: Arc::new(Shared { client, config, renewals, current }) })
    }

    /// Replaces all connections to this server before they are used next: the name may lead to another one now. At
    /// most once a second.
    pub fn renew(&self, reason: &str) {
        self.renew_after(self.shared.renewals.number(), reason);
    }

    fn renew_after(&self, seen: u64, reason: &str) {
        if self.shared.renewals.begin(seen, Instant::now()) {
            tracing::warn!("connect to Redis anew: {reason}");
        }
    }

    /// The connection to use now, and its number.
    fn current(&self) -> (u64, ConnectionManager) {
        let number = self.shared.renewals.number();
        let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number != number {
            // It fails for settings that the first one had as well.
            if let Ok(manager) =
                ConnectionManager::new_lazy_with_config(self.shared.client.clone(), self.shared.config.clone())
            {
                // Whoever waits for an answer by the one before holds it until then.
                *current = Current { number, manager };
            }
        }
        (current.number, current.manager.clone())
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("renewals", &self.shared.renewals).finish_non_exhaustive()
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (number, mut manager) = self.current();
            let answer = manager.send_packed_command(cmd).await;
            let reason = match &answer {
                Ok(value) => refused(value, 0),
                Err(error) => lost(error),
            };
            if let Some(reason) = reason {
                self.renew_after(number, reason);
            }
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (number, mut manager) = self.current();
            let answers = manager.send_packed_commands(cmd, offset, count).await;
            let reason = match &answers {
                // An EXEC has the answers of its commands inside.
                Ok(values) => values.iter().find_map(|value| refused(value, 1)),
                Err(error) => lost(error),
            };
            if let Some(reason) = reason {
                self.renew_after(number, reason);
            }
            answers
        })
    }

    fn get_db(&self) -> i64 {
        self.shared.client.get_connection_info().redis_settings().db()
    }
}

/// Why this error means that another connection is needed, and the client's manager makes none.
fn lost(error: &RedisError) -> Option<&'static str> {
    if error.is_timeout() {
        return Some("no answer in time");
    }
    not_the_one(error.code()?)
}

/// The same of an answer, and of what is in it down to `depth`.
fn refused(answer: &Value, depth: u8) -> Option<&'static str> {
    match answer {
        Value::ServerError(error) => not_the_one(error.code()),
        Value::Array(inside) if depth > 0 => inside.iter().find_map(|value| refused(value, depth - 1)),
        _ => None,
    }
}

fn not_the_one(code: &str) -> Option<&'static str> {
    NOT_THE_ONE.contains(&code).then_some("the server is a replica")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_connection_notices_replaces_all_once_and_at_most_each_second() {
        let renewals = Renewals::default();
        let begun = Instant::now();
        assert!(renewals.begin(0, begun));
        assert_eq!(renewals.number(), 1);
        // Another one noticed the same, of the connections before.
        assert!(!renewals.clone().begin(0, begun + LEAST));
        assert!(!renewals.begin(1, begun + LEAST / 2));
        assert!(renewals.begin(1, begun + LEAST));
    }

    #[test]
    fn silence_and_replicas_are_left_and_other_refusals_are_not() {
        let timed_out = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert!(lost(&timed_out).is_some());
        for (code, expected) in
            [("-READONLY You can't write\r\n", true), ("-MASTERDOWN Link\r\n", true), ("-OOM full\r\n", false)]
        {
            let error = redis::parse_redis_value(code.as_bytes()).unwrap();
            assert_eq!(refused(&error, 0).is_some(), expected, "{code}");
            let inside = Value::Array(vec![Value::Okay, error]);
            assert_eq!(refused(&inside, 1).is_some(), expected, "inside of an EXEC: {code}");
            assert_eq!(refused(&inside, 0), None, "not looked for");
        }
    }
}
