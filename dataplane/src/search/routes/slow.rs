//! A line in the log for each slow query: whose it is and what it looks like, never what it looks for.

use std::time::{Duration, Instant};

use runtime::logging::chain;

use super::super::Error;
use crate::tenancy::Caller;

/// From when on a query is slow: ten times what an ordinary one takes.
const SLOW: Duration = Duration::from_secs(1);

/// A query under way.
pub(super) struct Slow {
    begun: Instant,
    tenant: String,
    route: &'static str,
    shape: String,
}

impl Slow {
    pub(super) fn watch(caller: &Caller, route: &'static str, shape: String) -> Self {
        Self { begun: Instant::now(), tenant: caller.tenant.name().to_string(), route, shape }
    }

    /// Writes the line if it took long.
    pub(super) fn told<T>(self, outcome: &Result<T, Error>) {
        let took = self.begun.elapsed();
        if took < SLOW {
            return;
        }
        let outcome = outcome.as_ref().err().map_or_else(|| "answered".to_owned(), |error| chain(error));
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            tenant.name = self.tenant,
            route = self.route,
            shape = self.shape,
            took_ms,
            outcome,
            "a slow query: {took_ms} ms"
        );
    }
}
