//! What was stored after an event, for a live tail that goes on: read as its tenant, and chosen by what a query means.

use api::tail::{Stored, TailEvent};
use query::matches::Subject;
use query::params::InvalidParams;
use query::params::tail::Stored as Asked;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Error;
use super::reader::Reader;
use super::whole::WholeEvent;
use crate::event::{Micros, shown};
use crate::stores::raw::portions;
use crate::stores::read::{Row, StoredAt};
use crate::tenancy::Tenant;

/// Lines that one answer looks at.
const LINES: usize = 2_000;
/// Raw bytes that one answer looks at, unless one event has more.
const BYTES: u64 = 4 * 1024 * 1024;
/// How much earlier than an event another may have been stored, in the order of the stores, that was shown after it:
/// longer than a processor takes to store a flush.
const OVERLAP: Micros = 10 * 1_000_000;

impl Reader {
    /// Some of what was stored after an event.
    pub async fn stored(&self, tenant: &Tenant, asked: Asked) -> Result<Stored<Box<RawValue>>, Error> {
        let from = self.stored_from(tenant, &asked).await?;
        let (lines, are_all) = self.catalog.stored_after(tenant, from, LINES).await?;
        let Some((end, _)) = lines.last().copied() else { return Ok(Stored { events: Vec::new(), next: None }) };
        let ids: Vec<Uuid> = lines.iter().map(|(_, id)| *id).collect();
        let found = self.catalog.found(tenant, &ids, query::Order::Oldest).await?.rows;
        let (rows, fit) = first_portion(ordered(found, &ids));
        let end = match rows.last() {
            Some(last) if !fit => lines.iter().find(|(_, id)| *id == last.item.id).map_or(end, |(at, _)| *at),
            _ => end,
        };
        let (whole, name) = (self.whole(tenant, rows).await?, tenant.name().clone());
        let choose = move || {
            let chosen = whole.iter().filter_map(|event| chosen(name.as_str(), event, &asked));
            Stored { events: chosen.collect(), next: (!are_all || !fit).then(|| end.to_string()) }
        };
        tokio::task::spawn_blocking(choose).await.map_err(|_| Error::Broken)
    }

    /// Where to begin.
    async fn stored_from(&self, tenant: &Tenant, asked: &Asked) -> Result<StoredAt, Error> {
        if let Some(next) = &asked.next {
            return next.parse().map_err(|()| InvalidParams::parameter("next", "is none of ours").into());
        }
        let after = asked.tail.after.ok_or_else(|| InvalidParams::parameter("after", "is missing"))?;
        let after = self.catalog.stored_at(tenant, after).await?.ok_or(Error::NotFound)?;
        let oldest = match asked.oldest {
            Some(oldest) => self.catalog.stored_at(tenant, oldest).await?,
            None => None,
        };
        Ok(begin(after, oldest))
    }
}

/// After the event itself; but if it is known what was shown before it, from a little earlier.
fn begin(after: StoredAt, oldest: Option<StoredAt>) -> StoredAt {
    let earlier = StoredAt::before(after.stored - OVERLAP, after.accepted - OVERLAP);
    oldest.map_or(after, |oldest| oldest.max(earlier).min(after))
}

/// Rows in the order of these ids.
fn ordered(rows: Vec<Row>, ids: &[Uuid]) -> Vec<Row> {
    let mut rows: std::collections::HashMap<Uuid, Row> = rows.into_iter().map(|row| (row.item.id, row)).collect();
    ids.iter().filter_map(|id| rows.remove(id)).collect()
}

/// As many as are read at once, and whether these are all.
fn first_portion(rows: Vec<Row>) -> (Vec<Row>, bool) {
    let mut portions = portions(rows, BYTES, |row| u64::try_from(row.raw.length).unwrap_or(0)).into_iter();
    (portions.next().unwrap_or_default(), portions.next().is_none())
}

/// An event in the form in which a tail shows it, if it is asked for.
fn chosen(tenant: &str, WholeEvent { row, event }: &WholeEvent, asked: &Asked) -> Option<Box<RawValue>> {
    let event = event.as_ref()?;
    let subject = Subject::new(event, row.place.time);
    if !subject.passes(&asked.tail.filters) || !asked.tail.query.as_ref().is_none_or(|query| subject.matches(query)) {
        return None;
    }
    let shown: TailEvent<'_> = shown(tenant, row.item.batch_id, row.accepted_at, row.item.id, event);
    serde_json::value::to_raw_value(&shown).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_on_with_begins_a_little_earlier_where_it_is_known_what_was_shown() {
        let at = |stored: Micros| StoredAt { stored, accepted: stored, batch_id: Uuid::from_u128(7), position: 3 };
        let after = at(100 * 1_000_000);
        assert_eq!(begin(after, None), after);
        assert_eq!(begin(after, Some(at(95 * 1_000_000))), at(95 * 1_000_000));
        let earliest = begin(after, Some(at(5)));
        assert_eq!((earliest.stored, earliest.accepted), (90 * 1_000_000, 90 * 1_000_000));
        assert_eq!(begin(after, Some(at(101 * 1_000_000))), after);
    }
}
