//! CPU time and memory of processes, from /proc.
//!
//! A stage's time is utime + stime of its server's process, of everything below it in the process
//! tree, and of all children that have ended (cutime + cstime): so PostgreSQL's backends count also
//! after they are gone, and so does a Redis child that rewrites the append-only file. Time that the
//! kernel spends on our behalf in its own threads (writing back to disk) is shown apart.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use testkit::processes::{TICKS, Table};

use crate::pace::{self, Pace};

/// The kernel's first thread, the parent of all its others.
const KERNEL: u32 = 2;

/// Whose time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    Ingest,
    Process,
    Maintain,
    Search,
    Gateway,
    Redis,
    Postgres,
    Minio,
    OpenSearch,
    Peer,
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Process => "process",
            Self::Maintain => "maintain",
            Self::Search => "search",
            Self::Gateway => "gateway",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Minio => "minio",
            Self::OpenSearch => "opensearch",
            Self::Peer => "peer",
        }
    }
}

/// The processes that are watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    pub(crate) processes: Vec<(Stage, u32)>,
}

/// All times at one moment, in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    at: Instant,
    stages: BTreeMap<Stage, f64>,
    generator: f64,
    kernel: f64,
    /// User, nice and system time of the whole machine.
    busy: f64,
    /// Interrupts: nobody's.
    interrupts: f64,
    /// What the host gave to others.
    stolen: f64,
    pace: Pace,
}

/// What was used between two readings.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    pub(crate) stages: BTreeMap<Stage, f64>,
    pub(crate) generator: f64,
    pub(crate) kernel: f64,
    pub(crate) interrupts: f64,
    pub(crate) stolen: f64,
    /// Everybody else's.
    pub(crate) foreign: f64,
    /// How fast the machine was.
    pub(crate) pace: Pace,
}

impl Watched {
    pub(crate) fn with(&self, stage: Stage, pid: u32) -> Self {
        let mut watched = self.clone();
        watched.processes.push((stage, pid));
        watched
    }

    /// Reads everything now: some milliseconds of work.
    pub(crate) fn read(&self) -> anyhow::Result<Reading> {
        let table = Table::read()?;
        let mut stages = BTreeMap::new();
        for (stage, pid) in &self.processes {
            *stages.entry(*stage).or_default() += table.tree(*pid);
        }
        let cpu = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let fields: Vec<f64> =
            cpu.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or(0.0) / TICKS;
        Ok(Reading {
            at: Instant::now(),
            stages,
            generator: table.own(std::process::id()),
            kernel: table.tree(KERNEL),
            busy: field(0) + field(1) + field(2),
            interrupts: field(5) + field(6),
            stolen: field(7),
            pace: pace::read(),
        })
    }
}

impl Reading {
    /// What was used from `self` to `later`, which watches the same processes.
    pub(crate) fn until(&self, later: &Self) -> Usage {
        let stages: BTreeMap<Stage, f64> = later
            .stages
            .iter()
            .map(|(stage, time)| (*stage, (time - self.stages.get(stage).copied().unwrap_or(0.0)).max(0.0)))
            .collect();
        let generator = later.generator - self.generator;
        let kernel = (later.kernel - self.kernel).max(0.0);
        let ours: f64 = stages.values().sum::<f64>() + generator + kernel;
        Usage {
            wall: later.at - self.at,
            generator,
            kernel,
            interrupts: later.interrupts - self.interrupts,
            stolen: later.stolen - self.stolen,
            foreign: (later.busy - self.busy - ours).max(0.0),
            stages,
            pace: later.pace.since(self.pace),
        }
    }
}

impl Usage {
    /// Several windows as one.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut stages = self.stages.clone();
        for (stage, time) in &other.stages {
            *stages.entry(*stage).or_default() += time;
        }
        Self {
            wall: self.wall + other.wall,
            stages,
            generator: self.generator + other.generator,
            kernel: self.kernel + other.kernel,
            interrupts: self.interrupts + other.interrupts,
            stolen: self.stolen + other.stolen,
            foreign: self.foreign + other.foreign,
            pace: self.pace.plus(other.pace),
        }
    }

    /// Everybody else's share of the machine, in percent; what the host took away counts too.
    pub(crate) fn foreign_percent(&self) -> f64 {
        (self.foreign + self.stolen) * 100.0 / (self.wall.as_secs_f64() * cores() as f64)
    }

    /// CPU microseconds per event of each stage.
    pub(crate) fn per_event(&self, events: u64) -> BTreeMap<Stage, f64> {
        self.stages.iter().map(|(stage, time)| (*stage, time * 1e6 / events.max(1) as f64)).collect()
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_times_and_memory() {
        let watched = Watched::default().with(Stage::Ingest, std::process::id());
        let first = watched.read().unwrap();
        let usage = first.until(&watched.read().unwrap());
        assert!(usage.stages.contains_key(&Stage::Ingest));
        assert!(testkit::processes::peak_rss_mb(std::process::id()).unwrap() > 1.0);
    }
}
