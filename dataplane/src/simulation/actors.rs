//! What each role does, one store call a step.

use std::time::Duration;

use uuid::Uuid;

use super::Defect;
use super::stores::{Batch, Raw, Row};
use super::world::{Fate, SECOND, World};
use crate::event::{Micros, date_time};
use crate::maintain::choose;
use crate::queue::group;
use crate::stores::catalog::SpoolRow;

pub(super) const INGESTS: usize = 2;
pub(super) const PROCESSORS: usize = 3;
/// More than one: what holds them apart is a lock that a lost connection gives up.
pub(super) const MAINTAINERS: usize = 2;

/// Time after which another processor's entries are claimed.
const CLAIM_IDLE: Micros = 30 * SECOND;
/// Age at which spooled batches are archived.
const ARCHIVE_AGE: Duration = Duration::from_secs(5);

/// A process that can die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    Ingest(usize),
    Processor(usize),
    Maintain(usize),
}

/// Something that an actor is in the middle of.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) actor: Actor,
    next: Step,
}

/// The next call, and what it is made with.
#[derive(Debug)]
enum Step {
    Add { entry: Vec<Batch> },
    Answer { entry: Vec<Batch> },
    Store { flush: Flush },
    Index { flush: Flush, rows: Vec<(Batch, Row)> },
    MarkIndexed { flush: Flush, ids: Vec<Uuid> },
    Acknowledge { flush: Flush },
    Put { spool_ids: Vec<i64>, batches: Vec<Uuid> },
    Stamp { spool_ids: Vec<i64>, batches: Vec<Uuid> },
    LateIndex { rows: Vec<(Uuid, Row)> },
    LateMark { ids: Vec<Uuid> },
}

/// Entries in work.
#[derive(Debug, Clone)]
struct Flush {
    entries: Vec<u64>,
    batches: Vec<Batch>,
    stored: bool,
}

impl World {
    /// An actor looks for something to do.
    pub(super) fn act(&mut self, actor: Actor) {
        match actor {
            Actor::Ingest(at) => {
                let round = std::mem::take(&mut self.waiting[at]);
                for entry in group(round) {
                    let next = match self.defect {
                        Defect::AnswerFirst => Step::Answer { entry },
                        _ => Step::Add { entry },
                    };
                    self.tasks.push(Task { actor, next });
                }
            }
            Actor::Processor(at) => self.read(actor, at),
            Actor::Maintain(_) if self.tasks.iter().any(|task| task.actor == actor) => {}
            Actor::Maintain(_) => {
                if let Some(next) = self.plan_object().or_else(|| self.plan_late_index()) {
                    self.tasks.push(Task { actor, next });
                }
            }
        }
    }

    /// A processor holds what it works on, then reads: its own, what the dead left, what is new.
    fn read(&mut self, actor: Actor, at: usize) {
        let mine = self.tasks.iter().filter(|task| task.actor == actor);
        let in_work: Vec<u64> = mine.flat_map(|task| task.entries().iter().copied()).collect();
        self.queue.hold(at, &in_work, self.now);
        let mut read = Vec::new();
        if self.restarted.remove(&at) {
            read = self.queue.own(at);
        }
        read.extend(self.queue.claim(at, CLAIM_IDLE, self.now));
        read.extend(self.queue.read(at, self.now));
        // What comes back although we still work on it is not begun twice.
        read.retain(|(id, _)| !in_work.contains(id));
        if read.is_empty() {
            return;
        }
        let (entries, batches): (Vec<u64>, Vec<Vec<Batch>>) = read.into_iter().unzip();
        let flush = Flush { entries, batches: batches.concat(), stored: false };
        let next = match self.defect {
            Defect::AcknowledgeFirst => Step::Acknowledge { flush },
            _ => Step::Store { flush },
        };
        self.tasks.push(Task { actor, next });
    }

    /// The next object: the one that was noted, or a new one.
    fn plan_object(&mut self) -> Option<Step> {
        let noted = self.catalog.archiving.clone().filter(|_| self.defect != Defect::ForgetPlan);
        let spool_ids = match noted {
            Some(noted) => noted,
            None => {
                let row = |(id, spooled): (&i64, &super::stores::Spooled)| SpoolRow {
                    spool_id: *id,
                    bytes: 100,
                    created_at: date_time(spooled.created_at),
                };
                let rows: Vec<SpoolRow> = self.catalog.spool.iter().map(row).collect();
                let chosen = choose(&rows, ARCHIVE_AGE, self.now)?;
                let fate = self.fate();
                if fate != Fate::Failed {
                    self.catalog.archiving = Some(chosen.clone());
                }
                if fate != Fate::Done {
                    return None;
                }
                chosen
            }
        };
        let in_plan = |raw: &Raw| matches!(raw, Raw::Spool(id) if spool_ids.contains(id));
        let batches = self.catalog.batches.iter().filter(|(_, row)| in_plan(&row.raw)).map(|(id, _)| *id).collect();
        Some(match self.defect {
            Defect::StampFirst => Step::Stamp { spool_ids, batches },
            _ => Step::Put { spool_ids, batches },
        })
    }

    fn plan_late_index(&mut self) -> Option<Step> {
        let unindexed = self.catalog.batches.iter().filter(|(_, row)| !row.indexed);
        let rows: Vec<(Uuid, Row)> = unindexed.map(|(id, row)| (*id, row.clone())).collect();
        (!rows.is_empty()).then_some(Step::LateIndex { rows })
    }

