//! The spool's bound: how much may wait in PostgreSQL for the archive, in all and of one tenant.
//!
//! It is measured every few seconds, and what this processor stores in between is added. So one
//! processor stays below the bound, and several exceed it by no more than they store in those seconds.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use crds::TenantName;
use crds::quota::Quantity;
use runtime::logging::chain;
use tokio_util::sync::CancellationToken;

use super::measures::Measures;
use crate::stores::catalog::{Catalog, SpoolSize};

/// Time between two measurements.
const MEASURE_EVERY: Duration = Duration::from_secs(3);
/// A tenant's spool that takes less room than this is not looked into.
const SMALL: u64 = 8 * 1024 * 1024;
/// Spools looked into in one measurement, the largest first.
const LOOKED_INTO: usize = 64;
/// Part of the time that looking into spools may take: one in so many.
const LOOK_SHARE: u32 = 20;

/// How much may wait for the archive.
#[derive(Args, Clone, Copy, Debug)]
pub struct SpoolSettings {
    /// Compressed bytes that may wait for the archive, such as 16Gi; above it nothing more is stored.
    #[arg(long = "spool-max-bytes", env = "LOGGERHUB_SPOOL_MAX_BYTES", default_value = "16Gi", value_parser = bytes)]
    pub max_bytes: u64,
    /// Part of it, in percent, that one tenant may take; above it nothing more of that tenant is stored.
    #[arg(long = "spool-tenant-percent", env = "LOGGERHUB_SPOOL_TENANT_PERCENT", default_value_t = 25)]
    pub tenant_percent: u8,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self { max_bytes: 16 << 30, tenant_percent: 25 }
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let quantity = Quantity::from_str(text).and_then(|quantity| quantity.value());
    quantity.map_err(|error| error.to_string())
}

/// Whether something may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// It may.
    Enough,
    /// Nothing more of this tenant.
    TenantFull,
    /// Nothing more at all.
    Full,
}

/// Bytes that one tenant may have.
fn share(settings: SpoolSettings) -> u64 {
    settings.max_bytes / 100 * u64::from(settings.tenant_percent.clamp(1, 100))
}

/// Bytes that still fit where the tenant has `own` and everybody `all`.
fn left(settings: SpoolSettings, all: u64, own: u64) -> u64 {
    share(settings).saturating_sub(own).min(settings.max_bytes.saturating_sub(all))
}

/// What of some entries, in their order, fits into `left` bytes: so many. One that is alone in an empty
/// spool always does, or an entry larger than a small share would wait for ever.
fn fitting(sizes: &[u64], left: u64, empty: bool) -> usize {
    let mut bytes = 0_u64;
    let fits = |size: &&u64| {
        bytes = bytes.saturating_add(**size);
        bytes <= left
    };
    let fitting = sizes.iter().take_while(fits).count();
    if empty { fitting.max(1).min(sizes.len()) } else { fitting }
}

/// Whether `bytes` more fit where the tenant has `own` and everybody `all`.
fn room(settings: SpoolSettings, all: u64, own: u64, bytes: u64) -> Room {
    let share = share(settings);
    if all.saturating_add(bytes) > settings.max_bytes {
        Room::Full
    } else if own.saturating_add(bytes) > share {
        Room::TenantFull
    } else {
        Room::Enough
    }
}

/// What is known of the spool.
#[derive(Debug, Default)]
struct Known {
    /// Bytes by schema, as measured.
    measured: HashMap<String, u64>,
    /// Bytes by schema that were admitted since.
    added: HashMap<String, u64>,
    /// Schemas that are refused, for the log.
    full: HashSet<String>,
    everything_full: bool,
}

impl Known {
    fn own(&self, schema: &str) -> u64 {
        let of = |bytes: &HashMap<String, u64>| bytes.get(schema).copied().unwrap_or_default();
        of(&self.measured).saturating_add(of(&self.added))
    }

