//! What a run comes to: figures by name, as JSON for programs and as a table for people, and the
//! change of CPU per event since the run before.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};

use crate::meter::Usage;

/// Share of the machine, in percent, above which others disturb a measurement.
const NOISY_PERCENT: f64 = 5.0;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What it is compared with, measured in the same run.
    pub(crate) control: Option<f64>,
    /// `value` by `control`.
    pub(crate) ratio: Option<f64>,
    /// What it has to reach: at least for rates and ratios, at most for times, bytes and costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) must_reach: Option<f64>,
    /// Others used more than 5 % of the machine meanwhile.
    pub(crate) noisy: bool,
    /// Their share.
    pub(crate) foreign_cpu_percent: f64,
    /// Microseconds for the same small work meanwhile: see `pace`.
    pub(crate) pace_us: Option<f64>,
    /// Seconds that were measured.
    pub(crate) seconds: f64,
    /// How it came about: its cases, what was sent and stored.
    pub(crate) detail: Value,
}

impl Figure {
    pub(crate) fn new(name: &str, value: f64, unit: &'static str, usage: &Usage) -> Self {
        Self {
            name: name.to_owned(),
            value: rounded(value),
            unit,
            control: None,
            ratio: None,
            must_reach: goal(name),
            noisy: usage.foreign_percent() > NOISY_PERCENT,
            foreign_cpu_percent: rounded(usage.foreign_percent()),
            pace_us: usage.pace.micros().map(rounded),
            seconds: rounded(usage.wall.as_secs_f64()),
            detail: Value::Null,
        }
    }

    pub(crate) fn against(mut self, control: f64) -> Self {
        self.control = Some(rounded(control));
        self.ratio = Some(rounded(self.value / control));
        self
    }

    pub(crate) fn with(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    fn reached(&self) -> Option<bool> {
        let goal = self.must_reach?;
        let more_is_better = self.unit.ends_with("/s") || self.unit == "ratio";
        Some(if more_is_better { self.value >= goal } else { self.value <= goal })
    }
}

/// What each figure must reach, on 2 cores with the generator on them.
fn goal(name: &str) -> Option<f64> {
    Some(match name {
        "accepted_batched_events_per_second" => 300_000.0,
        "accepted_single_requests_per_second" => 20_000.0,
        "accept_p50_ms" => 3.0,
        "accept_p99_ms" => 10.0,
        "searchable_events_per_second" => 30_000.0,
        "searchable_ratio_to_opensearch" => 0.72,
        "own_cpu_us_per_event" => 10.0,
        "ratio_to_per_event_mode" => 40.0,
        "to_catalog_p99_ms" => 250.0,
        "to_live_p99_ms" => 50.0,
        "to_searchable_p99_ms" => 1000.0,
        "thousand_tenants_ratio" => 0.6,
        "archive_bytes_ratio" => 0.25,
        "greedy_accept_p99_times" | "greedy_to_catalog_p99_times" => 1.5,
        "hostile_accept_p99_times" | "hostile_list_p99_times" => 1.5,
        "outage_queue_mb" => 64.0,
        "catch_up_events_per_second" => 20_000.0,
        "scan_mb_per_second" => 200.0,
        "ingest_rss_mb" => 100.0,
        "processor_rss_mb" => 250.0,
        _ => return None,
    })
}

/// Three digits behind the point for what is small, none for what is large.
pub(crate) fn rounded(value: f64) -> f64 {
    let digits = if value.abs() >= 1000.0 { 1.0 } else { 1000.0 };
    (value * digits).round() / digits
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) figures: Vec<Figure>,
    /// CPU microseconds per event by scenario and stage, such as `searchable.redis`.
    pub(crate) stages: BTreeMap<String, f64>,
}

impl Report {
    pub(crate) fn add(&mut self, figure: Figure) {
        eprintln!("  {} = {} {}", figure.name, figure.value, figure.unit);
        self.figures.push(figure);
    }

