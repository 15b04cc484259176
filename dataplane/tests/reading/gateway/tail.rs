//! The live tail: who may watch, what is shown, and what a slow reader is told.

use std::time::Duration;

use anyhow::{Context, bail};
use dataplane::tenancy::Tenant;
use futures::StreamExt;
use runtime::stores::Connection;
use serde_json::{Value, json};
use testkit::http::Door;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::gateway;
use crate::house::{House, Served, with_wrong_secret};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Longest wait for what takes milliseconds on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// Opens a tail; an error holds the status and code of the refusal.
pub(super) async fn open(front: &Served, query: &str, key: Option<&str>) -> Result<Socket, (u16, String)> {
    open_with(front, query, key.map(|key| ("x-api-key", key))).await
}

/// Opens a tail as a page does: `new WebSocket(url, ["loggerhub", "loggerhub.key.…"])`.
async fn open_as_page(front: &Served, query: &str, key: &str) -> Result<Socket, (u16, String)> {
    let protocols = format!("loggerhub, loggerhub.key.{key}");
    open_with(front, query, Some(("sec-websocket-protocol", &protocols))).await
}

async fn open_with(front: &Served, query: &str, header: Option<(&'static str, &str)>) -> Result<Socket, (u16, String)> {
    let url = format!("{}/ws/logs{query}", front.url.replacen("http", "ws", 1));
    let mut request = url.into_client_request().expect("a URL");
    if let Some((name, value)) = header {
        request.headers_mut().insert(name, value.parse().expect("a header value"));
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            Err((response.status().as_u16(), body["error"]["code"].as_str().unwrap_or_default().to_owned()))
        }
        Err(other) => panic!("{other}"),
    }
}

async fn message(socket: &mut Socket) -> anyhow::Result<Message> {
    loop {
        match timeout(SOON, socket.next()).await.context("no frame came")?.context("the socket ended")?? {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return Ok(message),
        }
    }
}

pub(super) async fn frame(socket: &mut Socket) -> anyhow::Result<Value> {
    match message(socket).await? {
        Message::Text(text) => Ok(serde_json::from_str(&text)?),
        other => bail!("not a text frame: {other:?}"),
    }
}

/// Publishes as the processor does.
pub(super) async fn publish(cache: &mut Connection, tenant: &Tenant, events: &[Value]) -> anyhow::Result<()> {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    let mut add = redis::cmd("XADD");
    add.arg(tenant.name().tail_stream()).arg("*").arg("e").arg(zstd::encode_all(lines.as_bytes(), 1)?);
    Ok(add.query_async::<()>(cache).await?)
}

pub(super) fn event(service: &str, level: &str, message: &str) -> Value {
    json!({"id": Uuid::now_v7(), "service": service, "level": level, "message": message})
}

#[tokio::test]
async fn a_tail_shows_what_is_published_for_its_tenant_and_its_filter_once() -> anyhow::Result<()> {
    let house = House::new().await?;
    let front = gateway(&house, None, &CancellationToken::new()).await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let mut cache = house.stores.cache()?.connection()?;
    publish(&mut cache, &own.tenant, &[event("api", "INFO", "before anybody watched")]).await?;

    let mut all = open(&front, "", Some(&own.key)).await.unwrap();
    let mut some = open_as_page(&front, "?service=api&level=error", &own.key).await.unwrap();
    let mut foreign = open(&front, "", Some(&other.key)).await.unwrap();
    for socket in [&mut all, &mut some, &mut foreign] {
        assert_eq!(frame(socket).await?, json!({"type": "ready"}));
    }
    let leased: i64 = redis::cmd("TTL").arg(own.tenant.name().tail_lease()).query_async(&mut cache).await?;
    assert!(leased > 0, "the processors are asked to publish");

    let (first, second) = (event("api", "INFO", "first"), event("api", "ERROR", "second"));
    publish(&mut cache, &own.tenant, &[first.clone(), second.clone()]).await?;
    publish(&mut cache, &own.tenant, &[second.clone(), event("web", "ERROR", "third")]).await?;
    publish(&mut cache, &other.tenant, &[event("api", "ERROR", "theirs")]).await?;
    for expected in ["first", "second", "third"] {
        let shown = frame(&mut all).await?;
        assert_eq!((&shown["type"], &shown["event"]["message"]), (&json!("event"), &json!(expected)));
    }
    assert_eq!(frame(&mut some).await?["event"], second);
    assert_eq!(frame(&mut foreign).await?["event"]["message"], "theirs");
    house.retire().await
}

