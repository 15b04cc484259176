//! Recorded requests of Grafana Explore and Logs Drilldown, and their answers to the byte up to times and ids.

use serde_json::json;

use super::{Answer, Lokis, SECOND};

fn events() -> Vec<(i64, serde_json::Value)> {
    vec![
        (
            1,
            json!({"message": "GET /orders 200", "service": "api", "application": "shop", "level": "info", "status": 200}),
        ),
        (
            2,
            json!({"message": "GET /orders timeout", "service": "api", "application": "shop", "level": "error",
                   "metadata": {"pod": "p-1", "trace.id": "t9"}, "status": 500}),
        ),
        (SECOND, json!({"message": "{\"took\":5,\"ok\":true}", "service": "web", "language": "go", "level": "warn"})),
    ]
}

const CATEGORIZED: (&str, &str) = ("X-Loki-Response-Encoding-Flags", "categorize-labels");

#[tokio::test]
async fn lines_have_the_form_that_the_client_asks_for() -> anyhow::Result<()> {
    let lokis = Lokis::with(&events()).await?;
    let (start, end) = (lokis.nanos(0), lokis.nanos(60 * SECOND));
    let span = [("start", &*start), ("end", &*end), ("limit", "1000"), ("step", "15000ms"), ("unknown", "x")];
    let with = |query: &'static str| [&[("query", query)][..], &span].concat();
    let tags = ("X-Query-Tags", "Source=grafana-lokiexplore-app");
    let get = reqwest::Method::GET;

    let plain = lokis.ask(get.clone(), "query_range", &with(r#"{service_name="api"} |= `timeout`"#), &[tags]).await?;
    let expected = format!(
        r#"{{"status":"success","data":{{"resultType":"streams","result":[{{"stream":{{"application":"shop","detected_level":"error","pod":"p-1","service_name":"api","status":"500","trace_id":"t9"}},"values":[["{}","GET /orders timeout"]]}}]"#,
        lokis.nanos(2)
    );
    assert_eq!((plain.status, plain.kind.as_str()), (200, "application/json"));
    assert_eq!(plain.without_stats(), expected);

    let query = r#"{service_name=~".+"} | json | logfmt | drop __error__, __error_details__"#;
    for method in [get.clone(), reqwest::Method::POST] {
        let answer = lokis.ask(method, "query_range", &with(query), &[CATEGORIZED, tags]).await?;
        let id =
            |text: &str| text.split(r#""event_id":""#).nth(1).map(|rest| rest[..36].to_owned()).unwrap_or_default();
        let first = id(&answer.text);
        let expected = format!(
            r#"{{"status":"success","data":{{"resultType":"streams","encodingFlags":["categorize-labels"],"result":[{{"stream":{{"language":"go","service_name":"web"}},"values":[["{}","{{\"took\":5,\"ok\":true}}",{{"structuredMetadata":{{"detected_level":"warn","event_id":"{first}"}},"parsed":{{"ok":"true","took":"5"}}}}]]}},{{"stream":{{"application":"shop","service_name":"api"}},"values":[["#,
            lokis.nanos(SECOND)
        );
        assert!(answer.text.starts_with(&expected), "{}\n{expected}", answer.text);
        read_as_grafana(&answer)?;
    }
    // Nothing to read in a line is an object all the same.
    let answer = lokis
        .ask(get, "query_range", &with(r#"{service_name="web"} | drop event_id, detected_level"#), &[CATEGORIZED])
        .await?;
    assert!(answer.text.contains(r#"true}",{}]]"#), "{}", answer.text);
    lokis.house.retire().await
}

#[tokio::test]
async fn labels_series_and_volumes_are_told() -> anyhow::Result<()> {
    let lokis = Lokis::with(&events()).await?;
    let (start, end) = (lokis.nanos(0), lokis.nanos(60 * SECOND));
    let span = [("start", &*start), ("end", &*end)];
    let seconds = (lokis.base + 60 * SECOND) / SECOND;
    for (path, further, expected) in [
        ("labels", vec![], r#"{"status":"success","data":["application","language","service_name"]}"#.to_owned()),
        ("label", vec![], r#"{"status":"success","data":["application","language","service_name"]}"#.into()),
        ("label/service_name/values", vec![], r#"{"status":"success","data":["api","web"]}"#.into()),
        ("label/detected_level/values", vec![], r#"{"status":"success","data":["error","info","warn"]}"#.into()),
        (
            "label/service_name/values",
            vec![("query", r#"{application="shop"}"#)],
            r#"{"status":"success","data":["api"]}"#.into(),
        ),
        ("label/service_name/values", vec![("query", r#"{pod="p-1"}"#)], r#"{"status":"success","data":["api"]}"#.into()),
        ("label/service_name/values", vec![("query", r#"{pod="p-2"}"#)], r#"{"status":"success","data":[]}"#.into()),
        ("label/nothing/values", vec![("query", r#"{pod="p-2"}"#)], String::new()),
        ("label/__stream_shard__/values", vec![], r#"{"status":"success","data":[]}"#.into()),
        (
            "series",
            vec![("match[]", r#"{service_name="api"}"#)],
            r#"{"status":"success","data":[{"application":"shop","service_name":"api"}]}"#.into(),
        ),
        (
            "series",
            vec![("match", r#"{service_name=~"w.*|api"}"#), ("match[]", r#"{service_name="api"}"#)],
            r#"{"status":"success","data":[{"application":"shop","service_name":"api"},{"language":"go","service_name":"web"}]}"#
                .into(),
        ),
        ("series", vec![("match[]", r#"{service_name="none"}"#)], r#"{"status":"success","data":[]}"#.into()),
        (
            "index/stats",
            vec![("query", r#"{service_name="api"}"#)],
            r#"{"streams":1,"chunks":0,"bytes":34,"entries":2}"#.into(),
        ),
        (
            "index/volume",
            vec![("query", r#"{service_name=~".+"}"#), ("limit", "5000")],
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"service_name":"api"}},"value":[{seconds},"36"]}},{{"metric":{{"service_name":"web"}},"value":[{seconds},"18"]}}]"#
            ),
        ),
        (
            "detected_labels",
            vec![("query", "")],
            r#"{"detectedLabels":[{"label":"application","cardinality":1},{"label":"language","cardinality":1},{"label":"service_name","cardinality":2}]}"#
                .into(),
        ),
        (
            "detected_fields",
            vec![("query", r#"{service_name=~".+"}"#), ("limit", "1000")],
            concat!(
                r#"{"fields":[{"label":"detected_level","type":"string","cardinality":3,"parsers":null},"#,
                r#"{"label":"ok","type":"boolean","cardinality":1,"parsers":["json"],"jsonPath":["ok"]},"#,
                r#"{"label":"pod","type":"string","cardinality":1,"parsers":null},"#,
                r#"{"label":"status","type":"int","cardinality":2,"parsers":null},"#,
                r#"{"label":"took","type":"int","cardinality":1,"parsers":["json"],"jsonPath":["took"]},"#,
                r#"{"label":"trace_id","type":"string","cardinality":1,"parsers":null}],"limit":1000}"#
            )
            .into(),
        ),
        (
            "detected_field/status/values",
            vec![("query", r#"{service_name="api"}"#), ("limit", "1000")],
            r#"{"values":["200","500"],"limit":1000}"#.into(),
        ),
        (
            "status/buildinfo",
            vec![],
            r#"{"branch":"","buildDate":"","buildUser":"","goVersion":"","revision":"loggerhub-0.1.0","version":"3.6.0"}"#.into(),
        ),
    ] {
        let answer = lokis.get(path, &[&further[..], &span].concat()).await?;
        assert_eq!(answer.status, 200, "{path} {further:?}: {}", answer.text);
        if !expected.is_empty() {
            assert_eq!(answer.without_stats(), expected, "{path} {further:?}");
        }
    }
    let limits = lokis.json("drilldown-limits", &[]).await?;
    assert_eq!(limits["pattern_ingester_enabled"], false);
    assert_eq!(limits["limits"]["max_entries_limit_per_query"], 5000);
    lokis.house.retire().await
}

#[tokio::test]
async fn a_refusal_is_one_text_with_the_words_that_clients_look_for() -> anyhow::Result<()> {
    let lokis = Lokis::with(&[]).await?;
    let text = "text/plain; charset=utf-8";
    let many = "1".repeat(5);
    for (path, pairs, status, says) in [
        ("query_range", vec![], 400, "parse error"),
        ("query_range", vec![("query", "{a=\"x\"")], 400, "parse error at line 1, col 7"),
        ("query_range", vec![("query", "{a=\"x\"} | unpack")], 400, "stage `unpack` is not supported by LoggerHub"),
        ("query_range", vec![("query", "{}"), ("limit", "0")], 400, "limit must be a positive value"),
        ("query_range", vec![("query", "{}"), ("limit", &many)], 400, "max entries limit per query exceeded, limit >"),
        (
            "query_range",
            vec![("query", "{}"), ("start", "1764240000"), ("end", "1764230000")],
            400,
            "end timestamp must not be before or equal to start time",
        ),
        (
            "query_range",
            vec![("query", "rate({a=\"x\"}[1m])"), ("step", "1ms")],
            400,
            "exceeded maximum resolution of 11,000",
        ),
        ("query", vec![("query", "{a=\"x\"}")], 400, "log queries are not supported as an instant query type"),
        ("series", vec![("match[]", "{")], 400, "parse error"),
        ("label/a/values", vec![("query", "rate({a=\"x\"}[1m])")], 400, "a log query is expected"),
        ("index/volume", vec![("query", "{pod=\"x\"}")], 400, "the volume by the label `pod` is not supported"),
        ("patterns", vec![("query", "{a=\"x\"}")], 404, "`patterns` is not supported by LoggerHub"),
        ("index/volume_range", vec![], 404, "not supported by LoggerHub"),
        ("nonsense", vec![], 404, "not supported by LoggerHub"),
    ] {
        let answer = lokis.get(path, &pairs).await?;
        assert_eq!((answer.status, answer.kind.as_str()), (status, text), "{path} {pairs:?}: {}", answer.text);
        assert!(answer.text.contains(says) && !answer.text.contains('\n'), "{path} {pairs:?}: {}", answer.text);
    }
    let client = reqwest::Client::builder().no_proxy().build()?;
    let [own, other, ingest_only] = &lokis.house.seats[..] else { panic!("three tenants") };
    let wrong = crate::house::with_wrong_secret(&own.key);
    let labels = format!("{}/loki/api/v1/labels", lokis.front.url);
    for (key, tenant, status, says) in [
        (None, None, 401, "password of HTTP Basic"),
        (Some(&wrong), None, 401, "not valid"),
        (Some(&ingest_only.key), None, 403, "scope"),
        (Some(&own.key), Some(other.tenant.name().as_str()), 403, "names a tenant"),
    ] {
        let mut request = client.get(&labels);
        if let Some(key) = key {
            request = request.basic_auth("any", Some(key));
        }
        if let Some(tenant) = tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        let answer = Answer::of(request.send().await?).await?;
        assert_eq!((answer.status, answer.kind.as_str()), (status, text), "{}", answer.text);
        assert!(answer.text.contains(says), "{}", answer.text);
    }
    lokis.house.retire().await
}

/// Reads an answer as Grafana's converter does: member by member, deciding by what has come before.
fn read_as_grafana(answer: &Answer) -> anyhow::Result<()> {
    let order = ["\"status\"", "\"data\"", "\"resultType\"", "\"encodingFlags\"", "\"result\":", "\"stats\""];
    let places: Vec<usize> = order.iter().filter_map(|member| answer.text.find(member)).collect();
    anyhow::ensure!(places.len() == order.len() && places.is_sorted(), "members out of order: {}", answer.text);
    let body: serde_json::Value = serde_json::from_str(&answer.text)?;
    for stream in body["data"]["result"].as_array().into_iter().flatten() {
        for entry in stream["values"].as_array().into_iter().flatten() {
            let third = entry.get(2).and_then(serde_json::Value::as_object);
            let known = third.is_some_and(|third| {
                third.keys().all(|name| ["structuredMetadata", "parsed"].contains(&name.as_str()))
            });
            anyhow::ensure!(known && entry[0].is_string() && entry[1].is_string(), "{entry}");
        }
    }
    Ok(())
}
