//! Whose turn it is: decided from a look at many tenants at once. A tenant that could not be looked at so, because
//! its schema is broken or of an older version, has its turn at everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::archive::{MAX_ROWS, is_due};
use super::late_index::PROCESSORS_TIME;
use crate::event::{Micros, micros};
use crate::stores::catalog::{Catalog, Error, Look};
use crate::tenancy::Tenant;

/// What is known of each tenant, by schema.
pub(super) type Looks = HashMap<String, Look>;

/// What a pass may do for a tenant beside what every pass does.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Steps {
    pub(super) usage: bool,
    pub(super) housekeeping: bool,
    pub(super) sweep: bool,
}

/// What is done for one tenant in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) redrive: bool,
    pub(super) archive: bool,
    pub(super) usage: bool,
    /// Partitions ahead, and the end of rows that are kept no longer.
    pub(super) housekeeping: bool,
    /// The end of objects whose rows are gone.
    pub(super) sweep: bool,
}

impl Due {
    /// Whether something is due that PostgreSQL alone does, and that has a time by which it must be done.
    pub(super) fn in_catalog(self) -> bool {
        self.usage || self.housekeeping
    }

    /// Whether something is due that the archive takes part in.
    pub(super) fn in_archive(self) -> bool {
        self.redrive || self.archive || self.sweep
    }
}

/// Looks at these tenants.
pub(super) async fn look(catalog: &Catalog, tenants: &[Arc<Tenant>]) -> Result<Looks, Error> {
    let schemas: Vec<String> = tenants.iter().map(|tenant| tenant.name().database_schema()).collect();
    catalog.look(&schemas, MAX_ROWS, PROCESSORS_TIME).await
}

/// What is done for a tenant at `now`; `rolled_up` is the newest number of its ledger that was counted.
pub(super) fn due(
    look: Option<&Look>,
    steps: Steps,
    rolled_up: Option<i64>,
    archive_max_age: Duration,
    now: Micros,
) -> Due {
    let Some(look) = look else {
        let Steps { usage, housekeeping, sweep } = steps;
        return Due { redrive: true, archive: true, usage, housekeeping, sweep };
    };
    let spooled = look
        .spooled_since
        .is_some_and(|since| is_due(micros(since), look.spooled_rows, look.spooled_bytes, archive_max_age, now));
    Due {
        redrive: look.to_redrive,
        archive: look.archiving || spooled,
        usage: steps.usage && look.last_usage.is_some() && look.last_usage != rolled_up,
        housekeeping: steps.housekeeping,
        sweep: steps.sweep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::date_time;

    const NOTHING: Due = Due { redrive: false, archive: false, usage: false, housekeeping: false, sweep: false };
    const NOW: Micros = 1_767_323_045_000_000;
    const AGE: Duration = Duration::from_secs(300);

    fn spooled(seconds_ago: i64, rows: i64, bytes: i64) -> Look {
        let since = date_time(NOW - seconds_ago * 1_000_000);
        Look { spooled_since: Some(since), spooled_rows: rows, spooled_bytes: bytes, ..Look::default() }
    }

    #[test]
    fn a_tenant_has_its_turn_at_what_waits() {
        let archive = Due { archive: true, ..NOTHING };
        for (name, look, expected) in [
            ("nothing", Look::default(), NOTHING),
            ("little and young", spooled(299, 3, 1000), NOTHING),
            ("old enough", spooled(300, 1, 1), archive),
            ("a full object", spooled(1, 9, 8 << 20), archive),
            ("as many rows as an object takes", spooled(1, MAX_ROWS, 1), archive),
            ("one that was begun", Look { archiving: true, ..Look::default() }, archive),
            ("letters", Look { to_redrive: true, ..Look::default() }, Due { redrive: true, ..NOTHING }),
            ("what the index lacks is another's work", Look { unindexed: true, ..Look::default() }, NOTHING),
        ] {
            assert_eq!(due(Some(&look), Steps::default(), None, AGE, NOW), expected, "{name}");
        }
    }

    #[test]
    fn usage_is_counted_where_the_ledger_grew() {
        for (usage, last_usage, rolled_up, expected) in [
            (true, None, None, false),
            (true, Some(7), None, true),
            (true, Some(7), Some(6), true),
            (true, Some(7), Some(7), false),
            (false, Some(7), None, false),
        ] {
            let look = Look { last_usage, ..Look::default() };
            let due = due(Some(&look), Steps { usage, ..Steps::default() }, rolled_up, AGE, NOW);
            assert_eq!(due, Due { usage: expected, ..NOTHING }, "{last_usage:?} after {rolled_up:?}");
        }
    }

    #[test]
    fn one_that_could_not_be_looked_at_has_its_turn_at_everything() {
        let steps = Steps { usage: true, housekeeping: true, sweep: true };
        let all = Due { redrive: true, archive: true, usage: true, housekeeping: true, sweep: true };
        assert_eq!(due(None, steps, Some(1), AGE, NOW), all);
        let asked = due(Some(&Look::default()), steps, None, AGE, NOW);
        assert_eq!(asked, Due { housekeeping: true, sweep: true, ..NOTHING });
        assert!(asked.in_catalog() && asked.in_archive() && !NOTHING.in_catalog() && !NOTHING.in_archive());
    }
}
