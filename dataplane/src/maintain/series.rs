//! The indices of each series: on to the next when one is full or old, and gone when its newest
//! event is no longer hot.

use runtime::logging::chain;

use super::pass::STEP;
use super::{Error, Rooms};
use crate::event::Micros;
use crate::stores::catalog::Series;
use crate::stores::index::{IndexState, SeriesIndex};

const MICROS_PER_DAY: i64 = 24 * 3600 * 1_000_000;

/// What makes an index full.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes on disk.
    pub bytes: u64,
    /// Documents.
    pub documents: u64,
}

/// Looks after every series. One that fails does not keep the others waiting.
pub async fn maintain_all_series(rooms: &Rooms, limits: Limits, now: Micros) -> Result<(), Error> {
    let names = rooms.catalog.all_series().await?;
    let mut failure = None;
    for name in names {
        let looked_after =
            rooms.catalog.within(STEP, "look after a series", maintain_series(rooms, &name, limits, now));
        if let Err(error) = looked_after.await {
            tracing::warn!(error = chain(&error), "can't look after series {name}");
            failure = Some(error);
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Looks after one series at `now`, or at what PostgreSQL takes for it if that is earlier: a dropped index stays dropped.
pub async fn maintain_series(rooms: &Rooms, name: &str, limits: Limits, now: Micros) -> Result<(), Error> {
    let now = now.min(rooms.catalog.now().await?);
    let series = rooms.catalog.series(name).await?;
    let indices = rooms.index.of_series(&series.series).await?;
    let current = indices.iter().find(|index| index.state.number == series.write_number);
    if let Some(current) = current {
        let oldest = rooms.index.acceptances(&current.name).await?.map(|(oldest, _)| oldest);
        if is_full(current.state, oldest, series.hot_days, limits, now) {
            roll_over(rooms, &series, current).await?;
        }
    }
    // An index that a processor may still be writing to is younger than a hot day.
    for index in indices.iter().filter(|index| index.state.number < series.write_number) {
        let newest = rooms.index.acceptances(&index.name).await?.map_or(index.state.created_at, |(_, newest)| newest);
        if is_cold(newest, series.hot_days, now) {
            rooms.index.drop_index(&index.name).await?;
            tracing::info!(index = index.name, "dropped index {}", index.name);
        }
    }
    Ok(())
}

/// Makes the next index, then writes to it.
async fn roll_over(rooms: &Rooms, series: &Series, current: &SeriesIndex) -> Result<(), Error> {
    let locked = rooms.catalog.begin_roll_over(series).await?;
    let next = crds::names::index_name(&series.series, series.write_number + 1);
    rooms.index.make_next(&current.name, &next).await?;
    if locked.commit().await? {
        tracing::info!(series = series.series, "series {} goes on with {next}", series.series);
    }
    Ok(())
}

/// Whether the series should go on with the next index. An index that never fills must end too,
/// or its first events would stay for as long as events come: it ends after an eighth of its
/// events' time, so that none stays much longer than it should, and a series has some ten indices.
fn is_full(index: IndexState, oldest: Option<Micros>, hot_days: i32, limits: Limits, now: Micros) -> bool {
    let longest = i64::from((hot_days / 8).max(1)) * MICROS_PER_DAY;
    let old = oldest.is_some_and(|oldest| now.saturating_sub(oldest) >= longest);
    old || index.bytes >= limits.bytes || index.documents >= limits.documents
}

/// Whether every event of an index has been in it for as long as its class says.
fn is_cold(newest: Micros, hot_days: i32, now: Micros) -> bool {
    now.saturating_sub(newest) > i64::from(hot_days) * MICROS_PER_DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 1_767_323_045_000_000;

    #[test]
    fn an_index_is_full_by_size_by_number_or_by_age() {
        let limits = Limits { bytes: 1000, documents: 100 };
        let days_ago = |days: i64| NOW - days * MICROS_PER_DAY;
        for (documents, bytes, oldest, hot_days, expected) in [
            (10, 10, Some(0), 7, false),
            (10, 1000, Some(0), 7, true),
            (100, 10, Some(0), 7, true),
            (10, 10, Some(1), 7, true),
            (0, 10, None, 7, false),
            (10, 10, Some(10), 90, false),
            (10, 10, Some(11), 90, true),
        ] {
            // When it was made says nothing: it may have waited long for its first event.
            let index = IndexState { number: 1, documents, bytes, created_at: days_ago(300) };
            let full = is_full(index, oldest.map(days_ago), hot_days, limits, NOW);
            assert_eq!(full, expected, "{documents} {bytes} {oldest:?} {hot_days}");
        }
    }

    #[test]
    fn an_index_is_cold_once_its_newest_event_is() {
        assert!(!is_cold(NOW - 7 * MICROS_PER_DAY, 7, NOW));
        assert!(is_cold(NOW - 7 * MICROS_PER_DAY - 1, 7, NOW));
    }
}
