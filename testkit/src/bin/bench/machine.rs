//! What was measured on: without it, no figure means anything.

use std::fs;

use opensearch::http::Method;
use serde_json::json;

use crate::bed::Bed;
use crate::meter::{Usage, cores};
use crate::report::Figure;

/// The run itself as the first of the figures.
pub(crate) async fn figure(bed: &Bed, commit: &str, usage: &Usage) -> anyhow::Result<Figure> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let path = "/_nodes/_local?filter_path=nodes.*.version,nodes.*.jvm.version,nodes.*.jvm.mem.heap_max_in_bytes";
    let opensearch = bed.search_json(Method::Get, path, None).await?;
    let load: Vec<f64> = read("/proc/loadavg").split(' ').take(3).flat_map(str::parse).collect();
    let mut figure = Figure::new("run", usage.wall.as_secs_f64(), "s", usage).with(json!({
        "commit": commit,
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "cores": cores(),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "opensearch": opensearch["nodes"],
        "load_average": load,
        "line_bytes": crate::report::rounded(bed.lines.mean_bytes()),
    }));
    // Processes come and go in a run: each figure says how much of it was others'.
    figure.foreign_cpu_percent = 0.0;
    Ok(figure)
}