    fn all(&self) -> u64 {
        self.measured.values().chain(self.added.values()).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Whether there is nothing of the tenant, and room for others.
    fn takes_any(&self, schema: &str, settings: SpoolSettings) -> bool {
        self.own(schema) == 0 && self.all() < settings.max_bytes
    }

    /// Takes a measurement; `before` is what had been added when it began.
    fn take(&mut self, measured: HashMap<String, u64>, before: &HashMap<String, u64>) {
        self.measured = measured;
        for (schema, counted) in before {
            if let Some(added) = self.added.get_mut(schema) {
                *added = added.saturating_sub(*counted);
            }
        }
        self.added.retain(|_, added| *added > 0);
    }
}

/// The bound, and how far it is away.
pub(super) struct Spool {
    settings: SpoolSettings,
    known: Mutex<Known>,
    measures: Measures,
}

impl Spool {
    pub(super) fn new(settings: SpoolSettings, measures: Measures) -> Self {
        Self { settings, known: Mutex::default(), measures }
    }

    /// How many of these entries of the tenant may be stored, from the first on; they count.
    pub(super) fn admit(&self, tenant: &TenantName, sizes: &[u64]) -> usize {
        let schema = tenant.database_schema();
        let mut known = self.lock();
        let own = known.own(&schema);
        let admitted = fitting(sizes, left(self.settings, known.all(), own), known.takes_any(&schema, self.settings));
        let bytes = sizes.iter().take(admitted).sum::<u64>();
        *known.added.entry(schema.clone()).or_default() += bytes;
        if let Some(refused) = sizes.get(admitted) {
            match room(self.settings, known.all(), known.own(&schema), *refused) {
                Room::Full if !std::mem::replace(&mut known.everything_full, true) => {
                    tracing::warn!("the spool is full: events wait in the queue until it is archived");
                }
                Room::TenantFull if known.full.insert(schema) => {
                    tracing::warn!(tenant.name = %tenant, "the spool of tenant {tenant} is full: its events wait in the queue until it is archived");
                }
                _ => {}
            }
        }
        self.show(&known);
        admitted
    }

    /// Bytes that there is room for, without taking it.
    pub(super) fn left(&self, tenant: &TenantName) -> u64 {
        let known = self.lock();
        left(self.settings, known.all(), known.own(&tenant.database_schema()))
    }

    /// Whether an entry of the tenant fits however large it is.
    pub(super) fn takes_any(&self, tenant: &TenantName) -> bool {
        self.lock().takes_any(&tenant.database_schema(), self.settings)
    }

    /// Whether nothing at all may be stored.
    pub(super) fn is_shut(&self) -> bool {
        let known = self.lock();
        known.everything_full && known.all() >= self.settings.max_bytes / 100 * 99
    }

