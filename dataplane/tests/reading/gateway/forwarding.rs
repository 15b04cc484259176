//! What passes through the front door.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use axum::routing::post;
use reqwest::{Method, StatusCode};
use testkit::http::Door;
use tokio_util::sync::CancellationToken;

use super::gateway;
use crate::house::{House, Served};

/// Says what it was sent.
async fn echo(uri: Uri, headers: HeaderMap, body: Bytes) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    let said = format!("{uri} {} {} {}", header("x-api-key"), header("x-forwarded-for"), body.len());
    (StatusCode::ACCEPTED, [("x-answer", "1")], said)
}

#[tokio::test]
async fn a_request_and_its_answer_pass_as_they_are() -> anyhow::Result<()> {
    let house = House::new().await?;
    let routes = ["/logs", "/data/fast", "/data/", "/data", "/api/dead-letters/redrive"];
    let upstream = routes.into_iter().fold(Router::new(), |router, path| router.route(path, post(echo)));
    let upstream = Served::start(upstream).await?;
    let front = gateway(&house, Some(&upstream), &CancellationToken::new()).await?;
    let door = Door::at(&front.url, &front.url)?;
    for path in ["/logs?a=b%2Cc", "/data/fast", "/data/", "/data", "/api/dead-letters/redrive"] {
        let request = door.request(Method::POST, path).header("x-api-key", "k").body(vec![b'x'; 1_500_000]);
        let response = request.send().await?;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()["x-answer"], "1");
        assert_eq!(response.text().await?, format!("{path} k 127.0.0.1 1500000"));
    }
    house.retire().await
}

#[tokio::test]
async fn what_has_no_answer_is_refused_with_a_stable_code() -> anyhow::Result<()> {
    let house = House::new().await?;
    let front = gateway(&house, None, &CancellationToken::new()).await?;
    let door = Door::at(&front.url, &front.url)?;
    for path in ["/logs", "/data/fast", "/data/", "/data", "/api/logs", "/api/search?q=x", "/api/dead-letters"] {
        let response = door.request(Method::GET, path).send().await?;
        assert!(response.headers().contains_key("retry-after"), "{path}");
        let refusal = Door::refusal(door.request(Method::POST, path).body("{}")).await?;
        assert_eq!(refusal, (503, "upstream_unavailable".to_owned()), "{path}");
    }
    for path in ["/nonsense", "/api", "/logs/x", "/data/../secret"] {
        assert_eq!(Door::refusal(door.request(Method::GET, path)).await?, (404, "not_found".to_owned()), "{path}");
    }
    let index = door.request(Method::GET, "/").send().await?;
    assert!(index.status().is_success() && index.text().await?.contains("/api/search"));
    house.retire().await
}

#[tokio::test]
async fn two_tenants_see_only_their_own_through_the_front_door() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let front = gateway(&house, Some(&search), &CancellationToken::new()).await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let stored = house.store(own, &["{\"message\":\"treasure\"}".to_owned(), "broken".to_owned()]).await?;
    house.index(own, &stored).await?;
    let door = Door::at(&front.url, &front.url)?;
    for (key, found) in [(&own.key, 1), (&other.key, 0)] {
        assert_eq!(door.with_key(key).list("limit=5").await?.items.len(), found);
        assert_eq!(door.with_key(key).search("q=treasure").await?.items.len(), found);
        assert_eq!(door.with_key(key).detail(&stored.first_event().to_string()).await.is_ok(), found == 1);
        assert_eq!(door.with_key(key).batch(stored.batch.batch_id).await.is_ok(), found == 1);
    }
    let letter = format!("/api/dead-letters/{}", stored.batch.dead_letters[0].id);
    for (seat, status) in [(other, 404), (own, 200)] {
        let letters = door.with_key(&seat.key).dead_letters("").await?;
        assert_eq!(letters["items"].as_array().map(Vec::len), Some(usize::from(status == 200)));
        for (method, path) in [(Method::POST, format!("{letter}/redrive")), (Method::DELETE, letter.clone())] {
            let answered = door.with_key(&seat.admin).request(method.clone(), &path).send().await?.status().as_u16();
            assert_eq!(answered, if method == Method::POST && status == 200 { 202 } else { status }, "{method} {path}");
        }
    }
    let refusal = Door::refusal(door.request(Method::GET, "/api/logs")).await?;
    assert_eq!(refusal, (401, "missing_api_key".to_owned()));
    house.retire().await
}
