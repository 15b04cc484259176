//! When a backlog will be worked off, if things go on as they did of late.

use std::collections::VecDeque;
use std::time::Duration;

use super::scale::Moment;

/// How far a forecast looks back: long against the time between two looks, and short enough to follow a change of
/// replicas.
const WINDOW: Duration = Duration::from_secs(60);
/// Longest time that is still said. Beyond it the backlog does as good as not fall.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// How a backlog went within the window.
#[derive(Debug, Clone, Default)]
pub struct Trend {
    seen: VecDeque<(Moment, i64)>,
}

impl Trend {
    /// Remembers how many events waited at `now`. What was seen before a time without sight says nothing.
    pub fn record(&mut self, events: Option<i64>, now: Moment) {
        match events {
            Some(events) => self.seen.push_back((now, events.max(0))),
            None => self.seen.clear(),
        }
        while self.seen.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.seen.pop_front();
        }
    }

    /// Time until nothing waits; none while the backlog does not fall, or nothing is known of it.
    pub fn drained_in(&self) -> Option<Duration> {
        let ((begun, before), (now, events)) = (*self.seen.front()?, *self.seen.back()?);
        if events == 0 {
            return Some(Duration::ZERO);
        }
        let fell = before - events;
        if fell <= 0 {
            return None;
        }
        let seconds = now.saturating_sub(begun).as_secs_f64() * events as f64 / fell as f64;
        Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is forecast after these backlogs, five seconds apart.
    fn after(backlogs: &[Option<i64>]) -> Option<u64> {
        let mut trend = Trend::default();
        for (events, seconds) in backlogs.iter().zip((0..).step_by(5)) {
            trend.record(*events, Duration::from_secs(seconds));
        }
        trend.drained_in().map(|time| time.as_secs())
    }

    #[test]
    fn what_falls_ends_and_what_does_not_has_no_end() {
        for (backlogs, seconds) in [
            (vec![], None),
            (vec![Some(0)], Some(0)),
            (vec![Some(100)], None),
            (vec![Some(100), Some(100)], None),
            (vec![Some(100), Some(150)], None),
            (vec![Some(1000), Some(900)], Some(45)),
            (vec![Some(1000), Some(1200), Some(800)], Some(40)),
            (vec![Some(1000), Some(0)], Some(0)),
            (vec![Some(1000), None, Some(900)], None),
            (vec![Some(1_000_000_000), Some(999_999_999)], None),
            (vec![Some(-3)], Some(0)),
        ] {
            assert_eq!(after(&backlogs), seconds, "{backlogs:?}");
        }
    }

    #[test]
    fn only_the_last_minute_counts() {
        // It rose for a minute, and has fallen by 10 a second for another.
        let rising = (0..12).map(|look| Some(look * 1000));
        let falling = (0..=12).map(|look| Some(11_000 - look * 50));
        let backlogs: Vec<_> = rising.chain(falling).collect();
        assert_eq!(after(&backlogs), Some(1040));
    }
}
