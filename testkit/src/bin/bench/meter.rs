//! CPU time and memory of processes, from /proc.
//!
//! A stage's time is utime + stime of its server's process, of everything below it in the process
//! tree, and of all children that have ended (cutime + cstime): so PostgreSQL's backends count also
//! after they are gone, and so does a Redis child that rewrites the append-only file. Time that the
//! kernel spends on our behalf in its own threads (writing back to disk) is shown apart.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Ticks a second in /proc: `getconf CLK_TCK` is 100 on every Linux that Rust's standard library
/// knows.
const TICKS: f64 = 100.0;
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

/// Most memory that a process ever held, in MiB.
pub(crate) fn peak_rss_mb(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the status of a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM")?;
    Ok(kib / 1024.0)
}

/// All processes, each with its parent and its times.
struct Table {
    rows: HashMap<u32, Row>,
    children: HashMap<u32, Vec<u32>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    parent: u32,
    own: f64,
    ended_children: f64,
}

impl Table {
    fn read() -> anyhow::Result<Self> {
        let mut table = Self { rows: HashMap::new(), children: HashMap::new() };
        for entry in fs::read_dir("/proc").context("list /proc")? {
            let path = entry?.path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
            // One that ended meanwhile counts with its parent.
            let Some(row) = read_row(&path) else { continue };
            table.children.entry(row.parent).or_default().push(pid);
            table.rows.insert(pid, row);
        }
        Ok(table)
    }

    fn own(&self, pid: u32) -> f64 {
        self.rows.get(&pid).map_or(0.0, |row| row.own)
    }

    fn tree(&self, pid: u32) -> f64 {
        let Some(row) = self.rows.get(&pid) else { return 0.0 };
        let below = self.children.get(&pid).into_iter().flatten().map(|child| self.tree(*child));
        row.own + row.ended_children + below.sum::<f64>()
    }
}

fn read_row(folder: &Path) -> Option<Row> {
    row(&fs::read_to_string(folder.join("stat")).ok()?)
}

/// A process's `stat`. The name in brackets may hold spaces and brackets.
fn row(stat: &str) -> Option<Row> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    Some(Row {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_whatever_the_name() {
        let stat = "42 (a) b (c) S 7 1 1 0 -1 4 1 2 3 4 150 50 30 20 20 0 1 0 99 1 2";
        assert_eq!(row(stat), Some(Row { parent: 7, own: 2.0, ended_children: 0.5 }));
        assert_eq!(row("nonsense"), None);
    }

    #[test]
    fn a_tree_holds_what_is_below_and_what_has_ended() {
        let rows = [(1, 0, 1.0, 2.0), (2, 1, 4.0, 8.0), (3, 2, 16.0, 0.0), (4, 0, 32.0, 0.0)];
        let mut table = Table { rows: HashMap::new(), children: HashMap::new() };
        for (pid, parent, own, ended_children) in rows {
            table.rows.insert(pid, Row { parent, own, ended_children });
            table.children.entry(parent).or_default().push(pid);
        }
        assert!((table.tree(1) - 31.0).abs() < 1e-9);
        assert!((table.tree(9)).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_times_and_memory() {
        let watched = Watched::default().with(Stage::Ingest, std::process::id());
        let first = watched.read().unwrap();
        let usage = first.until(&watched.read().unwrap());
        assert!(usage.stages.contains_key(&Stage::Ingest));
        assert!(peak_rss_mb(std::process::id()).unwrap() > 1.0);
    }
}
