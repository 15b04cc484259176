//! How many processors a pipeline is to have: a pure function of policy, observation, time and
//! what was recommended before.
//!
//! Up at once; down only when fewer have been enough for the whole stabilization window; held
//! while the backlog can't be read or a store that processors need is down.

use std::collections::VecDeque;
use std::time::Duration;

use crds::condition::Reason;
use crds::pipeline::Scaling;

/// Seconds on a clock that never goes back.
pub type Moment = Duration;

/// What a pipeline's owner allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Fewest processors.
    pub min: i32,
    /// Most processors.
    pub max: i32,
    /// Events that one processor is expected to work off.
    pub events_per_replica: i64,
    /// Age above which one more is added.
    pub max_age: Duration,
    /// How long fewer must have been enough.
    pub stabilization: Duration,
}

impl From<&Scaling> for Policy {
    fn from(scaling: &Scaling) -> Self {
        let seconds = |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        Self {
            min: scaling.min_replicas,
            max: scaling.max_replicas,
            events_per_replica: scaling.target_backlog_events_per_replica.max(1),
            max_age: seconds(scaling.max_oldest_age_seconds),
            stabilization: seconds(scaling.scale_down_stabilization_seconds),
        }
    }
}

/// What waits in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Events that are waiting or being worked on.
    pub events: i64,
    /// Age of the oldest entry; zero if there is none.
    pub oldest_age: Duration,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Processors that are asked for now.
    pub replicas: i32,
    /// What waits; none if it can't be read.
    pub backlog: Option<Backlog>,
    /// A store that processors can't work without, and that is down.
    pub missing_store: Option<&'static str>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Ask for so many.
    To(i32, Reason),
    /// Leave it.
    Hold(Reason),
}

/// What was recommended within the stabilization window, and when replicas were last raised.
#[derive(Debug, Clone, Default)]
pub struct History {
    recommended: VecDeque<(Moment, i32)>,
    watched_since: Option<Moment>,
    raised_at: Option<Moment>,
}

/// What the backlog asks for, within and without the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recommendation {
    bounded: i32,
    unbounded: i64,
}

impl History {
    /// Remembers what was recommended at `now` and what was decided, and forgets what is older
    /// than the window. A time without a recommendation begins a new window: nothing is known of it.
    pub fn record(&mut self, policy: &Policy, observation: &Observation, decision: Decision, now: Moment) {
        match recommend(policy, observation, self, now) {
            Some(recommendation) => {
                self.watched_since.get_or_insert(now);
                self.recommended.push_back((now, recommendation.bounded));
            }
            None => {
                self.watched_since = None;
                self.recommended.clear();
            }
        }
        while self.recommended.front().is_some_and(|(at, _)| *at + policy.stabilization < now) {
            self.recommended.pop_front();
        }
        if matches!(decision, Decision::To(to, _) if to > observation.replicas) {
            self.raised_at = Some(now);
        }
    }

    /// The most that was recommended within the window; none before a whole window was watched.
    fn most(&self, policy: &Policy, now: Moment) -> Option<i32> {
        let whole = self.watched_since.is_some_and(|since| since + policy.stabilization <= now);
        let recent = self.recommended.iter().filter(|(at, _)| *at + policy.stabilization >= now);
        let most = recent.map(|(_, replicas)| *replicas).max().unwrap_or(0);
        (whole || policy.stabilization.is_zero()).then_some(most)
    }
}

/// Decides.
pub fn scale(policy: &Policy, observation: &Observation, now: Moment, history: &History) -> Decision {
    let current = observation.replicas;
    if observation.missing_store.is_some() {
        return Decision::Hold(Reason::BackendUnavailable);
    }
    let Some(wanted) = recommend(policy, observation, history, now) else {
        return Decision::Hold(Reason::BacklogUnavailable);
    };
    let at_most = wanted.unbounded > i64::from(policy.max);
    if current > policy.max {
        return Decision::To(policy.max, if at_most { Reason::AtMaxReplicas } else { Reason::ScalingDown });
    }
    if wanted.bounded > current {
        return Decision::To(wanted.bounded, if at_most { Reason::AtMaxReplicas } else { Reason::ScalingUp });
    }
    if wanted.bounded == current {
        return Decision::Hold(if at_most { Reason::AtMaxReplicas } else { Reason::Steady });
    }
    match history.most(policy, now).map(|most| most.max(wanted.bounded)) {
        Some(most) if most < current => Decision::To(most, Reason::ScalingDown),
        _ => Decision::Hold(Reason::Stabilizing),
    }
}

fn recommend(policy: &Policy, observation: &Observation, history: &History, now: Moment) -> Option<Recommendation> {
    let backlog = observation.backlog?;
    let events = backlog.events.max(0);
    let mut unbounded = events / policy.events_per_replica + i64::from(events % policy.events_per_replica > 0);
    // One more for what waits too long, and then as long again for it to show.
    let settled = history.raised_at.is_none_or(|raised| raised + policy.max_age <= now);
    if backlog.oldest_age > policy.max_age {
        unbounded = unbounded.max(i64::from(observation.replicas) + i64::from(settled));
    }
    let bounded = unbounded.clamp(i64::from(policy.min), i64::from(policy.max));
    Some(Recommendation { bounded: i32::try_from(bounded).unwrap_or(policy.max), unbounded })
}