    /// Measures again and again until `stop`.
    pub(super) async fn measure(&self, catalog: Catalog, stop: CancellationToken) {
        let mut exact = Exact::default();
        loop {
            let before = self.lock().added.clone();
            match measure(self.settings, &catalog, &mut exact).await {
                Ok(measured) => self.measured(measured, &before),
                Err(error) => tracing::debug!(error = chain(&error), "measure the spool"),
            }
            tokio::select! {
                () = tokio::time::sleep(MEASURE_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn measured(&self, measured: HashMap<String, u64>, before: &HashMap<String, u64>) {
        let mut known = self.lock();
        known.take(measured, before);
        let all = known.all();
        if known.everything_full && room(self.settings, all, 0, 1) == Room::Enough {
            known.everything_full = false;
            tracing::info!("the spool has room again");
        }
        let freed: Vec<String> = known
            .full
            .iter()
            .filter(|schema| room(self.settings, all, known.own(schema), 1) == Room::Enough)
            .cloned()
            .collect();
        for schema in freed {
            known.full.remove(&schema);
            tracing::info!("the spool of {schema} has room again");
        }
        self.show(&known);
    }

    fn show(&self, known: &Known) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.measures.spool_bytes.set(number(known.all()));
        self.measures.spool_full.set(i64::from(known.everything_full));
        self.measures.spool_full_tenants.set(i64::try_from(known.full.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was last seen inside spools, and when they are worth another look.
#[derive(Default)]
struct Exact {
    bytes: HashMap<String, u64>,
    next: Option<Instant>,
}

/// Bytes by schema. The room that a spool's tables take says enough while it is below the bound: that is
/// a question of a millisecond. But they keep their room after rows are gone, so what seems too large
/// is looked into, as often as the time that this takes allows.
async fn measure(
    settings: SpoolSettings,
    catalog: &Catalog,
    exact: &mut Exact,
) -> Result<HashMap<String, u64>, crate::stores::catalog::Error> {
    let sizes = catalog.spool_sizes().await?;
    let now = Instant::now();
    if exact.next.is_none_or(|next| next <= now) {
        exact.bytes.clear();
        for schema in worth_a_look(settings, &sizes) {
            // Who waits for one tenant's lock measures nobody's spool.
            if let Some(bytes) = catalog.spool_bytes(&schema).await? {
                exact.bytes.insert(schema, bytes);
            }
        }
        exact.next = Some(Instant::now() + now.elapsed() * LOOK_SHARE);
    }
    Ok(sizes
        .into_iter()
        .map(|SpoolSize { schema, bytes }| {
            let bytes = exact.bytes.get(&schema).map_or(bytes, |inside| bytes.min(*inside));
            (schema, bytes)
        })
        .collect())
}

/// Spools whose room may be too much, the largest first.
fn worth_a_look(settings: SpoolSettings, sizes: &[SpoolSize]) -> Vec<String> {
    let all = sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(size.bytes));
    let suspicious = |size: &&SpoolSize| match room(settings, all, size.bytes, 0) {
        Room::Enough => false,
        Room::TenantFull => true,
        Room::Full => size.bytes >= SMALL || room(settings, 0, size.bytes, 0) != Room::Enough,
    };
    let mut suspicious: Vec<&SpoolSize> = sizes.iter().filter(suspicious).collect();
    suspicious.sort_by_key(|size| std::cmp::Reverse(size.bytes));
    suspicious.into_iter().take(LOOKED_INTO).map(|size| size.schema.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: SpoolSettings = SpoolSettings { max_bytes: 1000, tenant_percent: 25 };

    #[test]
    fn there_is_room_up_to_the_tenants_share_and_up_to_the_whole() {
        for (all, own, bytes, expected) in [
            (0, 0, 250, Room::Enough),
            (0, 0, 251, Room::TenantFull),
            (900, 200, 50, Room::Enough),
            (900, 200, 51, Room::TenantFull),
            (960, 0, 41, Room::Full),
            (2000, 0, 0, Room::Full),
        ] {
            assert_eq!(room(SETTINGS, all, own, bytes), expected, "{all} {own} {bytes}");
        }
    }

    #[test]
    fn as_many_entries_fit_as_there_is_room_for() {
        assert_eq!((left(SETTINGS, 900, 200), left(SETTINGS, 990, 200), left(SETTINGS, 2000, 0)), (50, 10, 0));
        for (sizes, left, empty, expected) in [
            (&[][..], 10, true, 0),
            (&[5, 5, 5], 10, false, 2),
            (&[5, 5, 5], 15, false, 3),
            (&[11, 1], 10, false, 0),
            (&[11, 1], 10, true, 1),
            (&[1], 0, false, 0),
        ] {
            assert_eq!(fitting(sizes, left, empty), expected, "{sizes:?} {left} {empty}");
        }
    }

    #[test]
    fn what_was_added_during_a_measurement_still_counts_after_it() {
        let mut known = Known::default();
        known.added.insert("a".into(), 100);
        let before = known.added.clone();
        known.added.insert("a".into(), 130);
        known.added.insert("b".into(), 7);
        known.take(HashMap::from([("a".to_owned(), 90)]), &before);
        assert_eq!((known.own("a"), known.own("b"), known.all()), (120, 7, 127));
    }

    #[test]
    fn only_what_may_be_too_large_is_looked_into() {
        const MIB: u64 = 1024 * 1024;
        let settings = SpoolSettings { max_bytes: 100 * MIB, tenant_percent: 50 };
        for (sizes, expected) in [
            (vec![("a", 10), ("b", 20)], vec![]),
            (vec![("a", 10), ("b", 60)], vec!["b"]),
            (vec![("a", 40), ("b", 45), ("c", 20), ("d", 1)], vec!["b", "a", "c"]),
        ] {
            let sizes: Vec<SpoolSize> =
                sizes.into_iter().map(|(schema, mib)| SpoolSize { schema: schema.into(), bytes: mib * MIB }).collect();
            assert_eq!(worth_a_look(settings, &sizes), expected);
        }
    }

    #[test]
    fn settings_are_quantities() {
        assert_eq!(bytes("16Gi"), Ok(SpoolSettings::default().max_bytes));
        assert!(bytes("much").unwrap_err().contains("is not a quantity"));
    }
}
