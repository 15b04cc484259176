//! Rolls each tenant's ledger up into the core database, by the hour.
//!
//! Ledger and roll-up are in two databases, so the watermark moves in the transaction that adds:
//! nothing counts twice. And it must never pass a row that a transaction has numbered but not yet
//! committed. So once the last number is read, whoever writes to the ledger then is waited for: when
//! they have ended, no lower number can still appear. Nobody waits for us.

use std::time::{Duration, Instant};

use super::{Error, Rooms};
use crate::stores::catalog::Hour;
use crate::tenancy::Tenant;

/// Longest wait for who writes to the ledger: a flush takes well under a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks whether they have ended.
const PAUSE: Duration = Duration::from_millis(50);

/// Adds what is new in the tenant's ledger. Returns how many events that are.
pub async fn roll_up(rooms: &Rooms, tenant: &Tenant) -> Result<i64, Error> {
    let roll_up = rooms.usage.begin(tenant).await?;
    let hours = hours_after(rooms, tenant, roll_up.watermark).await?;
    let Some(last_id) = hours.iter().map(|hour| hour.last_id).max() else { return Ok(0) };
    roll_up.add(&hours, last_id).await?;
    Ok(hours.iter().map(|hour| hour.events).sum())
}

/// Brings the roll-up of a tenant whose ledger was restored level with it, without counting anything
/// twice: each hour has at least what the ledger has of it, and what was counted before stays. What
/// the ledger has now counts as rolled up. May be repeated.
pub(super) async fn settle(rooms: &Rooms, tenant: &Tenant) -> Result<(), Error> {
    let roll_up = rooms.usage.begin(tenant).await?;
    let hours = hours_after(rooms, tenant, i64::MIN).await?;
    let last_id = hours.iter().map(|hour| hour.last_id).max().unwrap_or(0).max(0);
    Ok(roll_up.raise(&hours, last_id).await?)
}

/// What the ledger has after this number, once nobody is left who writes there under a lower one than the last.
async fn hours_after(rooms: &Rooms, tenant: &Tenant, watermark: i64) -> Result<Vec<Hour>, Error> {
    let Some((last_id, mut writers)) = rooms.catalog.ledger_end(tenant, watermark).await? else {
        return Ok(Vec::new());
    };
    let begun = Instant::now();
    while !writers.is_empty() {
        if begun.elapsed() >= PATIENCE {
            return Err(Error::Writers);
        }
        tokio::time::sleep(PAUSE).await;
        let now = rooms.catalog.ledger_writers(tenant).await?;
        writers.retain(|writer| now.contains(writer));
    }
    Ok(rooms.catalog.ledger_hours(tenant, watermark, last_id).await?)
}
