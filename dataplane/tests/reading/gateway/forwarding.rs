//! What passes through the front door.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Uri};
use axum::routing::{get, post};
use dataplane::gateway::forward::Upstream;
use reqwest::{Method, StatusCode};
use testkit::eventually;
use testkit::http::Door;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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

/// An address that stands for a Service: each new connection goes to the one that is named then, and stays there.
async fn service(behind: &Arc<watch::Sender<String>>) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let behind = Arc::clone(behind);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let pod = behind.borrow().clone();
            tokio::spawn(async move {
                let mut pod = TcpStream::connect(pod.trim_start_matches("http://")).await?;
                tokio::io::copy_bidirectional(&mut client, &mut pod).await
            });
        }
    });
    Ok(url)
}

#[tokio::test]
async fn a_pod_that_was_added_gets_requests_under_a_steady_load() -> anyhow::Result<()> {
    let pod = async |name: &'static str| Served::start(Router::new().route("/api/logs", get(async move || name))).await;
    let (old, new) = (pod("old").await?, pod("new").await?);
    let behind = Arc::new(watch::Sender::new(old.url.clone()));
    let upstream = Upstream::new(&service(&behind).await?)?;
    let ask = async |upstream: &Upstream| -> anyhow::Result<String> {
        let request = Request::get("/api/logs").body(Body::empty())?;
        let answer = upstream.forward(request, "127.0.0.1:1".parse()?).await;
        anyhow::ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        Ok(String::from_utf8(to_bytes(answer.into_body(), 1000).await?.to_vec())?)
    };
    // As it is set for production, the second request goes where the first did.
    let aged = upstream.clone().reconnecting_after(Duration::from_millis(500));
    assert_eq!((ask(&upstream).await?, ask(&aged).await?), ("old".to_owned(), "old".to_owned()));
    behind.send_replace(new.url.clone());
    assert_eq!(ask(&upstream).await?, "old", "a connection is used again");
    eventually("the new pod is asked, and no request failed", Duration::from_secs(20), || async {
        let pod = ask(&aged).await;
        assert!(pod.is_ok(), "{pod:?}");
        anyhow::ensure!(pod? == "new", "the old pod answers");
        Ok(())
    })
    .await
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
        assert_eq!(door.with_key(key).detail(stored.first_event()).await.is_ok(), found == 1);
        assert_eq!(door.with_key(key).batch(stored.batch.batch_id).await.is_ok(), found == 1);
    }
    let letter = format!("/api/dead-letters/{}", stored.batch.dead_letters[0].id);
    for (seat, status) in [(other, 404), (own, 200)] {
        let letters = door.with_key(&seat.key).dead_letters("").await?;
        assert_eq!(letters.items.len(), usize::from(status == 200));
        for (method, path) in [(Method::POST, format!("{letter}/redrive")), (Method::DELETE, letter.clone())] {
            let answered = door.with_key(&seat.admin).request(method.clone(), &path).send().await?.status().as_u16();
            assert_eq!(answered, if method == Method::POST && status == 200 { 202 } else { status }, "{method} {path}");
        }
    }
    let refusal = Door::refusal(door.request(Method::GET, "/api/logs")).await?;
    assert_eq!(refusal, (401, "missing_api_key".to_owned()));
    house.retire().await
}
