//! Paths, targets and methods that mean something else to another server: at search, and at the gateway before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use testkit::http::raw::{Answer, LAST, exchange};
use tokio_util::sync::CancellationToken;

use super::gateway;
use crate::house::{House, Served};

/// What is answered to the key of a tenant that has nothing: an empty list.
const NOTHING: &str = "200 -";

/// Paths that lead nowhere.
const NOWHERE: [&str; 32] = [
    "/metrics",
    "/health",
    "/ready",
    "/queue/status",
    "/api/metrics",
    "/api/../metrics",
    "/api/%2e%2e/metrics",
    "/api/.%2E/metrics",
    "/api/..%2fmetrics",
    "/api/..%5cmetrics",
    "/api/..\\metrics",
    "/api/..;/metrics",
    "/api/logs/../../metrics",
    "/api/logs/%2e%2e%2f%2e%2e%2fmetrics",
    "/data/../metrics",
    "//metrics",
    "//api/logs",
    "/api//logs",
    "/api/./logs",
    "/api/logs/",
    "/api/logs/..",
    "/api/logs.json",
    "/api/logs%2f",
    "/api/logs%00",
    "/api/logs;x",
    "/api/logs;jsessionid=1/",
    "/api%2flogs",
    "/api\\logs",
    "/api/%6cogs",
    "/api/%256cogs",
    "/API/logs",
    "/api/LOGS",
];

/// A server that nobody may be made to ask, and how often somebody did.
async fn bystander() -> anyhow::Result<(Served, Arc<AtomicUsize>)> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let router = Router::new().fallback(move || async move {
        counted.fetch_add(1, Ordering::Relaxed);
        "the bystander's treasure"
    });
    Ok((Served::start(router).await?, asked))
}

fn told(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.code().as_deref().unwrap_or("-"))
}

#[tokio::test]
async fn no_path_and_no_method_leads_behind_the_door_or_to_another_server() -> anyhow::Result<()> {
    let house = House::new().await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let stored =
        house.store(other, &["{\"message\":\"treasure\"}".to_owned(), "treasure in pieces".to_owned()]).await?;
    house.index(other, &stored).await?;
    let search = house.search().await?;
    let front = gateway(&house, Some(&search), &CancellationToken::new()).await?;
    let (bystander, asked) = bystander().await?;
    let elsewhere = bystander.url.trim_start_matches("http://");

    let mut cases: Vec<_> = NOWHERE.iter().map(|path| ("GET", (*path).to_owned(), "404 not_found")).collect();
    cases.extend([
        ("GET", format!("/api/{}", "x".repeat(60_000)), "404 not_found"),
        ("GET", format!("/api/http://{elsewhere}/"), "404 not_found"),
        ("GET", format!("/api/@{elsewhere}/"), "404 not_found"),
        ("GET", format!("//{elsewhere}/api/logs"), "404 not_found"),
        ("GET", "*".to_owned(), "404 not_found"),
        ("GET", elsewhere.to_owned(), "400 invalid_request"),
        ("GET", format!("http://{elsewhere}/api/logs"), "400 invalid_request"),
        ("GET", format!("http://x@{elsewhere}/api/logs"), "400 invalid_request"),
        ("GET", "http://somebody:password@x/api/logs".to_owned(), "400 invalid_request"),
        ("GET", "http://x/api/logs".to_owned(), NOTHING),
        ("GET", "/api/logs#x".to_owned(), NOTHING),
        ("GET", "/api/search?q=treasure".to_owned(), NOTHING),
        ("GET", format!("/api/search?q={}", "x".repeat(60_000)), "400 invalid_query"),
        ("GET", format!("/api/logs?tenant={}", other.tenant.name()), "400 invalid_parameter"),
        ("GET", "/api/logs?_method=DELETE".to_owned(), "400 invalid_parameter"),
        ("GET", "/api/logs?service=%00".to_owned(), "400 invalid_parameter"),
        ("GET", "/api/logs?service=%ff".to_owned(), NOTHING),
        // What is no target at all hyper refuses itself, without a body.
        ("GET", "/api/logs?\0".to_owned(), "400 -"),
        ("GET", String::new(), "400 -"),
        ("GET", "/api/logs /api/logs".to_owned(), "400 -"),
    ]);
    for method in ["TRACE", "CONNECT"] {
        cases.push((method, "/api/logs".to_owned(), "405 method_not_allowed"));
        cases.push((method, elsewhere.to_owned(), "405 method_not_allowed"));
    }
    for method in ["OPTIONS", "PUT", "PATCH", "PURGE", "PROPFIND", "get", "GETT"] {
        cases.push((method, "/api/logs".to_owned(), "405 method_not_allowed"));
    }

    let mut wrong = Vec::new();
    let headers = [
        "x-api-key: KEY",
        "x-api-key: KEY\r\nx-original-url: /metrics\r\nx-rewrite-url: /metrics",
        "x-api-key: KEY\r\nx-forwarded-host: ELSEWHERE\r\nforwarded: host=ELSEWHERE\r\nx-forwarded-proto: gopher",
        "x-api-key: KEY\r\nx-http-method-override: DELETE\r\nx-http-method: DELETE\r\nx-method-override: DELETE",
    ];
    let listed = headers[1..].iter().map(|header| (*header, "GET", "/api/logs".to_owned(), NOTHING));
    let cases = cases.into_iter().map(|(method, target, expected)| (headers[0], method, target, expected));
    for (header, method, target, expected) in cases.chain(listed) {
        let what: String = format!("{method} {target} {header}").chars().take(120).collect();
        let header = header.replace("KEY", &own.key).replace("ELSEWHERE", elsewhere);
        let sent = format!("{method} {target} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n{LAST}");
        for (at, url) in [("search", &search.url), ("the gateway", &front.url)] {
            let answers = exchange(url, sent.as_bytes()).await?;
            let first = answers.first().map(told).unwrap_or_default();
            if first != expected {
                wrong.push(format!("{what} at {at}: {first}, not {expected}"));
            }
            for answer in &answers {
                let shown = answer.body.contains("treasure") || answer.body.contains("# HELP");
                let long = answer.status >= 400 && answer.head.len() + answer.body.len() > 1500;
                if shown || long {
                    wrong.push(format!("{what} at {at}: {}", answer.body));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(asked.load(Ordering::Relaxed), 0, "somebody else was asked");
    house.retire().await
}

/// A proxy's headers that another server might go by.
#[tokio::test]
async fn a_get_stays_a_get() -> anyhow::Result<()> {
    let house = House::new().await?;
    let own = &house.seats[0];
    house.store(own, &["broken".to_owned()]).await?;
    let search = house.search().await?;
    let front = gateway(&house, Some(&search), &CancellationToken::new()).await?;
    let keys = [("read", &own.key, NOTHING), ("manage", &own.admin, "403 scope_missing")];
    for (name, key, expected) in keys {
        let overridden = "x-http-method-override: DELETE\r\nx-http-method: DELETE\r\nx-method-override: DELETE";
        for target in ["/api/dead-letters", "/api/dead-letters?_method=DELETE&all=true"] {
            let sent = format!("GET {target} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n{overridden}\r\n\r\n{LAST}");
            let answers = exchange(&front.url, sent.as_bytes()).await?;
            let refused = if target.contains('?') && name == "read" { "400 invalid_parameter" } else { expected };
            assert_eq!(told(&answers[0]), refused, "{name} {target}");
        }
    }
    let door = testkit::http::Door::at(&front.url, &front.url)?.with_key(&own.key);
    assert_eq!(door.dead_letters("").await?.items.len(), 1);
    house.retire().await
}
