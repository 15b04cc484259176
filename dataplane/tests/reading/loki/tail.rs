//! The tail: what was before, then what is stored, each line once.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use super::Lokis;
use crate::house::now;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const SOON: Duration = Duration::from_secs(60);

async fn open(
    lokis: &Lokis,
    pairs: &[(&str, &str)],
    key: &str,
    categorized: bool,
) -> anyhow::Result<Result<Socket, (u16, String)>> {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let url = format!("{}/loki/api/v1/tail?{query}", lokis.front.url.replacen("http", "ws", 1));
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse()?);
    if categorized {
        request.headers_mut().insert("x-loki-response-encoding-flags", "categorize-labels".parse()?);
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(Ok(socket)),
        Err(tungstenite::Error::Http(response)) => {
            let text = String::from_utf8(response.body().clone().unwrap_or_default())?;
            Ok(Err((response.status().as_u16(), text)))
        }
        Err(other) => Err(other.into()),
    }
}

/// The next frame, and whether the connection ended without one.
async fn frame(socket: &mut Socket) -> anyhow::Result<Value> {
    loop {
        match timeout(SOON, socket.next()).await.context("no frame came")?.context("the socket ended")?? {
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Text(text) => return Ok(serde_json::from_str(&text)?),
            other => bail!("not a text frame: {other:?}"),
        }
    }
}

fn lines(frame: &Value) -> Vec<String> {
    let streams = frame["streams"].as_array().into_iter().flatten();
    let entries = streams.flat_map(|stream| stream["values"].as_array().into_iter().flatten());
    entries.map(|entry| entry[1].as_str().unwrap_or("").to_owned()).collect()
}

/// Publishes as the processor does; the ids.
pub(super) async fn publish(lokis: &Lokis, events: &[Value]) -> anyhow::Result<()> {
    let tenant = &lokis.own().tenant;
    let mut lines = Vec::new();
    for event in events {
        let event = stages::event(event.to_string().as_bytes(), now())?;
        let shown = dataplane::event::shown(tenant.name().as_str(), Uuid::nil(), now(), Uuid::now_v7(), &event);
        serde_json::to_writer(&mut lines, &shown)?;
        lines.push(b'\n');
    }
    let mut add = redis::cmd("XADD");
    add.arg(tenant.name().tail_stream()).arg("*").arg("e").arg(zstd::encode_all(&lines[..], 1)?);
    Ok(add.query_async::<()>(&mut lokis.house.stores.cache()?.connection()?).await?)
}

#[tokio::test]
async fn a_tail_tells_of_the_past_and_then_of_each_line_that_comes() -> anyhow::Result<()> {
    let event = |n: i64, service: &str| (n, json!({"message": format!("line {n}"), "service": service, "pod": "p"}));
    let events: Vec<(i64, Value)> = (0..5).map(|n| event(n, "api")).chain([event(9, "web")]).collect();
    let lokis = Lokis::with(&events).await?;
    let key = &lokis.own().key;
    let query = ("query", r#"{service_name="api"} |= "line""#);
    let start = lokis.nanos(0);
    let mut plain =
        open(&lokis, &[query, ("limit", "3"), ("start", &start), ("delay_for", "0")], key, false).await?.unwrap();
    let mut categorized = open(&lokis, &[query, ("from", &*start)], key, true).await?.unwrap();

    let first = frame(&mut plain).await?;
    assert_eq!(lines(&first), ["line 2", "line 3", "line 4"], "the newest three, oldest first");
    assert_eq!(first["dropped_entries"], Value::Null);
    assert!(first.as_object().is_some_and(|first| first.contains_key("dropped_entries")));
    assert_eq!(first["streams"][0]["stream"], json!({"detected_level": "info", "pod": "p", "service_name": "api"}));
    assert_eq!(first["streams"][0]["values"][0][0], lokis.nanos(2));
    let first = frame(&mut categorized).await?;
    assert_eq!(lines(&first), ["line 0", "line 1", "line 2", "line 3", "line 4"]);
    assert_eq!(first["encodingFlags"], json!(["categorize-labels"]));
    assert_eq!(first["streams"][0]["values"][0][2]["structuredMetadata"]["pod"], "p");

    let long = format!("{} the end of a line", "x".repeat(2000));
    let come = [("one line", "api"), ("other", "api"), ("line", "web"), (&*long, "api")];
    let come: Vec<Value> =
        come.iter().map(|(message, service)| json!({"message": message, "service": service})).collect();
    publish(&lokis, &come).await?;
    for socket in [&mut plain, &mut categorized] {
        assert_eq!(lines(&frame(socket).await?), ["one line", &*long], "whole lines, of the query alone");
    }
    // What is asked of the past once more is shown once.
    tokio::time::sleep(Duration::from_secs(7)).await;
    publish(&lokis, &[json!({"message": "last line", "service": "api"})]).await?;
    assert_eq!(lines(&frame(&mut plain).await?), ["last line"]);

    // Grafana comes again by itself only if there is no close frame.
    lokis.stop.cancel();
    let end = timeout(SOON, async {
        loop {
            match plain.next().await {
                Some(Ok(Message::Ping(_))) => {}
                other => break other,
            }
        }
    });
    let end = end.await?;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    lokis.house.retire().await
}

#[tokio::test]
async fn a_tail_is_refused_before_the_upgrade() -> anyhow::Result<()> {
    let lokis = Lokis::with(&[]).await?;
    let [own, _, ingest_only] = &lokis.house.seats[..] else { panic!("three tenants") };
    let wrong = crate::house::with_wrong_secret(&own.key);
    for (pairs, key, status, says) in [
        (vec![("query", "{}")], &wrong, 401, "not valid"),
        (vec![("query", "{}")], &ingest_only.key, 403, "scope"),
        (vec![], &own.key, 400, "`query` is missing"),
        (vec![("query", "{")], &own.key, 400, "parse error"),
        (vec![("query", "rate({a=\"x\"}[1m])")], &own.key, 400, "metric query"),
    ] {
        let (refused, text) = open(&lokis, &pairs, key, false).await?.err().context("refused")?;
        assert!(refused == status && text.contains(says), "{pairs:?}: {refused} {text}");
    }
    lokis.house.retire().await
}
