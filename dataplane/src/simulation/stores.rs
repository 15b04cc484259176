//! The stores as models: what each promises, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crds::TenantName;
use crds::names::Lane;
use uuid::Uuid;

use crate::event::{EventIds, Micros};
use crate::queue::Weighed;

/// One request batch.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) id: Uuid,
    pub(super) tenant: TenantName,
    pub(super) lane: Lane,
    pub(super) accepted_at: Micros,
    pub(super) events: u32,
    /// Sent under an `Idempotency-Key`.
    pub(super) keyed: bool,
    /// Which of the clients' batches this is.
    pub(super) sent: usize,
}

impl Batch {
    /// The ids that its events have by this acceptance.
    pub(super) fn event_ids(&self) -> impl Iterator<Item = Uuid> {
        ids(self.id, self.accepted_at, self.events)
    }
}

impl Weighed for Batch {
    fn lane(&self) -> &Lane {
        &self.lane
    }
    fn tenant(&self) -> &TenantName {
        &self.tenant
    }
    fn events(&self) -> usize {
        self.events as usize
    }
    fn raw_bytes(&self) -> usize {
        300 * self.events as usize
    }
    fn keyed(&self) -> Option<Uuid> {
        self.keyed.then_some(self.id)
    }
}

pub(super) fn ids(batch: Uuid, accepted_at: Micros, events: u32) -> impl Iterator<Item = Uuid> {
    let ids = EventIds::new(batch, accepted_at);
    (0..events).map(move |position| ids.at(position))
}

/// An entry handed out.
#[derive(Debug, Clone, Copy)]
struct Pending {
    consumer: usize,
    since: Micros,
}

/// A stream and its consumer group.
#[derive(Debug, Default)]
pub(super) struct Queue {
    last: u64,
    delivered: u64,
    entries: BTreeMap<u64, Vec<Batch>>,
    pending: BTreeMap<u64, Pending>,
}

impl Queue {
    pub(super) fn add(&mut self, batches: Vec<Batch>) {
        self.last += 1;
        self.entries.insert(self.last, batches);
    }

    pub(super) fn read(&mut self, consumer: usize, now: Micros) -> Option<(u64, Vec<Batch>)> {
        let (&id, batches) = self.entries.range(self.delivered + 1..).next()?;
        self.delivered = id;
        self.pending.insert(id, Pending { consumer, since: now });
        Some((id, batches.clone()))
    }

    /// What a consumer of this name was given and never acknowledged.
    pub(super) fn own(&self, consumer: usize) -> Vec<(u64, Vec<Batch>)> {
        let own = self.pending.iter().filter(|(_, pending)| pending.consumer == consumer);
        own.filter_map(|(id, _)| Some((*id, self.entries.get(id)?.clone()))).collect()
    }

    pub(super) fn claim(&mut self, consumer: usize, idle: Micros, now: Micros) -> Vec<(u64, Vec<Batch>)> {
        let mut claimed = Vec::new();
        for (id, pending) in &mut self.pending {
            if pending.consumer != consumer && now - pending.since >= idle {
                *pending = Pending { consumer, since: now };
                claimed.extend(self.entries.get(id).map(|batches| (*id, batches.clone())));
            }
        }
        claimed
    }

    pub(super) fn hold(&mut self, consumer: usize, entries: &[u64], now: Micros) {
        for id in entries {
            if let Some(pending) = self.pending.get_mut(id).filter(|pending| pending.consumer == consumer) {
                pending.since = now;
            }
        }
    }

    pub(super) fn acknowledge(&mut self, entries: &[u64]) {
        for id in entries {
            self.pending.remove(id);
            self.entries.remove(id);
        }
    }

    pub(super) fn holds(&self, batch: Uuid) -> bool {
        self.entries.values().flatten().any(|held| held.id == batch)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.pending.is_empty()
    }
}

/// Where a batch's raw lines are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    Spool(i64),
    Object(Vec<i64>),
}

/// A batch's row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) accepted_at: Micros,
    pub(super) events: u32,
    pub(super) index: u64,
    pub(super) indexed: bool,
    pub(super) raw: Raw,
}

/// One spool row: its batches, and when it came.
#[derive(Debug, Clone)]
pub(super) struct Spooled {
    pub(super) batches: Vec<Uuid>,
    pub(super) created_at: Micros,
}

/// A tenant's schema, all tenants in one: they don't touch each other's rows anyway.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) batches: BTreeMap<Uuid, Row>,
    /// How often each event has a row.
    pub(super) rows: BTreeMap<Uuid, u32>,
    pub(super) ledger: Vec<Uuid>,
    pub(super) spool: BTreeMap<i64, Spooled>,
    pub(super) archiving: Option<Vec<i64>>,
    pub(super) write_index: u64,
    idempotency: BTreeSet<Uuid>,
    last_spool: i64,
}

impl Catalog {
    /// One transaction: what a batch's row says afterwards, whoever wrote it.
    pub(super) fn store(&mut self, batches: &[Batch], now: Micros, bill_deliveries: bool) {
        let mut new = Vec::new();
        self.last_spool += 1;
        for batch in batches {
            if bill_deliveries {
                self.ledger.push(batch.id);
            }
            let known = batch.keyed && !self.idempotency.insert(batch.id);
            if known || self.batches.contains_key(&batch.id) {
                continue;
            }
            for id in batch.event_ids() {
                *self.rows.entry(id).or_default() += 1;
            }
            if !bill_deliveries {
                self.ledger.push(batch.id);
            }
            let raw = Raw::Spool(self.last_spool);
            let (accepted_at, events, index) = (batch.accepted_at, batch.events, self.write_index);
            self.batches.insert(batch.id, Row { accepted_at, events, index, indexed: false, raw });
            new.push(batch.id);
        }
        if !new.is_empty() {
            self.spool.insert(self.last_spool, Spooled { batches: new, created_at: now });
        }
    }

    pub(super) fn mark_indexed(&mut self, batches: &[Uuid]) {
        for id in batches {
            if let Some(row) = self.batches.get_mut(id) {
                row.indexed = true;
            }
        }
    }

    /// Points the batches to their object and empties the spool, unless somebody did so before.
    pub(super) fn stamp(&mut self, spool_ids: &[i64]) {
        if self.archiving.as_deref() != Some(spool_ids) {
            return;
        }
        self.archiving = None;
        for id in spool_ids {
            for batch in self.spool.remove(id).into_iter().flat_map(|spooled| spooled.batches) {
                if let Some(row) = self.batches.get_mut(&batch) {
                    row.raw = Raw::Object(spool_ids.to_vec());
                }
            }
        }
    }
}

/// Objects by their key, and documents by index and id.
#[derive(Debug, Default)]
pub(super) struct Derived {
    pub(super) objects: BTreeMap<Vec<i64>, Vec<Uuid>>,
    pub(super) documents: BTreeSet<(u64, Uuid)>,
}