#[tokio::test]
async fn who_may_not_watch_is_refused_before_the_upgrade() -> anyhow::Result<()> {
    let house = House::new().await?;
    let front = gateway(&house, None, &CancellationToken::new()).await?;
    let [own, _, ingest_only] = &house.seats[..] else { panic!("three tenants") };
    let wrong = with_wrong_secret(&own.key);
    for (query, key, refusal) in [
        ("", None, (401, "missing_api_key")),
        ("", Some(&wrong), (401, "invalid_api_key")),
        (&format!("?api_key={}", own.key), None, (400, "invalid_parameter")),
        ("", Some(&ingest_only.key), (403, "scope_missing")),
        ("?tenant=other", Some(&own.key), (400, "invalid_parameter")),
    ] {
        let refused = open(&front, query, key.map(String::as_str)).await.map(drop);
        assert_eq!(refused, Err((refusal.0, refusal.1.to_owned())), "{query}");
    }
    for (key, refusal) in [
        (&*wrong, (401, "invalid_api_key")),
        (&*ingest_only.key, (403, "scope_missing")),
        (&*format!("{}, loggerhub.key.{}", own.key, ingest_only.key), (400, "several_api_keys")),
    ] {
        let refused = open_as_page(&front, "", key).await.map(drop);
        assert_eq!(refused, Err((refusal.0, refusal.1.to_owned())), "by subprotocol");
    }
    let plain = Door::at(&front.url, &front.url)?.with_key(&own.key).request(reqwest::Method::GET, "/ws/logs");
    assert_eq!(Door::refusal(plain).await?.1, "invalid_upgrade");

    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(open(&front, "", Some(&own.key)).await.unwrap());
    }
    let refused = open(&front, "", Some(&own.key)).await.map(drop);
    assert_eq!(refused, Err((429, "too_many_tails".to_owned())));
    sockets.pop();
    testkit::eventually("a closed socket makes room", SOON, async || {
        open(&front, "", Some(&own.key)).await.map(drop).map_err(|refused| anyhow::anyhow!("{refused:?}"))
    })
    .await?;
    house.retire().await
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed_and_a_fast_one_misses_nothing() -> anyhow::Result<()> {
    const ENTRIES: usize = 80;
    let house = House::new().await?;
    let front = gateway(&house, None, &CancellationToken::new()).await?;
    let own = &house.seats[0];
    let mut cache = house.stores.cache()?.connection()?;
    let mut slow = open(&front, "", Some(&own.key)).await.unwrap();
    let mut fast = open(&front, "", Some(&own.key)).await.unwrap();
    assert_eq!(frame(&mut slow).await?["type"], "ready");
    assert_eq!(frame(&mut fast).await?["type"], "ready");

    // More than the kernel's buffers hold for a socket that nobody reads.
    let long = "x".repeat(500_000);
    for number in 0..ENTRIES {
        publish(&mut cache, &own.tenant, &[event("api", "INFO", &long), event("api", "INFO", &number.to_string())])
            .await?;
        assert_eq!(frame(&mut fast).await?["event"]["message"].as_str().map(str::len), Some(long.len()));
        assert_eq!(frame(&mut fast).await?["event"]["message"], number.to_string());
    }
    let (mut shown, mut dropped) = (0, 0);
    while shown + dropped < 2 * ENTRIES as u64 {
        let frame = frame(&mut slow).await?;
        match frame["type"].as_str() {
            Some("event") => shown += 1,
            Some("dropped") => dropped += frame["count"].as_u64().context("a count")?,
            _ => bail!("{frame}"),
        }
    }
    assert_eq!(shown + dropped, 2 * ENTRIES as u64, "every event is shown or counted");
    assert!(dropped > 0 && shown > 0, "{shown} shown, {dropped} dropped");
    house.retire().await
}

#[tokio::test]
async fn a_gateway_that_stops_says_so() -> anyhow::Result<()> {
    let house = House::new().await?;
    let stop = CancellationToken::new();
    let front = gateway(&house, None, &stop).await?;
    let mut socket = open(&front, "", Some(&house.seats[0].key)).await.unwrap();
    assert_eq!(frame(&mut socket).await?["type"], "ready");
    stop.cancel();
    let Message::Close(Some(close)) = message(&mut socket).await? else { bail!("not a close frame") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "server_stopping"));
    house.retire().await
}
