//! What Grafana sends of its own accord: the test of a data source, volumes, Drilldown's lists and panels.

use serde_json::{Value, json};

use super::{Lokis, SECOND};

#[tokio::test]
async fn a_data_source_is_saved_and_tested() -> anyhow::Result<()> {
    let lokis = Lokis::with(&[]).await?;
    let pairs = [("query", "vector(1)+vector(1)"), ("time", "4000000000"), ("limit", "1"), ("direction", "backward")];
    let answer = lokis.get("query", &pairs).await?;
    assert_eq!(
        answer.without_stats(),
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[4000000000,"2"]}]"#
    );
    lokis.house.retire().await
}

#[tokio::test]
async fn explore_and_drilldown_get_what_their_queries_ask_for() -> anyhow::Result<()> {
    let levels = ["info", "warn", "error"];
    let events: Vec<(i64, Value)> = (0..30)
        .map(|n: i64| {
            let message = format!("took={n}ms status={} x", if n % 10 == 0 { 500 } else { 200 });
            let mut event = json!({"message": message, "service": "api", "level": levels[n as usize % 3]});
            event["pod"] = json!(format!("p-{}", n % 2));
            (n * SECOND, event)
        })
        .collect();
    let lokis = Lokis::with(&events).await?;
    let (start, end) = (lokis.nanos(0), lokis.nanos(60 * SECOND));
    let range = async |query: &str, step: &str| -> anyhow::Result<Vec<Value>> {
        let pairs = [("query", query), ("start", &*start), ("end", &*end), ("step", step), ("limit", "1000")];
        let body = lokis.json("query_range", &pairs).await?;
        Ok(body["data"]["result"].as_array().cloned().unwrap_or_default())
    };
    let sums = |series: &[Value]| {
        let sum = |one: &Value| {
            let values = one["values"].as_array().into_iter().flatten();
            let labels: Vec<String> = one["metric"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, value)| value.as_str().unwrap_or("").to_owned())
                .collect();
            let sum: f64 = values.map(|value| value[1].as_str().unwrap_or("").parse::<f64>().unwrap_or(f64::NAN)).sum();
            format!("{}={sum}", labels.join("/"))
        };
        series.iter().map(sum).collect::<Vec<_>>()
    };

    // Explore's volume, with a filter and without.
    let volume = range(
        r#"sum by (level, detected_level) (count_over_time({service_name="api"} |= "x" | drop __error__[60s]))"#,
        "60000ms",
    );
    assert_eq!(sums(&volume.await?), ["error/error=10", "info/info=10", "warn/warn=10"]);
    let counted = range(
        r#"sum by (level, detected_level) (count_over_time({service_name="api"} | drop __error__[60s]))"#,
        "60000ms",
    );
    assert_eq!(sums(&counted.await?), ["error/error=10", "info/info=10", "warn/warn=10"]);
    // Drilldown's list, its panels, its fields and labels.
    let list = r#"{service_name="api"}  | detected_level="error" | json  | logfmt | drop __error__, __error_details__  | status="500""#;
    assert_eq!(lokis.lines(list, &[]).await?, ["took=20ms status=500 x"]);
    let panel = range(r#"sum by (detected_level) (count_over_time({service_name=`api`} [1s]))"#, "1s").await?;
    assert_eq!(sums(&panel), ["error=10", "info=10", "warn=10"]);
    assert!(
        panel.iter().all(|series| series["values"].as_array().is_some_and(|values| values.len() == 10)),
        "no zeros"
    );
    let fields = r#"sum by (status) (count_over_time({service_name="api"} | json | logfmt | drop __error__, __error_details__ | status!="" [10s]))"#;
    assert_eq!(sums(&range(fields, "10s").await?), ["200=27", "500=3"]);
    let numbers = r#"avg_over_time({service_name="api"} | json | logfmt | drop __error__, __error_details__ | unwrap duration(took) | __error__="" [60s]) by ()"#;
    let average: f64 = sums(&range(numbers, "60s").await?)[0][1..].parse()?;
    assert!((average - 0.015).abs() < 1e-9, "{average}");
    assert_eq!(lokis.lines(r#"{service_name="api"} |~ `(?i)TOOK=29`"#, &[]).await?, ["took=29ms status=200 x"]);
    let by_pod = range(r#"sum(count_over_time({service_name="api", pod!=""} [10s])) by (pod)"#, "10s").await?;
    assert_eq!(sums(&by_pod), ["p-0=15", "p-1=15"]);
    let top =
        range(r#"topk(1, sum by (pod, detected_level) (count_over_time({pod=~"p-.*"} |~ `[12]ms` [60s])))"#, "60s")
            .await?;
    assert_eq!(top.len(), 1);
    // The context of a line, both ways.
    let middle = lokis.nanos(15 * SECOND);
    let older = [("end", &*middle), ("limit", "2"), ("direction", "BACKWARD")];
    assert_eq!(
        lokis.lines(r#"{service_name="api"}"#, &older).await?,
        ["took=14ms status=200 x", "took=13ms status=200 x"]
    );
    let newer = [("start", &*middle), ("limit", "2"), ("direction", "FORWARD")];
    assert_eq!(
        lokis.lines(r#"{service_name="api"}"#, &newer).await?,
        ["took=15ms status=200 x", "took=16ms status=200 x"]
    );
    lokis.house.retire().await
}
