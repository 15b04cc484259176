//! Cuts what was read into flushes: each of one tenant, each bounded.

use std::collections::HashMap;
use std::sync::Arc;

use crds::TenantName;

use crate::fair::turns::Turns;
use crate::queue::EntryRef;
use crate::queue::entry::Entry;
use crate::tenancy::Tenant;

/// Bounds of a flush.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Events that end it.
    pub(super) events: usize,
    /// Raw bytes that end it.
    pub(super) bytes: usize,
    /// Deliveries after which an entry goes alone.
    pub(super) max_retries: u64,
}

/// An entry of a known tenant.
#[derive(Debug)]
pub(super) struct Readable {
    pub(super) entry: EntryRef,
    pub(super) deliveries: u64,
    pub(super) tenant: Arc<Tenant>,
    pub(super) content: Entry,
}

/// What is stored together.
#[derive(Debug)]
pub(super) struct Flush {
    pub(super) tenant: Arc<Tenant>,
    pub(super) entries: Vec<Readable>,
    pub(super) events: usize,
    pub(super) raw_bytes: usize,
    /// Processors may have died over its only entry.
    pub(super) suspect: bool,
}

impl Flush {
    /// Bytes that each entry adds to the spool, about: its frame's as it came, and its header's.
    pub(super) fn spool_sizes(&self) -> Vec<u64> {
        self.entries.iter().map(|readable| readable.entry.share).collect()
    }

    /// Takes off the entries behind the first `kept`.
    pub(super) fn split_off(&mut self, kept: usize) -> Vec<Readable> {
        let rest = self.entries.split_off(kept.min(self.entries.len()));
        self.events = self.entries.iter().map(|readable| readable.content.events()).sum();
        self.raw_bytes = self.entries.iter().map(|readable| readable.content.raw.len()).sum();
        rest
    }
}

/// The flushes of what was read. Tenants take turns: each one's first flush goes before anybody's second.
pub(super) fn flushes(read: Vec<Readable>, limits: Limits) -> Turns<Flush> {
    let mut turns = Turns::default();
    for flush in cut(read, limits) {
        turns.push(&Arc::clone(&flush.tenant).name().clone(), flush);
    }
    turns
}

/// The flushes of what was read, in the order of their first entries.
fn cut(read: Vec<Readable>, limits: Limits) -> Vec<Flush> {
    let mut flushes: Vec<Flush> = Vec::new();
    let mut open: HashMap<TenantName, usize> = HashMap::new();
    for readable in read {
        let events = readable.content.events();
        let raw_bytes = readable.content.raw.len();
        let suspect = readable.deliveries > limits.max_retries;
        let joined = open.get(readable.tenant.name()).copied().filter(|at| {
            let flush = &flushes[*at];
            !suspect && flush.events + events <= limits.events && flush.raw_bytes + raw_bytes <= limits.bytes
        });
        if let Some(at) = joined {
            let flush = &mut flushes[at];
            flush.events += events;
            flush.raw_bytes += raw_bytes;
            flush.entries.push(readable);
            continue;
        }
        if !suspect {
            open.insert(readable.tenant.name().clone(), flushes.len());
        }
        let tenant = Arc::clone(&readable.tenant);
        flushes.push(Flush { tenant, entries: vec![readable], events, raw_bytes, suspect });
    }
    flushes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::new_batch_id;
    use crate::queue::entry::{BatchHeader, EventHeader, Header};
    use crate::stores::fixtures::tenant;

    fn readable(name: &str, deliveries: u64, events: usize) -> Readable {
        let tenant = tenant(name);
        let lane = Arc::new(tenant.lane());
        let batch = BatchHeader {
            batch_id: new_batch_id(),
            accepted_at: 0,
            key_id: String::new(),
            body_hash: None,
            events: vec![EventHeader { length: 2, time: None, rejected: None }; events],
        };
        let content = Entry {
            tenant: tenant.name().clone(),
            header: Header { batches: vec![batch] },
            frame: Vec::new(),
            raw: b"{}".repeat(events),
        };
        Readable {
            entry: EntryRef { lane, id: "1-0".into(), events: 1, bytes: 1, tenant: name.into(), share: 1 },
            deliveries,
            tenant,
            content,
        }
    }

    #[test]
    fn a_flush_is_one_tenants_and_bounded() {
        let limits = Limits { events: 5, bytes: 1000, max_retries: 3 };
        for (name, read, expected) in [
            ("nothing", vec![], vec![]),
            ("one tenant", vec![("a", 1, 2), ("a", 1, 3)], vec![("a", 5, false)]),
            ("too many events", vec![("a", 1, 3), ("a", 1, 3), ("a", 1, 2)], vec![("a", 3, false), ("a", 5, false)]),
            ("a large entry alone", vec![("a", 1, 9), ("a", 1, 1)], vec![("a", 9, false), ("a", 1, false)]),
            ("two tenants", vec![("a", 1, 1), ("b", 1, 1), ("a", 1, 1)], vec![("a", 2, false), ("b", 1, false)]),
            (
                "an entry that may be deadly goes alone",
                vec![("a", 3, 1), ("a", 4, 1), ("a", 1, 1)],
                vec![("a", 2, false), ("a", 1, true)],
            ),
        ] {
            let read = read.into_iter().map(|(tenant, deliveries, events)| readable(tenant, deliveries, events));
            let cut = cut(read.collect(), limits);
            let seen: Vec<_> = cut.iter().map(|f| (f.tenant.name().as_str(), f.events, f.suspect)).collect();
            assert_eq!(seen, expected, "{name}");
        }
    }

    #[test]
    fn a_big_backlog_does_not_go_before_another_tenants_first_flush() {
        let limits = Limits { events: 2, bytes: 1000, max_retries: 3 };
        let backlog = (0..5).map(|_| readable("big", 1, 2));
        let read = backlog.chain([readable("small", 1, 1), readable("other", 1, 1)]);
        let mut turns = flushes(read.collect(), limits);
        let order: Vec<String> = std::iter::from_fn(|| turns.next()).map(|(tenant, _)| tenant.to_string()).collect();
        assert_eq!(order, ["big", "small", "other", "big", "big", "big", "big"]);
    }

    #[test]
    fn bytes_end_a_flush_too() {
        let limits = Limits { events: 100, bytes: 10, max_retries: 3 };
        let cut = cut(vec![readable("a", 1, 3), readable("a", 1, 2), readable("a", 1, 1)], limits);
        assert_eq!(cut.iter().map(|flush| flush.raw_bytes).collect::<Vec<_>>(), [10, 2]);
    }
}
