//! One database of PostgreSQL, whose connections are all made anew once one of them does not answer in time.
//!
//! The driver gives a socket neither a keepalive nor any other bound, so a connection whose machine vanished without a
//! word is waited for until the kernel gives up: some 15 minutes, or for ever where nothing was sent. And a pool that
//! takes such a connection back waits for it as well. So what takes too long is dropped together with the pool.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgPool;

/// A pool that may be replaced by one like it. Cheap to clone: all clones have the same.
#[derive(Clone, Debug)]
pub struct Database {
    current: Arc<Mutex<Current>>,
}

#[derive(Debug)]
struct Current {
    /// How many were there before.
    number: u64,
    pool: PgPool,
}

/// The work took too long: whatever it had begun may be done, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
pub struct Late(pub Duration);

impl From<Late> for sqlx::Error {
    fn from(late: Late) -> Self {
        Self::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, late))
    }
}

impl From<PgPool> for Database {
    fn from(pool: PgPool) -> Self {
        Self { current: Arc::new(Mutex::new(Current { number: 0, pool })) }
    }
}

impl Database {
    /// The pool to take a connection from now. Not to be kept.
    pub fn pool(&self) -> PgPool {
        self.current().1
    }

    /// Does work on this database, unless it takes longer than `limit`: then all connections are left, and whoever
    /// takes one next gets a new one.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Late> {
        let (number, _) = self.current();
        // On the heap: a limit around a limit must not double what each of them holds.
        match tokio::time::timeout(limit, Box::pin(work)).await {
            Ok(done) => Ok(done),
            Err(_) => {
                self.leave(number);
                Err(Late(limit))
            }
        }
    }

    fn current(&self) -> (u64, PgPool) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.number, current.pool.clone())
    }

    /// Replaces the pool, unless somebody has done so since it had this number.
    fn leave(&self, number: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number != number {
            return;
        }
        let options = PgPool::connect_options(&current.pool);
        let anew = current.pool.options().clone().connect_lazy_with((*options).clone());
        let left = std::mem::replace(&mut current.pool, anew);
        current.number += 1;
        drop(current);
        tracing::warn!("connect to PostgreSQL anew: no answer in time");
        // What others do on it ends by itself; whoever waits for a connection of it is told at once. This ends when
        // the kernel has given up the last of them.
        tokio::spawn(async move { left.close().await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    fn database() -> Database {
        // Nobody is asked for a connection here.
        PgPoolOptions::new().max_connections(3).connect_lazy_with(PgConnectOptions::new_without_pgpass()).into()
    }

    #[tokio::test]
    async fn what_takes_too_long_is_left_with_its_pool_once() {
        let database = database();
        let (before, clone) = (database.pool(), database.clone());
        assert_eq!(database.within(Duration::from_secs(1), async { 7 }).await, Ok(7));
        assert!(!before.is_closed());
        let limit = Duration::from_millis(20);
        let hangs = || clone.within(limit, std::future::pending::<()>());
        let (first, second) = tokio::join!(hangs(), hangs());
        assert_eq!((first, second), (Err(Late(limit)), Err(Late(limit))));
        assert_eq!(database.current().0, 1, "two of the same pool leave it once");
        let after = database.pool();
        assert!(!after.is_closed() && after.options().get_max_connections() == 3);
        tokio::task::yield_now().await;
        assert!(before.is_closed());
    }
}
