//! A query means the same everywhere: `matches` says what, and the index, the raw lines and the catalog answer so.

use std::collections::BTreeSet;

use anyhow::ensure;
use api::event::Listing;
use query::matches::Subject;
use query::{Filters, Query};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use testkit::http::Door;
use uuid::Uuid;

use super::detail::archive;
use crate::house::{House, Stored};

const EVENTS: usize = 400;
const QUERIES: usize = 250;

/// Few, so that they meet.
const WORDS: &[&str] = &[
    "connection",
    "Connection",
    "reset",
    "timeout",
    "user_id",
    "user-17",
    "java.lang.Error",
    "it's",
    "3,000",
    "42",
    "4",
    "größe",
    "GRÖSSE",
    "世界",
    "世",
    "ひらがな",
    "สวัสดี",
    "http",
    "/api/v1",
    "a=b",
    "👍ok",
    "conn",
    "trace_id=42",
    "tags:x",
];
const SERVICES: &[&str] = &["api", "Api", "api-v2", "my service", "größe"];
const LEVELS: &[&str] = &["error", "warn", "info", "audit"];
const NAMES: &[&str] = &["user.id", "tags", "trace_id", "a.b"];
const VALUES: &[&str] =
    &["42", "4", "-1.5", "1e3", "2026-01-02", "2026-01-02T10:00:00+02:00", "true", "x y", "größe", "abc-def"];
/// What a field is asked for besides one of the values.
const ASKED: &[&str] = &[
    ":*",
    ":abc*",
    ":*de*",
    ":a*f",
    ":4,42",
    ":(true OR \"x y\")",
    ":>=4",
    ":<5",
    ":!=42",
    ":[4 TO 42]",
    ":-2..5",
    ":>2026-01-01",
    ":<=\"2026-01-02 09:00:00\"",
];

#[tokio::test]
async fn a_query_finds_in_every_store_what_it_means() -> anyhow::Result<()> {
    let house = House::new().await?;
    let (with, without) = (house.search().await?, house.search_without_index().await?);
    let rows_alone = house.search_without_index_and_archive().await?;
    let own = &house.seats[0];
    let mut random = StdRng::seed_from_u64(23);
    let lines: Vec<String> = (0..EVENTS).map(|_| line(&mut random)).collect();
    // Half of them in the archive, half in the spool.
    let (old, new) = lines.split_at(EVENTS / 2);
    let archived = house.store(own, old).await?;
    archive(&house, own, &archived).await?;
    let mut stored = house.store(own, new).await?;
    for part in [&archived, &stored] {
        house.index(own, part).await?;
    }
    stored.batch.events.extend(archived.batch.events);
    let index = Door::at(&with.url, &with.url)?.with_key(&own.key);
    let lines = Door::at(&without.url, &without.url)?.with_key(&own.key);
    let catalog = Door::at(&rows_alone.url, &rows_alone.url)?.with_key(&own.key);

    let mut found_some = 0;
    for n in 0..QUERIES {
        let text = expression(&mut random, 2);
        let Ok(query) = query::parse(&text) else { anyhow::bail!("the test made {text}, which is no query") };
        let meant = meant(&stored, &query);
        found_some += usize::from(!meant.is_empty() && meant.len() < EVENTS);
        let in_index = ids(&index, "search", &[("q", &text)]).await?;
        ensure!(in_index == meant, "`{text}` in the index: {}", difference(&stored, &in_index, &meant));
        // Small pages for some of them.
        let limit = if n % 10 == 0 { "7" } else { "500" };
        let in_lines = ids(&lines, "search", &[("q", &text), ("limit", limit)]).await?;
        ensure!(in_lines == meant, "`{text}` in the lines: {}", difference(&stored, &in_lines, &meant));
        let in_catalog = ids(&catalog, "search", &[("q", &text)]).await?;
        if query.asks_for_the_whole() {
            ensure!(in_catalog.is_subset(&meant), "`{text}`, catalog: {}", difference(&stored, &in_catalog, &meant));
        } else {
            ensure!(in_catalog == meant, "`{text}` in the catalog: {}", difference(&stored, &in_catalog, &meant));
        }
    }
    // Else the test asks for nothing.
    ensure!(found_some > QUERIES / 3, "only {found_some} queries found some events and not all");
    house.retire().await
}

#[tokio::test]
async fn filters_choose_the_same_in_every_store() -> anyhow::Result<()> {
    let house = House::new().await?;
    let served = house.search().await?;
    let own = &house.seats[0];
    let mut random = StdRng::seed_from_u64(29);
    let lines: Vec<String> = (0..EVENTS).map(|_| line(&mut random)).collect();
    let stored = house.store(own, &lines).await?;
    house.index(own, &stored).await?;
    let door = Door::at(&served.url, &served.url)?.with_key(&own.key);

    for _ in 0..60 {
        let service = (*SERVICES.choose(&mut random).expect("some")).to_owned();
        let level = (*LEVELS.choose(&mut random).expect("some")).to_owned();
        let (second, word) = (random.random_range(0..EVENTS as i64), *WORDS.choose(&mut random).expect("some"));
        let from = dataplane::event::rfc3339(time_of(second));
        let filters = Filters {
            services: vec![service.clone()],
            levels: vec![stages::normalize_level(&level)],
            from: Some(time_of(second)),
            to: None,
        };
        let chosen = [("service", service.as_str()), ("level", &level), ("from", &from)];
        let query = query::parse(word)?;
        for (route, own, query) in [("logs", None, None), ("search", Some(("q", word)), Some(&query))] {
            let asked: Vec<_> = chosen.into_iter().chain(own).collect();
            let meant = subjects(&stored, |subject| {
                subject.passes(&filters) && query.is_none_or(|query| subject.matches(query))
            });
            let found = ids(&door, route, &asked).await?;
            ensure!(found == meant, "{route} {asked:?}: {}", difference(&stored, &found, &meant));
        }
    }
    house.retire().await
}

