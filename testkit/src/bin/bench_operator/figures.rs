//! What was measured, as JSON for programs and as a table for people; and whose CPU it took.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};
use testkit::processes::Table;

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// At most so much.
    must_reach: Option<f64>,
    detail: Value,
}

impl Figure {
    pub(crate) fn new(name: &'static str, value: f64, unit: &'static str, must_reach: Option<f64>) -> Self {
        Self { name, value: rounded(value), unit, must_reach, detail: Value::Null }
    }

    pub(crate) fn with(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }
}

/// All figures of a run.
pub(crate) struct Report {
    run: Value,
    figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(commit: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<f64> = load.split(' ').take(3).flat_map(str::parse).collect();
        Self { run: json!({"commit": commit, "cores": cores, "load_average": load}), figures: Vec::new() }
    }

    /// Adds a figure, and says it at once.
    pub(crate) fn add(&mut self, figure: Figure) {
        eprintln!("  {} {} {}", figure.name, figure.value, figure.unit);
        self.figures.push(figure);
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&json!({"run": self.run, "figures": self.figures}))?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for Figure { name, value, unit, must_reach, .. } in &self.figures {
            let goal = must_reach.map_or_else(String::new, |goal| {
                format!("at most {goal}: {}", if *value <= goal { "reached" } else { "MISSED" })
            });
            text.push_str(&format!("{name:32} {value:>10} {unit:8} {goal}\n"));
        }
        text
    }
}

/// CPU seconds so far, by whose they are.
pub(crate) struct Cpu(BTreeMap<String, f64>);

impl Cpu {
    /// Of the operator, and of every server that has a file in the folder of process ids.
    pub(crate) fn read(run: &Path, operator: u32) -> anyhow::Result<Self> {
        let table = Table::read()?;
        let mut seconds = BTreeMap::from([
            ("operator".to_owned(), table.tree(operator)),
            ("this benchmark".to_owned(), table.own(std::process::id())),
        ]);
        for entry in fs::read_dir(run).with_context(|| format!("list {}", run.display()))? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pid")) else { continue };
            let text = fs::read_to_string(&path)?;
            if let Some(pid) = text.split_whitespace().next().and_then(|pid| pid.parse().ok()) {
                seconds.insert(name.to_owned(), table.tree(pid));
            }
        }
        Ok(Self(seconds))
    }

    /// What was used since `before`, the idle left out.
    pub(crate) fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        let used = |(name, now): (&String, &f64)| {
            let used = rounded(now - before.0.get(name).copied().unwrap_or(0.0));
            (used > 0.0).then(|| (name.clone(), used))
        };
        self.0.iter().filter_map(used).collect()
    }
}

/// The value that so large a share of them does not exceed; zero of none.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Three digits after the point are enough.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&mut values, share)), [50.0, 99.0, 100.0]);
        assert_eq!(percentile(&mut [7.0], 0.5), 7.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }
}
