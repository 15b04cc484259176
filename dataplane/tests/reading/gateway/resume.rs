//! A live tail with a query, and one that goes on where another ended: nothing is missed, and nothing is shown twice.

use anyhow::{Context, bail, ensure};
use dataplane::event::shown;
use futures::StreamExt;
use reqwest::Method;
use runtime::stores::Connection;
use serde_json::{Value, json};
use testkit::http::Door;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::gateway;
use super::tail::{SOON, Socket, frame, open, publish};
use crate::house::{House, Seat, Stored};

fn lines(name: &str, count: usize) -> Vec<String> {
    let line = |n: usize| {
        let level = if n.is_multiple_of(2) { "error" } else { "info" };
        format!(r#"{{"message":"{name}{n} refused","level":"{level}","status":{}}}"#, 500 + n) + "\n"
    };
    (0..count).map(line).collect()
}

/// Publishes a stored batch as the processor does.
async fn publish_stored(cache: &mut Connection, own: &Seat, stored: &Stored) -> anyhow::Result<()> {
    let (tenant, batch) = (&own.tenant, &stored.batch);
    let events = batch.events.iter().map(|event| {
        serde_json::to_value(shown(tenant.name().as_str(), batch.batch_id, batch.accepted_at, event.id, &event.event))
    });
    publish(cache, tenant, &events.collect::<Result<Vec<_>, _>>()?).await
}

/// The messages of frames up to, and without, the first that `ends`.
async fn messages(socket: &mut Socket, ends: impl Fn(&Value) -> bool) -> anyhow::Result<Vec<String>> {
    let mut messages = Vec::new();
    loop {
        let frame = frame(socket).await?;
        if ends(&frame) {
            return Ok(messages);
        }
        ensure!(frame["type"] == "event", "{frame}");
        messages.push(frame["event"]["message"].as_str().context("a message")?.to_owned());
    }
}

fn is_ready(frame: &Value) -> bool {
    frame["type"] == "ready"
}

fn is_last(frame: &Value) -> bool {
    frame["event"]["message"] == "last0 refused"
}

fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{name} refused")).collect()
}

#[tokio::test]
async fn a_tail_speaks_the_whole_language() -> anyhow::Result<()> {
    let house = House::new().await?;
    let front = gateway(&house, None, &CancellationToken::new()).await?;
    let own = &house.seats[0];
    let mut cache = house.stores.cache()?.connection()?;
    let mut some = open(&front, "?q=refused+status:%3E%3D502+-b5", Some(&own.key)).await.unwrap();
    let mut errors = open(&front, "?q=level:error+or+status:501&level=error", Some(&own.key)).await.unwrap();
    for socket in [&mut some, &mut errors] {
        assert!(is_ready(&frame(socket).await?));
    }
    for (name, count) in [("a", 4), ("b", 6), ("last", 1)] {
        let stored = house.store(own, &lines(name, count)).await?;
        publish_stored(&mut cache, own, &stored).await?;
    }
    let stored = house.store(own, &lines("last", 4)).await?;
    publish_stored(&mut cache, own, &stored).await?;
    let until = |frame: &Value| frame["event"]["message"] == "last3 refused";
    let found = messages(&mut some, until).await?;
    assert_eq!(found, named(&["a2", "a3", "b2", "b3", "b4", "last2"]), "`-b5` excludes a word, and so `b5`");
    let found = messages(&mut errors, |frame| frame["event"]["message"] == "last2 refused").await?;
    assert_eq!(found, named(&["a0", "a2", "b0", "b2", "b4", "last0", "last0"]));
    for (query, code) in [("?q=(", "invalid_query"), ("?q=", "invalid_query"), ("?after=x", "invalid_parameter")] {
        assert_eq!(open(&front, query, Some(&own.key)).await.map(drop), Err((400, code.to_owned())), "{query}");
    }
    house.retire().await
}

#[tokio::test]
async fn a_tail_goes_on_without_a_gap_and_without_a_duplicate() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let stop = CancellationToken::new();
    let front = gateway(&house, Some(&search), &stop).await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let mut cache = house.stores.cache()?.connection()?;
    let mut socket = open(&front, "", Some(&own.key)).await.unwrap();
    assert!(is_ready(&frame(&mut socket).await?));
    let first = house.store(own, &lines("a", 3)).await?;
    // Stored before it, and published after it: the other processor was slower.
    let late = house.store(own, &lines("late", 1)).await?;
    let second = house.store(own, &lines("b", 3)).await?;
    publish_stored(&mut cache, own, &first).await?;
    publish_stored(&mut cache, own, &second).await?;
    assert_eq!(messages(&mut socket, |frame| frame["event"]["message"] == "b2 refused").await?.len(), 5);
    let seen = second.batch.events[1].id;
    drop(socket);
    publish_stored(&mut cache, own, &late).await?;

    // Another gateway, and what nobody watched.
    stop.cancel();
    let front = gateway(&house, Some(&search), &CancellationToken::new()).await?;
    let unseen = house.store(own, &lines("c", 3)).await?;
    house.store(other, &lines("theirs", 1)).await?;
    let mut socket = open(&front, &format!("?after={seen}"), Some(&own.key)).await.unwrap();
    let past = messages(&mut socket, is_ready).await?;
    assert_eq!(past, named(&["late0", "b2", "c0", "c1", "c2"]), "in the order of storing");
    // What a processor publishes late was shown already.
    publish_stored(&mut cache, own, &unseen).await?;
    let last = house.store(own, &lines("last", 1)).await?;
    publish_stored(&mut cache, own, &last).await?;
    assert_eq!(messages(&mut socket, is_last).await?, [""; 0], "nothing twice");

    // The past is asked by the same query, and is the caller's own.
    let mut errors = open(&front, &format!("?after={seen}&q=level:error+-late0"), Some(&own.key)).await.unwrap();
    assert_eq!(messages(&mut errors, is_ready).await?, named(&["b2", "c0", "c2", "last0"]));
    for after in [Uuid::now_v7(), other_event(&house, other).await?] {
        let refused = open(&front, &format!("?after={after}"), Some(&own.key)).await.map(drop);
        assert_eq!(refused, Err((404, "not_found".to_owned())));
    }
    house.retire().await
}

