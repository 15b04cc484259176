//! Notes in the catalog that the index has batches: those of many flushes in one transaction.
//!
//! The index takes documents of many flushes in one request, so they are there at the same moment, and a
//! transaction costs PostgreSQL more than such a note does. One is under way at a time: each further connection
//! that touches a tenant's tables has to learn what they look like.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::logging::chain;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::stores::catalog::{Catalog, Kind};
use crate::tenancy::Tenant;

/// Time for others to come. Nobody sees it: events can be searched for already.
const GATHER: Duration = Duration::from_millis(5);
/// Most notes in one transaction, and most that wait for the next.
const TOGETHER: usize = 64;
/// Longest wait for a row that somebody else writes. Whoever holds one longer is paused or lost, and a note that is
/// lost costs one late indexing.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where flushes leave their notes.
pub(super) struct Marks {
    catalog: Catalog,
    /// `None` if each note goes by itself.
    waiting: Option<mpsc::Sender<Mark>>,
}

struct Mark {
    tenant: Arc<Tenant>,
    batches: Vec<Uuid>,
    outcome: oneshot::Sender<Outcome>,
}

/// What became of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It is to be tried by itself: another tenant's may be what failed.
    Alone,
    Failed,
}

impl Marks {
    /// Each note by itself.
    pub(super) fn alone(catalog: Catalog) -> Self {
        Self { catalog, waiting: None }
    }

    /// As many together as come at the same time.
    pub(super) fn together(catalog: Catalog) -> Self {
        let (send, waiting) = mpsc::channel(TOGETHER);
        tokio::spawn(run(catalog.clone(), waiting));
        Self { catalog, waiting: Some(send) }
    }

    /// Notes that the index has these batches of the tenant. If that fails, they are indexed once more, and all is
    /// found there.
    pub(super) async fn mark(&self, tenant: &Arc<Tenant>, batches: Vec<Uuid>) {
        let outcome = match &self.waiting {
            Some(waiting) => {
                let (outcome, answered) = oneshot::channel();
                let mark = Mark { tenant: Arc::clone(tenant), batches: batches.clone(), outcome };
                // Nobody takes it, or answers, only if the task that does has died.
                waiting.send(mark).await.ok();
                answered.await.unwrap_or(Outcome::Alone)
            }
            None => Outcome::Alone,
        };
        if outcome == Outcome::Alone
            && let Err(error) = self.catalog.mark_all_indexed(&[(tenant, &batches)], PATIENCE).await
        {
            tracing::warn!(error = chain(&error), "batches of {} will be indexed once more", tenant.name());
        }
    }
}

/// Takes notes until nobody is left who could leave one.
async fn run(catalog: Catalog, mut waiting: mpsc::Receiver<Mark>) {
    while let Some(first) = waiting.recv().await {
        tokio::time::sleep(GATHER).await;
        let mut marks = vec![first];
        while marks.len() < TOGETHER
            && let Ok(next) = waiting.try_recv()
        {
            marks.push(next);
        }
        let outcome = mark_all(&catalog, &marks).await;
        for mark in marks {
            mark.outcome.send(outcome).ok();
        }
    }
}

async fn mark_all(catalog: &Catalog, marks: &[Mark]) -> Outcome {
    // Ordered: two processors that note the same wait for each other, never in a circle.
    let mut by_tenant: BTreeMap<_, (&Tenant, Vec<Uuid>)> = BTreeMap::new();
    for Mark { tenant, batches, .. } in marks {
        by_tenant.entry(tenant.name()).or_insert((tenant, Vec::new())).1.extend(batches);
    }
    let all: Vec<(&Tenant, &[Uuid])> = by_tenant.values().map(|(tenant, batches)| (*tenant, &batches[..])).collect();
    match catalog.mark_all_indexed(&all, PATIENCE).await {
        Ok(_) => Outcome::Done,
        Err(error) if error.kind() == Kind::Unavailable => {
            tracing::warn!(error = chain(&error), "batches of {} tenants will be indexed once more", all.len());
            Outcome::Failed
        }
        Err(_) => Outcome::Alone,
    }
}
