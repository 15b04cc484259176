//! Exports: every event whole, once, in order, and a last line that says so.

use anyhow::{Context, ensure};
use api::export::{EVENTS_HEADER, Exported, LastLine, Summary};
use reqwest::Method;
use serde_json::json;
use testkit::http::Door;
use tokio_util::sync::CancellationToken;

use super::detail::archive;
use crate::gateway::gateway;
use crate::house::{House, Seat};

/// Lines with everything that a line can have; some of the same time.
fn lines(from: usize, count: usize) -> Vec<String> {
    let line = |n: usize| {
        let long = "word ".repeat(if n.is_multiple_of(7) { 300 } else { 3 });
        format!(
            r#"{{"timestamp":"2026-01-01T01:{:02}:{:02}Z","service":"s{}","message":"export {n} {long}","metadata":{{"n":{n},"wei":12345678901234567890123}},"host":"=web-{n}"}}"#,
            n / 600,
            n / 10 % 60,
            n % 2,
        ) + "\n"
    };
    (from..from + count).map(line).collect()
}

struct Export {
    expected: Option<String>,
    text: String,
}

async fn export(door: &Door, query: &str) -> anyhow::Result<Export> {
    let response = door.request(Method::GET, &format!("/api/export?{query}")).send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await?;
    ensure!(status.is_success(), "{status} {text}");
    let expected = headers.get(EVENTS_HEADER).map(|value| value.to_str().map(str::to_owned)).transpose()?;
    Ok(Export { expected, text })
}

impl Export {
    fn read(&self) -> anyhow::Result<(Vec<Exported>, Summary)> {
        let (events, last) = self.text.trim_end().rsplit_once('\n').unwrap_or(("", self.text.trim_end()));
        let events = events.lines().map(|line| serde_json::from_str(line).context(line.to_owned()));
        let last: LastLine = serde_json::from_str(last).with_context(|| last.to_owned())?;
        Ok((events.collect::<Result<_, _>>()?, last.export))
    }
}

async fn stored(house: &House, own: &Seat) -> anyhow::Result<()> {
    // In the archive, in the index, and in neither.
    let archived = house.store(own, &lines(0, 100)).await?;
    house.index(own, &archived).await?;
    archive(house, own, &archived).await?;
    let indexed = house.store(own, &lines(100, 100)).await?;
    house.index(own, &indexed).await?;
    house.store(own, &lines(200, 50)).await?;
    Ok(())
}

#[tokio::test]
async fn an_export_has_every_event_whole_and_says_that_it_has() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let front = gateway(&house, Some(&search), &CancellationToken::new()).await?;
    let own = &house.seats[0];
    stored(&house, own).await?;
    let door = Door::at(&front.url, &front.url)?.with_key(&own.key);

    let all = export(&door, "").await?;
    let (events, summary) = all.read()?;
    assert_eq!(all.expected.as_deref(), Some("250"));
    let whole = Summary { events: 250, complete: true, next_cursor: None, notice: None };
    assert_eq!(summary, whole);
    let listed = door.list("limit=250").await?;
    let ids = |events: &[Exported]| events.iter().map(|event| event.item.id).collect::<Vec<_>>();
    assert_eq!(ids(&events), listed.items.iter().map(|item| item.id).collect::<Vec<_>>(), "the order of the list");
    for event in events.iter().step_by(13) {
        let detail = door.detail(event.item.id).await?;
        let full = (&event.full_log, json!(event.metadata), json!(event.attributes));
        assert_eq!(full, (&detail.full_log, json!(detail.metadata), json!(detail.attributes)));
        assert!(event.complete);
    }
    assert!(all.text.contains(r#""wei":12345678901234567890123}"#), "all digits");

    let (reversed, _) = export(&door, "order=oldest").await?.read()?;
    assert!(reversed.iter().rev().eq(&events), "the exact opposite");

    // In parts, by cursor and by the last event that came.
    let (mut parts, mut next) = (Vec::new(), String::new());
    loop {
        let (part, end) = export(&door, &format!("limit=99{next}")).await?.read()?;
        assert_eq!(end.events, part.len() as u64);
        parts.extend(part);
        match end.next_cursor {
            Some(cursor) => {
                assert!(!end.complete && end.notice.is_some(), "there are more");
                next = format!("&cursor={cursor}");
            }
            None => break assert!(end.complete),
        }
    }
    assert_eq!(parts, events);
    let broken = export(&door, &format!("after={}", events[119].item.id)).await?.read()?.0;
    assert_eq!(ids(&broken), ids(&events[120..]));

    let found = export(&door, "q=export+service:s1&to=2026-01-01T01:00:15Z").await?;
    let (odd, _) = found.read()?;
    assert_eq!((odd.len(), found.expected.as_deref()), (75, Some("75")));
    let none = export(&door, "q=nowhere").await?;
    let (nothing, end) = none.read()?;
    assert_eq!((nothing.len(), end.events, none.expected.as_deref()), (0, 0, Some("0")));
    house.retire().await
}

#[tokio::test]
async fn an_export_is_a_table_or_a_text_as_well() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let own = &house.seats[0];
    house.store(own, &lines(0, 20)).await?;
    let door = Door::at(&search.url, &search.url)?.with_key(&own.key);
    let csv = export(&door, "format=csv&order=oldest").await?.text;
    let records: Vec<&str> = csv.split("\r\n").filter(|record| !record.is_empty()).collect();
    assert_eq!(records.len(), 22);
    assert!(records[0].starts_with("timestamp,level,service,application,message,"), "{}", records[0]);
    assert!(records[1].contains(r#""{""host"":""=web-0""}""#), "{}", records[1]);
    assert!(records[21].starts_with("# export,"), "{}", records[21]);

    let text = export(&door, "format=text&order=oldest").await?.text;
    let first = text.lines().next().context("a line")?;
    assert!(first.starts_with("2026-01-01T01:00:00.000000Z INFO  s0 export 0 word word"), "{first}");
    assert!(first.trim_end().len() > 1500, "the whole text");
    assert!(text.lines().last().context("a line")?.starts_with(r#"# export {"export":{"events":20,"complete":true"#));

    for (query, code) in [
        ("format=xml", "invalid_parameter"),
        ("limit=1000001", "invalid_parameter"),
        ("q=(", "invalid_query"),
        ("cursor=x", "invalid_cursor"),
        ("after=00000000-0000-0000-0000-000000000000", "not_found"),
    ] {
        let request = door.request(Method::GET, &format!("/api/export?{query}"));
        assert_eq!(Door::refusal(request).await?.1, code, "{query}");
    }
    house.retire().await
}
