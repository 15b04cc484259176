//! logcli for real: every command, over lines of which three share each microsecond.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::tail::publish;
use super::{Lokis, SECOND};

const EVENTS: i64 = 2500;
const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

/// A command against the gateway.
fn logcli(lokis: &Lokis, key: &str) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/loki");
    let mut command = Command::new(program);
    command.arg(&lokis.front.url).env("LOGGERHUB_KEY", key).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What it prints, line by line.
async fn printed(lokis: &Lokis, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = logcli(lokis, &lokis.own().key).args(arguments).output().await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

/// What it says as it fails.
async fn failure(lokis: &Lokis, key: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = logcli(lokis, key).args(arguments).output().await?;
    ensure!(!output.status.success(), "{arguments:?} did not fail");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn logcli_works() -> anyhow::Result<()> {
    let events: Vec<(i64, Value)> = (0..EVENTS)
        .map(|n| {
            let service = if n % 4 == 0 { "web" } else { "api" };
            let event = json!({
                "message": format!("line {n}"), "service": service, "level": LEVELS[n as usize % 5], "application": "shop",
                "language": "go",
            });
            (n / 3, event)
        })
        .collect();
    let lokis = Lokis::with(&events).await?;

    assert_eq!(printed(&lokis, &["labels"]).await?, ["application", "language", "service_name"]);
    assert_eq!(printed(&lokis, &["labels", "service_name"]).await?, ["api", "web"]);
    let series = printed(&lokis, &["series", r#"{service_name="api"}"#]).await?;
    assert_eq!(series, [r#"{application="shop", language="go", service_name="api"}"#]);

    // All lines, in batches that end within a microsecond.
    let sent = |keep: &dyn Fn(i64, &str) -> bool| {
        (0..EVENTS)
            .map(|n| (n, format!("line {n}")))
            .filter(|(n, line)| keep(*n, line))
            .map(|(_, line)| line)
            .collect::<Vec<_>>()
    };
    let all = ["query", "-o", "raw", "--limit", "3000", "--batch", "1000", r#"{service_name=~".+"}"#];
    let backward = printed(&lokis, &all).await?;
    let forward = printed(&lokis, &[&all[..], &["--forward"]].concat()).await?;
    for found in [&backward, &forward] {
        ensure!(found.len() == EVENTS as usize, "{} lines", found.len());
        let once: BTreeSet<&String> = found.iter().collect();
        ensure!(once.len() == found.len(), "some lines came twice");
    }
    // Lines of several streams and one time are sorted by logcli as it likes.
    let micros = |found: &[String]| -> Vec<i64> {
        found.iter().filter_map(|line| line[5..].parse::<i64>().ok()).map(|n| n / 3).collect()
    };
    assert!(micros(&forward).is_sorted() && micros(&backward).iter().rev().is_sorted());

    // What filters find is what they say.
    let filtered = async |query: &str, keep: &dyn Fn(i64, &str) -> bool| -> anyhow::Result<()> {
        let mut found = printed(&lokis, &["query", "-o", "raw", "--limit", "3000", "--forward", query]).await?;
        let mut expected = sent(keep);
        found.sort();
        expected.sort();
        ensure!(found == expected, "{query}: {} of {}", found.len(), expected.len());
        Ok(())
    };
    filtered(r#"{service_name="api"} |= "line 24""#, &|n, line| n % 4 != 0 && line.contains("line 24")).await?;
    filtered(r#"{service_name="api"} |= "LINE""#, &|_, _| false).await?;
    let ends =
        |line: &str| line.len() == 7 && line.as_bytes()[5] == b'2' && (b'0'..=b'4').contains(&line.as_bytes()[6]);
    filtered(r#"{application="shop"} |~ "(?i)LINE 2[0-4]$""#, &|_, line| ends(line)).await?;
    filtered(r#"{service_name="web"} != "1""#, &|n, line| n % 4 == 0 && !line.contains('1')).await?;
    filtered(r#"{service_name="web"} | detected_level="error""#, &|n, _| n % 20 == 4).await?;
    filtered(r#"{service_name="web", level=~"warn|error"} | json"#, &|n, _| n % 4 == 0 && n % 5 >= 3).await?;

    // Counts add up, and an empty window has none.
    let query = r#"sum by (detected_level) (count_over_time({service_name=~".+"}[1m]))"#;
    let matrix = printed(&lokis, &["query", "--step", "60s", "--since", "30m", query]).await?.join("\n");
    let matrix: Value = serde_json::from_str(&matrix)?;
    let values = |series: &Value| series["values"].as_array().cloned().unwrap_or_default();
    let counts: Vec<f64> = matrix
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(values)
        .filter_map(|value| value[1].as_str().and_then(|count| count.parse().ok()))
        .collect();
    assert_eq!(matrix.as_array().map(Vec::len), Some(LEVELS.len()), "{matrix}");
    assert!(counts.iter().all(|count| *count > 0.0) && counts.iter().sum::<f64>() == EVENTS as f64, "{matrix}");
    let sum = printed(&lokis, &["instant-query", "vector(1)+vector(1)"]).await?.join("");
    assert_eq!(serde_json::from_str::<Value>(&sum)?[0]["value"][1], "2");
    let stats = logcli(&lokis, &lokis.own().key).args(["query", "--stats", "{}"]).output().await?;
    assert!(String::from_utf8_lossy(&stats.stderr).contains("TotalLinesProcessed") && stats.status.success());

    // What is wrong is said as we say it, on one line.
    let [own, other, ingest_only] = &lokis.house.seats[..] else { panic!("three tenants") };
    let wrong = crate::house::with_wrong_secret(&own.key);
    for (key, arguments, says) in [
        (&own.key, &["query", "{a=\"x\""][..], "parse error at line 1, col 7"),
        (&own.key, &["query", "{a=\"x\"} | unpack"], "stage `unpack` is not supported by LoggerHub"),
        (&own.key, &["query", "--limit", "6000", "--batch", "6000", "{}"], "max entries limit per query exceeded"),
        (&own.key, &["query", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z", "{}"], "end timestamp"),
        (&own.key, &["query", "--org-id", other.tenant.name().as_str(), "{}"], "names a tenant"),
        (&wrong, &["labels"], "the API key is not valid"),
        (&ingest_only.key, &["labels"], "the API key lacks the scope"),
    ] {
        let said = failure(&lokis, key, arguments).await?;
        let line = said.lines().find(|line| line.contains(says)).with_context(|| format!("{arguments:?}: {said}"))?;
        ensure!(!line.contains("{\"error\""), "{line}");
    }

    // A tail: the past, then what comes, each line once.
    let mut tail = logcli(&lokis, &own.key)
        .args(["query", "-t", "-o", "raw", "--limit", "5", r#"{service_name="api"}"#])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut shown = BufReader::new(tail.stdout.take().context("stdout")?).lines();
    let mut next = async || -> anyhow::Result<String> {
        let line = timeout(Duration::from_secs(60), shown.next_line()).await.context("no line came")??;
        line.context("logcli ended")
    };
    let past = (0..EVENTS).filter(|n| n % 4 != 0).rev().take(5).collect::<BTreeSet<_>>();
    for n in past {
        assert_eq!(next().await?, format!("line {n}"));
    }
    for batch in 0..3 {
        let events: Vec<Value> =
            (0..333).map(|n| json!({"message": format!("batch {batch} line {n}"), "service": "api"})).collect();
        publish(&lokis, &events).await?;
    }
    for (batch, n) in (0..3).flat_map(|batch| (0..333).map(move |n| (batch, n))) {
        assert_eq!(next().await?, format!("batch {batch} line {n}"));
    }
    lokis.stop.cancel();
    ensure!(timeout(Duration::from_secs(60), tail.wait()).await.is_ok(), "the tail did not end");
    ensure!(lokis.base % SECOND == 0);
    lokis.house.retire().await
}