    /// Keeps the stages of a window, and makes a figure of each.
    pub(crate) fn add_stages(&mut self, scenario: &str, usage: &Usage, events: u64) {
        for (stage, micros) in usage.per_event(events) {
            self.stages.insert(format!("{scenario}.{}", stage.name()), rounded(micros));
            let name = format!("cpu_us_per_event.{scenario}.{}", stage.name());
            self.figures.push(Figure::new(&name, micros, "µs", usage));
        }
        let generator = usage.generator * 1e6 / events.max(1) as f64;
        let name = format!("cpu_us_per_event.{scenario}.generator");
        self.figures.push(Figure::new(&name, generator, "µs", usage).with(json!({
            "kernel_threads_us": rounded(usage.kernel * 1e6 / events.max(1) as f64),
            "interrupts_us": rounded(usage.interrupts * 1e6 / events.max(1) as f64),
            "stolen_seconds": rounded(usage.stolen),
        })));
    }

    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// Writes the list of figures, `run` being one of them.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_vec_pretty(&self.figures)?).with_context(|| format!("write {}", path.display()))
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        for figure in &self.figures {
            let control = match (figure.control, figure.ratio) {
                (Some(control), Some(ratio)) => format!("control {control}, ratio {ratio}"),
                (Some(control), None) => format!("control {control}"),
                (None, _) => String::new(),
            };
            let goal = match (figure.must_reach, figure.reached()) {
                (Some(goal), Some(true)) => format!("reaches {goal}"),
                (Some(goal), _) => format!("MISSES {goal}"),
                _ => String::new(),
            };
            let noisy =
                if figure.noisy { format!("noisy: {} % foreign", figure.foreign_cpu_percent) } else { String::new() };
            // Writing to a text does not fail.
            let _written = writeln!(
                out,
                "{:<46} {:>12} {:<11} {goal:<16} {control:<36} {noisy}",
                figure.name, figure.value, figure.unit
            );
        }
        out
    }

    /// Compares the stages with those of the last run kept in `history`, and keeps these instead.
    /// What this run did not measure stays as it was.
    pub(crate) fn changes(&self, history: &Path) -> anyhow::Result<String> {
        let before: BTreeMap<String, f64> =
            fs::read(history).ok().and_then(|kept| serde_json::from_slice(&kept).ok()).unwrap_or_default();
        let mut kept = before.clone();
        kept.extend(self.stages.clone());
        if let Some(folder) = history.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(history, serde_json::to_vec_pretty(&kept)?)
            .with_context(|| format!("write {}", history.display()))?;
        Ok(changes(&before, &self.stages))
    }
}

/// A line for each stage, with what it was before.
fn changes(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) -> String {
    let mut out = String::new();
    for (name, value) in now {
        // Writing to a text does not fail.
        let _written = match before.get(name) {
            Some(old) if *old > 0.0 => {
                let percent = (value / old - 1.0) * 100.0;
                writeln!(out, "{name:<32} {old:>10} → {value:>10} µs  {percent:+.0} %")
            }
            _ => writeln!(out, "{name:<32} {:>10}   {value:>10} µs", ""),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn usage(foreign: f64) -> Usage {
        Usage {
            wall: Duration::from_secs(10),
            stages: BTreeMap::from([(crate::meter::Stage::Redis, 2.0)]),
            generator: 1.0,
            kernel: 0.0,
            interrupts: 0.0,
            stolen: 0.0,
            foreign,
            pace: crate::pace::Pace::default(),
        }
    }

    #[test]
    fn a_figure_says_whether_it_reaches_its_goal_and_whether_it_was_disturbed() {
        for (name, value, unit, expected) in [
            ("accepted_batched_events_per_second", 300_000.0, "events/s", Some(true)),
            ("accepted_batched_events_per_second", 299_000.0, "events/s", Some(false)),
            ("accept_p99_ms", 10.0, "ms", Some(true)),
            ("accept_p99_ms", 10.1, "ms", Some(false)),
            ("archive_bytes_ratio", 0.2, "bytes/byte", Some(true)),
            ("searchable_ratio_to_opensearch", 0.7, "ratio", Some(false)),
            ("something else", 1.0, "ms", None),
        ] {
            assert_eq!(Figure::new(name, value, unit, &usage(0.0)).reached(), expected, "{name} {value}");
        }
        let share = 0.06 * 10.0 * crate::meter::cores() as f64;
        assert!(Figure::new("x", 1.0, "ms", &usage(share)).noisy);
        assert!(!Figure::new("x", 1.0, "ms", &usage(share / 2.0)).noisy);
    }

    #[test]
    fn stages_are_per_event_and_compared_with_the_last_run() {
        let mut report = Report::default();
        report.add_stages("s", &usage(0.0), 1_000_000);
        assert_eq!(report.stages, BTreeMap::from([("s.redis".to_owned(), 2.0)]));
        let before = BTreeMap::from([("s.redis".to_owned(), 4.0), ("gone".to_owned(), 1.0)]);
        let text = changes(&before, &report.stages);
        assert!(text.contains("s.redis") && text.contains("-50 %") && !text.contains("gone"), "{text}");
        let first = changes(&BTreeMap::new(), &report.stages);
        assert!(first.contains("s.redis") && !first.contains('%'), "{first}");
    }

    #[test]
    fn a_ratio_is_value_by_control() {
        let figure = Figure::new("x", 30_000.0, "events/s", &usage(0.0)).against(40_000.0);
        assert_eq!((figure.control, figure.ratio), (Some(40_000.0), Some(0.75)));
    }
}
