//! CPU time and memory of processes, from /proc: for benchmarks.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

/// Ticks a second in /proc: `getconf CLK_TCK` is 100 on every Linux that Rust's standard library
/// knows.
pub const TICKS: f64 = 100.0;

/// Most memory that a process ever held, in MiB.
pub fn peak_rss_mb(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the status of a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM")?;
    Ok(kib / 1024.0)
}

/// Memory of a process in MiB; what it shares with others counts in parts.
pub fn memory_mb(pid: u32) -> anyhow::Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("read the memory of a process")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("Pss")?;
    Ok(kib / 1024.0)
}

/// All processes, each with its parent and its times.
pub struct Table {
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
    /// Reads all of them: some milliseconds of work.
    pub fn read() -> anyhow::Result<Self> {
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

    /// Time of a process alone, in seconds.
    pub fn own(&self, pid: u32) -> f64 {
        self.rows.get(&pid).map_or(0.0, |row| row.own)
    }

    /// A process's children.
    pub fn children(&self, pid: u32) -> &[u32] {
        self.children.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// Time of a process, of everything below it, and of all children that have ended.
    pub fn tree(&self, pid: u32) -> f64 {
        let Some(row) = self.rows.get(&pid) else { return 0.0 };
        let below = self.children(pid).iter().map(|child| self.tree(*child));
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
}