/// A sentence for the condition.
pub fn explain(policy: &Policy, observation: &Observation, decision: Decision) -> String {
    let seen = match observation.backlog {
        Some(Backlog { events: 0, .. }) => "nothing waits".to_owned(),
        Some(Backlog { events: 1, oldest_age }) => format!("1 event waits, for {} s", oldest_age.as_secs()),
        Some(backlog) => {
            format!("{} events wait, the oldest for {} s", rounded(backlog.events), backlog.oldest_age.as_secs())
        }
        None => "the backlog can't be read".to_owned(),
    };
    let current = observation.replicas;
    match decision {
        Decision::To(to, Reason::AtMaxReplicas) => {
            format!("{seen}: from {current} to {}, the most that maxReplicas allows", processors(to))
        }
        Decision::To(to, _) => format!("{seen}: from {current} to {}", processors(to)),
        Decision::Hold(Reason::BackendUnavailable) => {
            let store = observation.missing_store.unwrap_or("a store");
            format!("{store} is down: held at {}", processors(current))
        }
        Decision::Hold(Reason::Stabilizing) => {
            let window = policy.stabilization.as_secs();
            format!("{seen}: fewer than {} must be enough for {window} s first", processors(current))
        }
        Decision::Hold(Reason::AtMaxReplicas) => {
            format!("{seen}: held at {}, the most that maxReplicas allows", processors(current))
        }
        Decision::Hold(_) => format!("{seen}: held at {}", processors(current)),
    }
}

fn processors(number: i32) -> String {
    format!("{number} processor{}", if number == 1 { "" } else { "s" })
}

