//! Metric queries: numbers are of all lines, counted by the index or here, or there are none.

use serde_json::{Value, json};

use super::{Lokis, SECOND};

#[tokio::test]
async fn counts_of_the_index_are_those_of_the_lines_at_every_edge() -> anyhow::Result<()> {
    // Around the edges of windows of ten seconds, of milliseconds, and within one millisecond.
    let mut events = Vec::new();
    for edge in 0..6_i64 {
        for (n, off) in [-1_000, -1, 0, 0, 1, 2, 499, 500, 501, 999, 1_000].into_iter().enumerate() {
            let service = if n % 3 == 0 { "web" } else { "api" };
            let level = if n % 2 == 0 { "info" } else { "error" };
            events.push((edge * 10 * SECOND + off, json!({"message": "m", "service": service, "level": level})));
        }
    }
    let lokis = Lokis::with(&events).await?;
    for (start, step, range) in
        [(0, "10", "10s"), (0, "5", "10s"), (500, "10", "10s"), (500, "10s", "20s"), (123, "7", "3s")]
    {
        // In nanoseconds that are no whole microseconds, too.
        for odd in ["000", "777"] {
            let nanos = |after: i64| format!("{}{odd}", lokis.base + after);
            let (start, end) = (nanos(start), nanos(60 * SECOND));
            let value = async |query: String| -> anyhow::Result<Value> {
                let pairs = [("query", &*query), ("start", &*start), ("end", &*end), ("step", step)];
                Ok(lokis.json("query_range", &pairs).await?["data"]["result"].clone())
            };
            for by in ["", "by (service_name)", "by (service_name, detected_level)"] {
                let counted = value(format!("sum {by} (count_over_time({{}}[{range}]))")).await?;
                // A filter that the index does not know makes every line be looked at.
                let looked_at = value(format!("sum {by} (count_over_time({{}} |= `m` [{range}]))")).await?;
                assert_eq!(counted, looked_at, "{start} {step} {range} {by}");
                assert!(counted.as_array().is_some_and(|all| !all.is_empty()));
            }
        }
    }
    let at = lokis.nanos(10 * SECOND);
    let instant = lokis.json("query", &[("query", "sum(count_over_time({}[10s]))"), ("time", &at)]).await?;
    // Seven after the first edge, and four up to the second.
    assert_eq!(instant["data"]["result"][0]["value"][1], "11");
    let rate = lokis.json("query", &[("query", "sum(rate({}[10s])) * 10"), ("time", &at)]).await?;
    assert_eq!(rate["data"]["result"][0]["value"][1], "11");
    lokis.house.retire().await
}

#[tokio::test]
async fn of_many_series_the_largest_are_told_and_it_is_said() -> anyhow::Result<()> {
    let events: Vec<(i64, Value)> = (0..620)
        .map(|n| {
            (n, json!({"message": "m", "service": format!("s{:03}", n % 610), "took": format!("{n}"), "bad": "x"}))
        })
        .collect();
    let lokis = Lokis::with(&events).await?;
    let at = lokis.nanos(SECOND);
    let query = [("query", "sum by (service_name) (count_over_time({}[1m]))"), ("time", &*at)];
    let answer = lokis.get("query", &query).await?;
    let body: Value = serde_json::from_str(&answer.text)?;
    assert_eq!(body["data"]["result"].as_array().map(Vec::len), Some(500));
    assert!(body["warnings"][0].as_str().unwrap_or("").contains("maximum number of series (500) reached"), "{body}");
    assert_eq!(body["data"]["result"][0]["value"][1], "2", "in the order of their labels");
    let quantile = "quantile_over_time(0.5, {} | unwrap took [1m]) by ()";
    let body = lokis.json("query", &[("query", quantile), ("time", &at)]).await?;
    assert_eq!(body["data"]["result"][0]["value"][1], "309.5");
    let answer = lokis.get("query", &[("query", "sum_over_time({} | unwrap bad [1m]) by ()"), ("time", &*at)]).await?;
    assert!(answer.text.contains("620 values of `bad` are no numbers"), "{}", answer.text);
    let absent =
        lokis.json("query", &[("query", r#"absent_over_time({service_name="none"}[1m])"#), ("time", &at)]).await?;
    assert_eq!(absent["data"]["result"][0]["metric"], json!({"service_name": "none"}));
    lokis.house.retire().await
}