async fn other_event(house: &House, other: &Seat) -> anyhow::Result<Uuid> {
    Ok(house.store(other, &lines("x", 1)).await?.first_event())
}

#[tokio::test]
async fn a_long_past_is_shown_whole_and_a_longer_one_says_that_it_is_cut() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let front = gateway(&house, Some(&search), &CancellationToken::new()).await?;
    let own = &house.seats[0];
    let first = house.store(own, &lines("first", 1)).await?;
    for n in 0..3 {
        house.store(own, &lines(&format!("p{n}-"), 4_500)).await?;
    }
    let after = first.first_event();
    let mut all = open(&front, &format!("?after={after}&q=level:error"), Some(&own.key)).await.unwrap();
    let shown = messages(&mut all, is_ready).await?;
    assert_eq!((shown.len(), shown[0].as_str()), (3 * 2_250, "p0-0 refused"));
    let mut cut = open(&front, &format!("?after={after}"), Some(&own.key)).await.unwrap();
    let shown = messages(&mut cut, |frame| frame["type"] == "notice").await?;
    assert_eq!(shown.len(), 10_000);
    assert!(is_ready(&frame(&mut cut).await?), "and then it is live");
    house.retire().await
}

/// One server-sent event: its name, id and data.
type Event = (String, String, Value);

/// Events of a stream, from its text.
fn events(text: &str) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or("");
        events.push((field("event").to_owned(), field("id").to_owned(), serde_json::from_str(field("data"))?));
    }
    Ok(events)
}

/// Reads a stream until so many events have come.
async fn followed(door: &Door, path: &str, last: Option<Uuid>, count: usize) -> anyhow::Result<Vec<Event>> {
    let mut request = door.request(Method::GET, path).timeout(2 * SOON);
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let response = request.send().await?;
    ensure!(response.status().is_success(), "{}", response.text().await?);
    ensure!(response.headers()["content-type"] == "text/event-stream");
    let (mut body, mut text) = (response.bytes_stream(), String::new());
    loop {
        if text.ends_with("\n\n") {
            let events = events(&text)?;
            if events.len() >= count {
                return Ok(events);
            }
        }
        let Some(chunk) = timeout(SOON, body.next()).await.context("nothing came")? else { bail!("it ended: {text}") };
        text.push_str(std::str::from_utf8(&chunk?)?);
    }
}

#[tokio::test]
async fn a_tail_is_a_stream_of_server_sent_events_as_well() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let stop = CancellationToken::new();
    let front = gateway(&house, Some(&search), &stop).await?;
    let own = &house.seats[0];
    let door = Door::at(&front.url, &front.url)?.with_key(&own.key);
    let mut cache = house.stores.cache()?.connection()?;
    let stored = house.store(own, &lines("a", 4)).await?;
    let after = stored.batch.events[0].id;
    let publishing = async {
        // Published again and again: shown once, whenever the stream is in place.
        loop {
            publish_stored(&mut cache, own, &stored).await?;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        #[expect(unreachable_code, reason = "says the type")]
        anyhow::Ok(())
    };
    let following = followed(&door, "/api/tail?q=refused", Some(after), 4);
    let found = tokio::select! {
        found = following => found?,
        failed = publishing => return failed,
    };
    let ids: Vec<_> = found.iter().map(|(_, id, _)| id.clone()).collect();
    let expected: Vec<_> = stored.batch.events[1..].iter().map(|event| event.id.to_string()).collect();
    assert_eq!(ids[..3], expected);
    assert_eq!(found[3], ("ready".to_owned(), String::new(), json!({"type": "ready"})));
    assert_eq!(found[0].2["message"], "a1 refused");
    assert_eq!(found[0].2["attributes"], json!({"status": 501}));

    let mut body = door.request(Method::GET, "/api/tail").timeout(2 * SOON).send().await?;
    stop.cancel();
    let mut text = String::new();
    while let Some(chunk) = timeout(SOON, body.chunk()).await?? {
        text.push_str(std::str::from_utf8(&chunk)?);
    }
    let end = events(&text)?.pop().context("an event")?;
    assert_eq!(end, ("end".to_owned(), String::new(), json!({"code": 1001, "reason": "server_stopping"})));
    for (path, key, refusal) in [
        ("/api/tail?q=(", &own.key, (400, "invalid_query")),
        ("/api/tail?tenant=x", &own.key, (400, "invalid_parameter")),
        ("/api/tail", &house.seats[2].key, (403, "scope_missing")),
    ] {
        let request = door.with_key(key).request(Method::GET, path);
        assert_eq!(Door::refusal(request).await?, (refusal.0, refusal.1.to_owned()), "{path}");
    }
    house.retire().await
}
