//! The scheduler: who goes next, what fails, and when it ends.

use std::collections::{BTreeMap, BTreeSet};

use crds::{PipelineName, TenantName};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::Defect;
use super::actors::{Actor, INGESTS, MAINTAINERS, PROCESSORS, Task};
use super::check;
use super::stores::{Batch, Catalog, Derived, Queue, Raw};
use crate::event::{Micros, keyed_batch_id};

/// Batches that clients send in one run.
const SENT: usize = 12;
/// Attempts at one of them.
const ATTEMPTS: u32 = 4;
/// Turns with faults.
const TURNS: usize = 250;
/// Turns without, after which all must be quiet.
const QUIET_TURNS: usize = 4_000;
pub(super) const SECOND: Micros = 1_000_000;
/// When the run begins: an ordinary day.
const BEGIN: Micros = 1_767_323_045 * SECOND;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// Done, and the answer lost.
    Lost,
    Failed,
}

/// One of the clients' batches.
struct Sent {
    tenant: TenantName,
    events: u32,
    key: Option<Vec<u8>>,
    attempts: u32,
    answered: bool,
}

pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) defect: Defect,
    pub(super) now: Micros,
    faults: bool,
    pub(super) queue: Queue,
    pub(super) catalog: Catalog,
    pub(super) derived: Derived,
    sent: Vec<Sent>,
    pub(super) accepted: Vec<Uuid>,
    /// What waits for the next round of each ingest.
    pub(super) waiting: Vec<Vec<Batch>>,
    pub(super) tasks: Vec<Task>,
    /// Until when an actor does nothing.
    paused: BTreeMap<Actor, Micros>,
    /// Processors that have yet to look for what they left unfinished.
    pub(super) restarted: BTreeSet<usize>,
}

impl World {
    pub(super) fn new(seed: u64, defect: Defect) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tenants: Vec<TenantName> = ["acme", "globex"].iter().filter_map(|name| name.parse().ok()).collect();
        let sent = (0..SENT).map(|at| Sent {
            tenant: tenants[rng.random_range(0..tenants.len())].clone(),
            events: rng.random_range(1..4),
            key: rng.random_bool(0.5).then(|| format!("key-{at}").into_bytes()),
            attempts: 0,
            answered: false,
        });
        Self {
            sent: sent.collect(),
            rng,
            defect,
            now: BEGIN,
            faults: true,
            queue: Queue::default(),
            catalog: Catalog::default(),
            derived: Derived::default(),
            accepted: Vec::new(),
            waiting: vec![Vec::new(); INGESTS],
            tasks: Vec::new(),
            paused: BTreeMap::new(),
            restarted: BTreeSet::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<(), String> {
        for turn in 0..TURNS {
            self.turn();
            check::promise(&self.accepted, &self.queue, &self.catalog, &self.derived)
                .map_err(|violation| format!("turn {turn}: {violation}"))?;
        }
        self.faults = false;
        self.paused.clear();
        for _ in 0..QUIET_TURNS {
            if self.is_quiet() {
                return check::end(&self.accepted, &self.queue, &self.catalog, &self.derived);
            }
            self.turn();
            check::promise(&self.accepted, &self.queue, &self.catalog, &self.derived)?;
        }
        Err(format!("not at rest: {:?}", self.tasks))
    }

    fn is_quiet(&self) -> bool {
        let left_behind = |row: &super::stores::Row| !row.indexed || matches!(row.raw, Raw::Spool(_));
        self.queue.is_empty()
            && self.tasks.is_empty()
            && self.waiting.iter().all(Vec::is_empty)
            && !self.catalog.batches.values().any(left_behind)
    }

    fn turn(&mut self) {
        self.now += self.rng.random_range(0..2 * SECOND);
        match self.rng.random_range(0..100) {
            0..15 if self.faults => self.send(),
            15..18 if self.faults => self.crash(),
            18..21 if self.faults => self.pause(),
            21..23 if self.faults => self.catalog.write_index += 1,
            23..60 => self.step_task(),
            _ => {
                let actor = self.any_actor();
                if !self.is_paused(actor) {
                    self.act(actor);
                }
            }
        }
    }

    /// What a store call comes to.
    pub(super) fn fate(&mut self) -> Fate {
        match self.rng.random_range(0..10) {
            0 if self.faults => Fate::Lost,
            1 if self.faults => Fate::Failed,
            _ => Fate::Done,
        }
    }

    /// A client sends something for the first time, or again: because it knows of no answer, or
    /// for no reason at all.
    fn send(&mut self) {
        let at = self.rng.random_range(0..SENT);
        let id = self.batch_id(at);
        let again = self.rng.random_bool(0.2);
        let ingest = self.rng.random_range(0..INGESTS);
        let sent = &mut self.sent[at];
        // Without a key, what was answered is not sent again: it would be another batch.
        if sent.attempts == ATTEMPTS || (sent.answered && !(again && sent.key.is_some())) {
            return;
        }
        sent.attempts += 1;
        let lane = PipelineName::default_pipeline().lane(&sent.tenant);
        let (tenant, events, keyed) = (sent.tenant.clone(), sent.events, sent.key.is_some());
        self.waiting[ingest].push(Batch { id, tenant, lane, accepted_at: self.now, events, keyed, sent: at });
    }

    fn batch_id(&mut self, at: usize) -> Uuid {
        let sent = &self.sent[at];
        match &sent.key {
            Some(key) => keyed_batch_id(&sent.tenant, key),
            None => {
                let millis = u64::try_from(self.now / 1000).unwrap_or_default();
                uuid::Builder::from_unix_timestamp_millis(millis, &self.rng.random()).into_uuid()
            }
        }
    }

    /// The client reads a 202.
    pub(super) fn answered(&mut self, batch: &Batch) {
        self.sent[batch.sent].answered = true;
        self.accepted.push(batch.id);
    }

    fn any_actor(&mut self) -> Actor {
        match self.rng.random_range(0..INGESTS + PROCESSORS + MAINTAINERS) {
            at if at < INGESTS => Actor::Ingest(at),
            at if at < INGESTS + PROCESSORS => Actor::Processor(at - INGESTS),
            at => Actor::Maintain(at - INGESTS - PROCESSORS),
        }
    }

    /// Everything that an actor had in hand is gone; it starts again at once.
    fn crash(&mut self) {
        let actor = self.any_actor();
        self.tasks.retain(|task| task.actor != actor);
        self.paused.remove(&actor);
        match actor {
            Actor::Ingest(at) => self.waiting[at].clear(),
            Actor::Processor(at) => {
                self.restarted.insert(at);
            }
            Actor::Maintain(_) => {}
        }
    }

    /// Up to two minutes without a step: longer than the time after which entries are claimed.
    fn pause(&mut self) {
        let actor = self.any_actor();
        let until = self.now + self.rng.random_range(0..120) * SECOND;
        self.paused.insert(actor, until);
    }

    fn is_paused(&self, actor: Actor) -> bool {
        self.paused.get(&actor).is_some_and(|until| *until > self.now)
    }

    fn step_task(&mut self) {
        let ready: Vec<usize> = (0..self.tasks.len()).filter(|at| !self.is_paused(self.tasks[*at].actor)).collect();
        if ready.is_empty() {
            return;
        }
        let at = ready[self.rng.random_range(0..ready.len())];
        let task = self.tasks.swap_remove(at);
        if let Some(next) = self.step(task) {
            self.tasks.push(next);
        }
    }
}