    /// Makes the task's next call; what remains of the task.
    pub(super) fn step(&mut self, task: Task) -> Option<Task> {
        let actor = task.actor;
        let next = match task.next {
            Step::Add { entry } => self.add(entry),
            Step::Answer { entry } => self.answer(entry),
            Step::Store { flush } => Some(self.store(flush)),
            Step::Index { flush, rows } => Some(self.index(flush, rows)),
            Step::MarkIndexed { flush, ids } => {
                // Whatever comes of it: an unmarked batch is indexed once more, and found there.
                if self.fate() != Fate::Failed {
                    self.catalog.mark_indexed(&ids);
                }
                Some(Step::Acknowledge { flush })
            }
            Step::Acknowledge { flush } => self.acknowledge(flush),
            Step::Put { spool_ids, batches } => self.put(spool_ids, batches),
            Step::Stamp { spool_ids, batches } => self.stamp(spool_ids, batches),
            Step::LateIndex { rows } => self.late_index(rows),
            Step::LateMark { ids } => {
                if self.fate() != Fate::Failed {
                    self.catalog.mark_indexed(&ids);
                }
                None
            }
        };
        next.map(|next| Task { actor, next })
    }

    fn add(&mut self, entry: Vec<Batch>) -> Option<Step> {
        let fate = self.fate();
        if fate != Fate::Failed {
            self.queue.add(entry.clone());
        }
        let answered_already = self.defect == Defect::AnswerFirst;
        (fate == Fate::Done && !answered_already).then_some(Step::Answer { entry })
    }

    fn answer(&mut self, entry: Vec<Batch>) -> Option<Step> {
        for batch in &entry {
            // The client may never read it.
            if self.fate() == Fate::Done {
                self.answered(batch);
            }
        }
        (self.defect == Defect::AnswerFirst).then_some(Step::Add { entry })
    }

    fn store(&mut self, flush: Flush) -> Step {
        let fate = self.fate();
        if fate != Fate::Failed {
            self.catalog.store(&flush.batches, self.now, self.defect == Defect::BillDeliveries);
        }
        if fate != Fate::Done {
            return Step::Store { flush };
        }
        let row = |batch: &Batch| Some((batch.clone(), self.catalog.batches.get(&batch.id)?.clone()));
        let rows = flush.batches.iter().filter_map(row).collect();
        Step::Index { flush: Flush { stored: true, ..flush }, rows }
    }

    fn index(&mut self, flush: Flush, rows: Vec<(Batch, Row)>) -> Step {
        // A client's resend has other event ids than what it resends.
        let same = |batch: &Batch, row: &Row| batch.accepted_at == row.accepted_at;
        let wanted: Vec<&(Batch, Row)> = rows
            .iter()
            .filter(|(batch, row)| !row.indexed && (self.defect == Defect::IndexResends || same(batch, row)))
            .collect();
        let ids = wanted.iter().map(|(batch, _)| batch.id).collect();
        let mut documents = Vec::new();
        for (batch, row) in wanted {
            let index = if self.defect == Defect::IndexOfDelivery { self.catalog.write_index } else { row.index };
            documents.extend(batch.event_ids().map(|id| (index, id)));
        }
        let fate = self.fate();
        if fate != Fate::Failed {
            self.derived.documents.extend(documents);
        }
        match fate {
            Fate::Done => Step::MarkIndexed { flush, ids },
            // The index stays away: maintain does it later.
            _ if self.coin() => Step::Acknowledge { flush },
            _ => Step::Index { flush, rows },
        }
    }

    fn acknowledge(&mut self, flush: Flush) -> Option<Step> {
        let fate = self.fate();
        if fate != Fate::Failed {
            self.queue.acknowledge(&flush.entries);
        }
        match (fate, flush.stored) {
            (Fate::Done, true) => None,
            (Fate::Done, false) => Some(Step::Store { flush }),
            _ => Some(Step::Acknowledge { flush }),
        }
    }

    fn put(&mut self, spool_ids: Vec<i64>, batches: Vec<Uuid>) -> Option<Step> {
        // Somebody else stamped them meanwhile: there is nothing to make an object of.
        if !batches.is_empty() {
            let fate = self.fate();
            if fate != Fate::Failed {
                self.derived.objects.insert(spool_ids.clone(), batches.clone());
            }
            if fate != Fate::Done {
                return None;
            }
        }
        (self.defect != Defect::StampFirst).then_some(Step::Stamp { spool_ids, batches })
    }

    fn stamp(&mut self, spool_ids: Vec<i64>, batches: Vec<Uuid>) -> Option<Step> {
        if self.fate() != Fate::Failed {
            if self.defect == Defect::ForgetPlan {
                self.catalog.archiving = Some(spool_ids.clone());
            }
            self.catalog.stamp(&spool_ids);
        }
        (self.defect == Defect::StampFirst).then_some(Step::Put { spool_ids, batches })
    }

    fn late_index(&mut self, rows: Vec<(Uuid, Row)>) -> Option<Step> {
        let fate = self.fate();
        if fate != Fate::Failed {
            for (batch, row) in &rows {
                let ids = super::stores::ids(*batch, row.accepted_at, row.events);
                self.derived.documents.extend(ids.map(|id| (row.index, id)));
            }
        }
        (fate == Fate::Done).then(|| Step::LateMark { ids: rows.into_iter().map(|(id, _)| id).collect() })
    }

    fn coin(&mut self) -> bool {
        use rand::RngExt;
        self.rng.random_bool(0.5)
    }
}

impl Task {
    /// Entries of the queue that it works on.
    fn entries(&self) -> &[u64] {
        match &self.next {
            Step::Store { flush }
            | Step::Index { flush, .. }
            | Step::MarkIndexed { flush, .. }
            | Step::Acknowledge { flush } => &flush.entries,
            _ => &[],
        }
    }
}
