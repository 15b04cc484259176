//! Which lines a query finds: what the index is asked is only a superset, and each line decides.

use query::logql::{Expr, Row, parse};
use serde_json::json;
use uuid::Uuid;

use super::{Lokis, SECOND};

/// Lines of which parts of words, cases, signs, and long ones are asked for.
fn messages() -> Vec<String> {
    let mut messages: Vec<String> = [
        "Connection reset by peer",
        "connection RESET by PEER",
        "reconnection resetting bypass",
        "java.lang.NullPointerException: user_id=42",
        "GET /api/v1/orders?id=7 HTTP/1.1 500 12.5ms",
        "a-b-c a_b_c a.b.c",
        "grüße ÜBER straße",
        "{\"status\":500,\"user\":{\"id\":\"u-1\"},\"msg\":\"x \\\"y\\\" z\"}",
        "level=error status=404 msg=\"not found\" took=250ms",
        "\u{1b}[31mred\u{1b}[0m alert",
        "世界 hello 世界",
        "tab\tseparated\tvalues",
        "x",
        "",
        "50% of 3,000.5 units",
        "👍 done",
    ]
    .map(str::to_owned)
    .into();
    messages.push(format!("{} needle-in-the-tail", "filler ".repeat(200)));
    messages
}

const QUERIES: [&str; 46] = [
    "{}",
    "{} |= `reset`",
    "{} |= `Reset`",
    "{} |= `RESET by PEER`",
    "{} |= `nection res`",
    "{} |= `connection reset by`",
    "{} |= `t by p`",
    "{} |= `NullPointer`",
    "{} |= `lang.Null`",
    "{} |= `user_id=4`",
    "{} |= `/api/v1/orders`",
    "{} |= `HTTP/1.1 500`",
    "{} |= `b-c a_b`",
    "{} |= `ü`",
    "{} |= `ÜBER`",
    "{} |= `über`",
    "{} |= `\"status\":500`",
    "{} |= `needle-in`",
    "{} |= `filler filler filler needle`",
    "{} |= `filler filler needle-in-the-tail`",
    "{} |= `界 hello 世`",
    "{} |= \"tab\\tsep\"",
    "{} |= `3,000`",
    "{} |= `👍`",
    "{} |= `x`",
    "{} |= `reset` or `orders`",
    "{} != `e`",
    "{} != `reset` or `orders`",
    "{} |= `connection` != `PEER`",
    "{} |~ `(?i)reset BY`",
    "{} |~ `res(et|olve) by`",
    "{} |~ `[0-9]+ms$`",
    "{} |~ `^conn`",
    "{} |~ `(?i)needle|orders|STRASSE`",
    "{} !~ `(?i)[aeiou]`",
    "{} |> `<_> reset by <_>`",
    "{} |> `GET <_>ms`",
    "{} !> `<_>e<_>`",
    "{} | json | status=\"500\"",
    "{} | json | user_id=\"u-1\"",
    "{} | logfmt | took>200ms",
    "{} | logfmt | status=404 and level=\"error\"",
    "{} | level=\"warn\" | number>=10 | number<12",
    "{} | decolorize |= `red alert`",
    "{} | pod_name=\"p-3\" or tags=~\".*b.*\"",
    "{} | detected_level!=\"info\", pod_name!~\"p-[0-9]\"",
];

#[tokio::test]
async fn a_query_finds_what_it_says_of_each_line() -> anyhow::Result<()> {
    let levels = ["info", "warn", "error"];
    let events: Vec<(i64, serde_json::Value)> = messages()
        .into_iter()
        .enumerate()
        .map(|(n, message)| {
            let event = json!({
                "message": message, "service": format!("s{}", n % 3), "level": levels[n % 3], "number": n,
                "metadata": {"pod.name": format!("p-{n}")}, "tags": ["a", format!("b{n}")],
            });
            (n as i64 * 1000, event)
        })
        .collect();
    let lokis = Lokis::with(&events).await?;
    let rows: Vec<Row> = events
        .iter()
        .map(|(after, event)| {
            let event = stages::event(event.to_string().as_bytes(), lokis.base).expect("an event");
            Row::new(event, lokis.base + after, Uuid::nil())
        })
        .collect();
    let mut found_some = 0;
    for query in QUERIES {
        let Expr::Log(log) = parse(query)? else { panic!("{query}") };
        let kept = rows.iter().filter_map(|row| {
            let mut row = row.clone();
            log.keeps(&mut row).then_some(row.line)
        });
        let expected: Vec<String> = kept.collect();
        let found = lokis.lines(query, &[("direction", "forward")]).await?;
        assert_eq!(found, expected, "{query}");
        found_some += usize::from(!expected.is_empty() && expected.len() < rows.len());
    }
    assert!(found_some > 38, "{found_some} queries find some lines and not all");
    lokis.house.retire().await
}

#[tokio::test]
async fn pages_neither_lose_nor_repeat_lines_of_one_microsecond() -> anyhow::Result<()> {
    let events: Vec<(i64, serde_json::Value)> =
        (0..300).map(|n| (n / 3, json!({"message": format!("line {n}"), "service": "api"}))).collect();
    let lokis = Lokis::with(&events).await?;
    for (direction, expected) in [("forward", (0..300).collect::<Vec<_>>()), ("backward", (0..300).rev().collect())] {
        let limit = [("limit", "300"), ("direction", direction)];
        let all = lokis.lines("{}", &limit).await?;
        let mut numbers: Vec<i64> = all.iter().filter_map(|line| line[5..].parse().ok()).collect();
        assert_eq!(numbers, expected, "{direction}: one stream has the order of events");
        // As logcli goes on: with the last time, and with a nanosecond after it backwards.
        let (mut seen, mut start, mut end) = (std::collections::BTreeSet::new(), lokis.nanos(0), lokis.nanos(SECOND));
        loop {
            let pairs = [("start", &*start), ("end", &*end), ("limit", "7"), ("direction", direction), ("query", "{}")];
            let body = lokis.json("query_range", &pairs).await?;
            let values = body["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
            let before = seen.len();
            seen.extend(values.iter().map(|value| value[1].as_str().unwrap_or("").to_owned()));
            let Some(last) = values.last().filter(|_| values.len() == 7 && seen.len() > before) else { break };
            let last: i64 = last[0].as_str().unwrap_or("").parse()?;
            if direction == "forward" { start = last.to_string() } else { end = (last + 1).to_string() }
        }
        assert_eq!(seen.len(), 300, "{direction}");
        numbers.sort_unstable();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    }
    lokis.house.retire().await
}

#[tokio::test]
async fn nobody_reads_another_tenants_lines() -> anyhow::Result<()> {
    let lokis = Lokis::with(&[(0, json!({"message": "mine", "service": "api"}))]).await?;
    let other = &lokis.house.seats[1];
    let stored = lokis.house.store(other, &[json!({"message": "theirs", "service": "secret"}).to_string()]).await?;
    lokis.house.index(other, &stored).await?;
    assert_eq!(lokis.lines("{}", &[]).await?, ["mine"]);
    let labels = lokis.json("label/service_name/values", &[]).await?;
    assert_eq!(labels["data"], json!(["api"]));
    lokis.house.retire().await
}
