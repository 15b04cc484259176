//! Entries that may kill their processor: each is looked at alone, under a mark.
//!
//! A delivery count alone can't tell the entry that killed a processor from those that were at hand
//! when a node went away. So an entry delivered too often is marked while its lines are looked
//! at, which takes milliseconds. Whoever finds the mark there already knows.

use redis::AsyncCommands;
use runtime::stores::{Connection, Redis};
use tokio::sync::{Mutex, MutexGuard};

use super::EntryRef;

/// The marks on the queue's Redis.
pub(crate) struct Suspects {
    connection: Connection,
    alone: Mutex<()>,
}

impl Suspects {
    pub(crate) fn new(redis: &Redis) -> Result<Self, runtime::stores::Error> {
        Ok(Self { connection: redis.connection()?, alone: Mutex::new(()) })
    }

    /// Waits until no other suspect is looked at by this process.
    pub(crate) async fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().await
    }

    /// Marks the entry. `false` if it was marked: its last processor died while it looked at it.
    pub(crate) async fn mark(&self, entry: &EntryRef) -> redis::RedisResult<bool> {
        let added: u64 = self.connection.clone().sadd(entry.lane.suspects(), &entry.id).await?;
        Ok(added == 1)
    }

    /// Takes the mark away.
    pub(crate) async fn unmark(&self, entry: &EntryRef) -> redis::RedisResult<()> {
        self.connection.clone().srem(entry.lane.suspects(), &entry.id).await
    }
}