/// Two digits are enough for a person; the metric is exact.
pub fn rounded(events: i64) -> i64 {
    let mut unit = 1;
    while events / unit >= 100 {
        unit *= 10;
    }
    events / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        min: 1,
        max: 10,
        events_per_replica: 20_000,
        max_age: Duration::from_secs(30),
        stabilization: Duration::from_secs(300),
    };

    fn seen(replicas: i32, events: i64, oldest_seconds: u64) -> Observation {
        let backlog = Backlog { events, oldest_age: Duration::from_secs(oldest_seconds) };
        Observation { replicas, backlog: Some(backlog), missing_store: None }
    }

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    /// A history in which every recommendation of the last ten minutes was `replicas`.
    fn calm(policy: &Policy, replicas: i64) -> History {
        let mut history = History::default();
        for second in (0..=600).step_by(5) {
            let observation = seen(0, replicas * policy.events_per_replica, 0);
            history.record(policy, &observation, Decision::Hold(Reason::Steady), at(second));
        }
        history
    }

    #[test]
    fn the_backlog_asks_for_replicas_up_at_once() {
        use Decision::{Hold, To};
        for (observation, decision) in [
            (seen(1, 0, 0), Hold(Reason::Steady)),
            (seen(1, 20_000, 0), Hold(Reason::Steady)),
            (seen(1, 20_001, 0), To(2, Reason::ScalingUp)),
            (seen(1, 200_000, 5), To(10, Reason::ScalingUp)),
            (seen(1, 200_001, 5), To(10, Reason::AtMaxReplicas)),
            (seen(10, 900_000, 500), Hold(Reason::AtMaxReplicas)),
            (seen(0, 0, 0), To(1, Reason::ScalingUp)),
            (seen(11, 0, 0), To(10, Reason::ScalingDown)),
            (seen(12, 900_000, 0), To(10, Reason::AtMaxReplicas)),
            (seen(3, 0, 0), Hold(Reason::Stabilizing)),
            (seen(1, -5, 0), Hold(Reason::Steady)),
        ] {
            assert_eq!(scale(&POLICY, &observation, at(0), &History::default()), decision, "{observation:?}");
        }
    }

    #[test]
    fn what_waits_too_long_raises_by_one_and_then_waits_for_the_effect() {
        let history = History::default();
        let old = seen(2, 100, 31);
        let raised = Decision::To(3, Reason::ScalingUp);
        assert_eq!(scale(&POLICY, &seen(2, 100, 30), at(0), &history), Decision::Hold(Reason::Stabilizing));
        assert_eq!(scale(&POLICY, &old, at(0), &history), raised);
        let mut history = history;
        history.record(&POLICY, &old, raised, at(0));
        assert_eq!(scale(&POLICY, &seen(3, 100, 36), at(5), &history), Decision::Hold(Reason::Steady));
        assert_eq!(scale(&POLICY, &seen(3, 100, 61), at(30), &history), Decision::To(4, Reason::ScalingUp));
    }

    #[test]
    fn a_minimum_of_zero_sleeps_and_wakes_for_one_event() {
        let policy = Policy { min: 0, ..POLICY };
        assert_eq!(scale(&policy, &seen(0, 0, 0), at(0), &calm(&policy, 0)), Decision::Hold(Reason::Steady));
        assert_eq!(scale(&policy, &seen(0, 1, 0), at(0), &calm(&policy, 0)), Decision::To(1, Reason::ScalingUp));
        assert_eq!(scale(&policy, &seen(1, 0, 0), at(600), &calm(&policy, 0)), Decision::To(0, Reason::ScalingDown));
        // What somebody works on waits too, until it is acknowledged: nobody is taken away from it.
        assert_eq!(scale(&policy, &seen(1, 1, 0), at(600), &calm(&policy, 0)), Decision::Hold(Reason::Steady));
    }

    #[test]
    fn fewer_must_be_enough_for_the_whole_window() {
        assert_eq!(scale(&POLICY, &seen(8, 0, 0), at(600), &calm(&POLICY, 2)), Decision::To(2, Reason::ScalingDown));
        let mut history = calm(&POLICY, 2);
        history.record(&POLICY, &seen(8, 100_000, 0), Decision::Hold(Reason::Stabilizing), at(605));
        assert_eq!(scale(&POLICY, &seen(8, 0, 0), at(610), &history), Decision::To(5, Reason::ScalingDown));
        assert_eq!(scale(&POLICY, &seen(5, 0, 0), at(615), &history), Decision::Hold(Reason::Stabilizing));
        for second in (615..=910).step_by(5) {
            history.record(&POLICY, &seen(5, 0, 0), Decision::Hold(Reason::Stabilizing), at(second));
        }
        assert_eq!(scale(&POLICY, &seen(5, 0, 0), at(910), &history), Decision::To(1, Reason::ScalingDown));
    }

    #[test]
    fn a_new_operator_watches_a_whole_window_before_it_lowers() {
        let mut history = History::default();
        history.record(&POLICY, &seen(8, 0, 0), Decision::Hold(Reason::Stabilizing), at(0));
        assert_eq!(scale(&POLICY, &seen(8, 0, 0), at(299), &history), Decision::Hold(Reason::Stabilizing));
        assert_eq!(scale(&POLICY, &seen(8, 0, 0), at(300), &history), Decision::To(1, Reason::ScalingDown));
    }

    #[test]
    fn a_time_without_sight_begins_a_new_window() {
        let blind = Observation { backlog: None, ..seen(8, 0, 0) };
        assert_eq!(scale(&POLICY, &blind, at(600), &calm(&POLICY, 1)), Decision::Hold(Reason::BacklogUnavailable));
        let mut history = calm(&POLICY, 1);
        history.record(&POLICY, &blind, Decision::Hold(Reason::BacklogUnavailable), at(605));
        history.record(&POLICY, &seen(8, 0, 0), Decision::Hold(Reason::Stabilizing), at(610));
        assert_eq!(scale(&POLICY, &seen(8, 0, 0), at(615), &history), Decision::Hold(Reason::Stabilizing));
    }

    #[test]
    fn a_store_that_is_down_holds_both_ways() {
        for observation in [seen(1, 900_000, 900), seen(9, 0, 0)] {
            let down = Observation { missing_store: Some("PostgreSQL"), ..observation };
            let decision = scale(&POLICY, &down, at(600), &calm(&POLICY, 1));
            assert_eq!(decision, Decision::Hold(Reason::BackendUnavailable));
            assert!(explain(&POLICY, &down, decision).starts_with("PostgreSQL is down"));
        }
    }

    #[test]
    fn what_is_said_reads_well_for_none_one_and_many() {
        let hold = Decision::Hold(Reason::Steady);
        for (observation, expected) in [
            (seen(1, 0, 0), "nothing waits: held at 1 processor"),
            (seen(0, 1, 3), "1 event waits, for 3 s: held at 0 processors"),
            (seen(2, 1234, 3), "1200 events wait, the oldest for 3 s: held at 2 processors"),
        ] {
            assert_eq!(explain(&POLICY, &observation, hold), expected);
        }
    }

    #[test]
    fn a_wave_never_makes_the_number_flap() {
        let mut history = History::default();
        let mut replicas = 1;
        let mut changes = Vec::new();
        for second in (0..3600).step_by(5) {
            // Full and empty in turns of a minute.
            let events = if (second / 60) % 2 == 0 { 100_000 } else { 0 };
            let observation = seen(replicas, events, 0);
            let decision = scale(&POLICY, &observation, at(second), &history);
            history.record(&POLICY, &observation, decision, at(second));
            if let Decision::To(to, _) = decision {
                changes.push(to);
                replicas = to;
            }
        }
        assert_eq!(changes, [5]);
    }

    #[test]
    fn a_status_shows_two_digits() {
        for (events, shown) in [(0, 0), (7, 7), (99, 99), (123, 120), (199_999, 190_000)] {
            assert_eq!(rounded(events), shown);
        }
    }
}