/// A time that tells events apart; long past, so that it is believed.
pub(super) fn time_of(second: i64) -> i64 {
    (1_767_225_600 + second) * 1_000_000
}

fn some<'a>(random: &mut StdRng, from: &[&'a str], most: usize) -> Vec<&'a str> {
    let count = random.random_range(1..=most);
    (0..count).map(|_| *from.choose(random).expect("some")).collect()
}

pub(super) fn line(random: &mut StdRng) -> String {
    let mut event = Map::new();
    event.insert("message".into(), json!(some(random, WORDS, 6).join(" ")));
    let second = random.random_range(0..EVENTS as i64);
    event.insert("timestamp".into(), json!(dataplane::event::rfc3339(time_of(second))));
    let mut maybe = |name: &str, value: Value| {
        if random.random_bool(0.7) {
            event.insert(name.into(), value);
        }
    };
    let mut other = StdRng::seed_from_u64(second as u64);
    maybe("service", json!(SERVICES.choose(&mut other)));
    maybe("level", json!(LEVELS.choose(&mut other)));
    maybe("application", json!(SERVICES.choose(&mut other)));
    maybe("language", json!(VALUES.choose(&mut other)));
    maybe("full_log", json!(some(&mut other, WORDS, 9).join("\n")));
    maybe("metadata", json!({"user": {"id": other.random_range(4..50)}, "tags": some(&mut other, VALUES, 3)}));
    maybe("trace_id", json!(VALUES.choose(&mut other)));
    maybe("a", json!({"b": VALUES.choose(&mut other)}));
    format!("{}\n", Value::Object(event))
}

/// An expression of the query language.
pub(super) fn expression(random: &mut StdRng, depth: u32) -> String {
    if depth == 0 || random.random_bool(0.4) {
        return clause(random);
    }
    let (one, other) = (expression(random, depth - 1), expression(random, depth - 1));
    match random.random_range(0..5) {
        0 => format!("{one} {other}"),
        1 => format!("({one} OR {other})"),
        2 => format!("{one} -({other})"),
        3 => format!("NOT ({one} {other})"),
        _ => format!("({one}) AND {other}"),
    }
}

fn clause(random: &mut StdRng) -> String {
    let quoted = |text: &str| format!("\"{text}\"");
    match random.random_range(0..14) {
        0..=2 => quoted(WORDS.choose(random).expect("some")),
        3 => quoted(&some(random, WORDS, 3).join(" ")),
        4 => {
            ["conn*", "user-17*", "java.la*", "tim*", "grö*", "use*", "世界*"].choose(random).expect("some").to_string()
        }
        5 => format!("service:{}", quoted(SERVICES.choose(random).expect("some"))),
        6 => format!("level:{}", LEVELS.choose(random).expect("some")),
        8 => ["level:>=warn", "level:<error", "level:error,warn", "level!=info", "service:*pi*", "application:*"]
            .choose(random)
            .expect("some")
            .to_string(),
        9 | 10 => {
            let root = ["metadata.", "attributes.", "@", ""].choose(random).expect("some");
            format!("{root}{}{}", NAMES.choose(random).expect("some"), ASKED.choose(random).expect("some"))
        }
        11 => {
            let root = ["@", ""].choose(random).expect("some");
            format!("{root}{}:{}", NAMES.choose(random).expect("some"), quoted(VALUES.choose(random).expect("some")))
        }
        7 => ["service:api*", "application:my*", "level:er*", "language:tr*"].choose(random).expect("some").to_string(),
        _ => {
            let root = ["metadata", "attributes"].choose(random).expect("some");
            let (name, value) = (NAMES.choose(random).expect("some"), VALUES.choose(random).expect("some"));
            format!("{root}.{name}:{}", quoted(value))
        }
    }
}

pub(super) fn meant(stored: &Stored, query: &Query) -> BTreeSet<Uuid> {
    subjects(stored, |subject| subject.matches(query))
}

pub(super) fn subjects(stored: &Stored, holds: impl Fn(&Subject) -> bool) -> BTreeSet<Uuid> {
    let events = stored.batch.events.iter();
    events.filter(|event| holds(&Subject::new(&event.event, event.time))).map(|event| event.id).collect()
}

/// The ids of all that a route finds, page by page.
async fn ids(door: &Door, route: &str, asked: &[(&str, &str)]) -> anyhow::Result<BTreeSet<Uuid>> {
    let mut all = BTreeSet::new();
    let mut cursor = None;
    loop {
        let mut request = door.request(reqwest::Method::GET, &format!("/api/{route}")).query(asked);
        if !asked.iter().any(|(name, _)| *name == "limit") {
            request = request.query(&[("limit", "500")]);
        }
        if let Some(cursor) = &cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let page: Listing = request.send().await?.error_for_status()?.json().await?;
        for item in &page.items {
            ensure!(all.insert(item.id), "{} is on two pages", item.id);
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(all),
        }
    }
}

/// The first events that only one of the two has.
fn difference(stored: &Stored, found: &BTreeSet<Uuid>, meant: &BTreeSet<Uuid>) -> String {
    let of = |ids: BTreeSet<Uuid>| {
        let events = stored.batch.events.iter().filter(|event| ids.contains(&event.id));
        events.take(2).map(|event| format!("{:?}", event.event)).collect::<Vec<_>>()
    };
    let (missed, extra) = (of(meant - found), of(found - meant));
    format!("{} found, {} meant; missed {missed:?}, wrongly found {extra:?}", found.len(), meant.len())
}
