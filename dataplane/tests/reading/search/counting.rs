//! What is counted of events is what `query::counting` counts of those that `matches` chooses: in the index, and in the
//! catalog where its rows can tell.

use anyhow::{Context as _, ensure};
use api::answer::{Answer, Cell, Completions, Facets, Fields, Series, Table, Values};
use api::event::Source;
use query::counting::{Buckets, Counted, Grouping, Key, Order, Tally, compute, count};
use query::matches::Subject;
use query::stage::{Function, Shape, Verb};
use query::{Question, question};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde::de::DeserializeOwned;
use testkit::http::Door;

use super::meaning::{expression, line, time_of};
use crate::house::{House, Stored};

const EVENTS: usize = 400;
const QUESTIONS: usize = 150;

const STAGES: &[&str] = &[
    "count",
    "count by service",
    "count by level, service",
    "count by application",
    "count by application | limit 2",
    "count by tags",
    "count by level, user.id | limit 7",
    "top trace_id",
    "top 2 language",
    "top 3 @tags",
    "rare 2 service",
    "rare 3 trace_id",
    "stats count, sum(user.id), avg(user.id), min(user.id), max(user.id), p50(user.id), p90(trace_id) by level",
    "stats uniq(service), uniq(tags)",
    "timechart 1m count by level",
    "timechart 30s count by tags | limit 2",
    "timechart count",
    "timechart 2m avg(user.id)",
];

#[tokio::test]
async fn what_is_counted_is_what_is_found() -> anyhow::Result<()> {
    let house = House::new().await?;
    let (with, without) = (house.search().await?, house.search_without_index().await?);
    let own = &house.seats[0];
    let mut random = StdRng::seed_from_u64(31);
    let lines: Vec<String> = (0..EVENTS).map(|_| line(&mut random)).collect();
    let stored = house.store(own, &lines).await?;
    house.index(own, &stored).await?;
    let index = Door::at(&with.url, &with.url)?.with_key(&own.key);
    let catalog = Door::at(&without.url, &without.url)?.with_key(&own.key);
    let all = [("from", dataplane::event::rfc3339(time_of(0))), ("to", dataplane::event::rfc3339(time_of(500)))];

    let (mut some, mut of_catalog) = (0, 0);
    for _ in 0..QUESTIONS {
        let search = if random.random_bool(0.3) { "*".to_owned() } else { expression(&mut random, 2) };
        let text = format!("{search} | {}", STAGES.choose(&mut random).context("some")?);
        let asked = question(&text).map_err(|error| anyhow::anyhow!("{text}: {error}"))?;
        let events = counted(&stored, &asked);
        some += usize::from(!events.is_empty());
        let sent = [("q", text.as_str()), ("from", &all[0].1), ("to", &all[1].1)];
        let answer: Answer = get(&index, "/api/query", &sent).await?;
        ensure!(complete(&answer, true), "{text}: {answer:?}");
        same(&answer, &events, &asked).with_context(|| text.clone())?;

        let reserved = match &asked.shape {
            Shape::Table { aggregates, by, .. } => {
                aggregates.iter().all(|of| of.function == Function::Count) && by.iter().all(|field| field.is_reserved())
            }
            Shape::Series { aggregate, by, .. } => {
                aggregate.function == Function::Count && by.iter().all(|field| field.is_reserved())
            }
            Shape::Events { .. } => false,
        };
        let request = catalog.request(Method::GET, "/api/query").query(&sent);
        if reserved && !asked.query.asks_for_the_whole() {
            let answer: Answer = request.send().await?.error_for_status()?.json().await?;
            ensure!(source(&answer) == Source::Catalog && complete(&answer, true), "{text}: {answer:?}");
            same(&answer, &events, &asked).with_context(|| format!("{text} in the catalog"))?;
            of_catalog += 1;
        } else {
            let refused = Door::refusal(request).await?;
            ensure!(refused == (503, "store_unavailable".to_owned()), "{text}: {refused:?}");
        }
    }
    ensure!(some > QUESTIONS / 3 && of_catalog > 10, "{some} questions found something, the catalog told {of_catalog}");
    house.retire().await
}

/// The events that a question is about.
fn counted(stored: &Stored, asked: &Question) -> Vec<Counted> {
    let events = stored.batch.events.iter();
    let meant = events.filter(|event| Subject::new(&event.event, event.time).matches(&asked.query));
    meant.map(|event| Counted::of(&event.event, event.time)).collect()
}

fn source(answer: &Answer) -> Source {
    match answer {
        Answer::Table(table) => table.told.source,
        Answer::Series(series) => series.told.source,
        Answer::Events(events) => events.page.source,
    }
}

fn complete(answer: &Answer, expected: bool) -> bool {
    match answer {
        Answer::Table(table) => table.told.complete == expected && table.told.exact == expected,
        Answer::Series(series) => series.told.complete == expected && series.told.exact == expected,
        Answer::Events(events) => events.page.complete == expected,
    }
}

/// Whether an answer says of events what there is to say.
fn same(answer: &Answer, events: &[Counted], asked: &Question) -> anyhow::Result<()> {
    match (answer, &asked.shape) {
        (Answer::Table(table), Shape::Table { verb, aggregates, by, rows }) => {
            let order = if *verb == Verb::Rare { Order::Fewest } else { Order::Most };
            let with_missing = matches!(verb, Verb::Count | Verb::Stats);
            let tally = count(events, &Grouping { by: by.clone(), buckets: None, limit: *rows, order, with_missing });
            let computed = compute(events, aggregates, by);
            let mut expected: Vec<Vec<String>> = Vec::new();
            for group in &tally.groups {
                let mut row: Vec<String> = group.key.iter().cloned().map(|value| shown(&Cell::from(value))).collect();
                for (place, aggregate) in aggregates.iter().enumerate() {
                    let number = match aggregate.function {
                        Function::Count => Some(group.count as f64),
                        _ => computed.get(&group.key).and_then(|numbers| numbers[place]),
                    };
                    row.push(number.map_or("-".to_owned(), |number| format!("{number:.6}")));
                }
                expected.push(row);
            }
            // Of equally large groups, any may be shown first, or not at all.
            let sizes = |rows: &[Vec<String>]| rows.iter().map(|row| row[by.len()].clone()).collect::<Vec<_>>();
            let found: Vec<Vec<String>> = table.rows.iter().map(|row| row.iter().map(shown).collect()).collect();
            if *verb == Verb::Stats {
                ensure!(found == expected, "found {found:?}, expected {expected:?}");
            } else {
                ensure!(sizes(&found) == sizes(&expected), "found {found:?}, expected {expected:?}");
                let whole =
                    count(events, &Grouping { by: by.clone(), limit: u32::MAX, with_missing, ..Grouping::default() });
                for row in &table.rows {
                    let key: Key = row[..by.len()].iter().map(text).collect();
                    let group = whole.groups.iter().find(|group| group.key == key);
                    ensure!(group.map(|group| Cell::Count(group.count)).as_ref() == row.last(), "{row:?}");
                }
            }
            let told = (table.total, table.missing, table.more);
            ensure!(told == (tally.total, tally.missing, tally.more), "{told:?}, expected {tally:?}");
            let one_value = by.iter().all(|field| field.is_reserved());
            ensure!(!one_value || table.other == tally.other, "{} others, expected {}", table.other, tally.other);
        }
        (Answer::Series(series), Shape::Series { aggregate, by, lines, .. }) => {
            let count_of = |number: usize| series.interval_ms * number as u64 * 1000;
            let points = series.series.first().map_or(0, |line| line.points.len());
            ensure!(points > 0 || events.is_empty(), "no points");
            let start = stages::time::parse_text(&series.start).context("a time")?;
            let width = i64::try_from(count_of(1))?;
            let by: Vec<_> = by.iter().cloned().collect();
            let buckets = Buckets { start, width, count: points };
            let grouping =
                Grouping { by, buckets: Some(buckets), limit: *lines, with_missing: true, ..Grouping::default() };
            let tally = count(events, &grouping);
            ensure!(series.total == tally.total, "{} in total, expected {}", series.total, tally.total);
            if aggregate.function == Function::Count {
                lines_are(series, &tally, events, &grouping)?;
            } else {
                let computed = query::counting::compute_over_time(events, aggregate, &grouping.by, &buckets);
                let expected = computed.get(&Vec::new()).cloned().unwrap_or_default();
                let expected: Vec<_> =
                    expected.iter().map(|n| n.map_or("-".to_owned(), |n| format!("{n:.6}"))).collect();
                let found: Vec<_> = series.series.iter().flat_map(|line| line.points.iter().map(shown)).collect();
                ensure!(found == expected || events.is_empty(), "found {found:?}, expected {expected:?}");
            }
        }
        (answer, shape) => anyhow::bail!("{answer:?} for {shape:?}"),
    }
    Ok(())
}

/// Whether each line has the events of its value, and all of them together are all events.
fn lines_are(series: &Series, tally: &Tally, events: &[Counted], grouping: &Grouping) -> anyhow::Result<()> {
    let whole = count(events, &Grouping { limit: u32::MAX, ..grouping.clone() });
    let number = |cell: &Cell| if let Cell::Count(count) = cell { *count } else { 0 };
    for line in &series.series {
        let key = if grouping.by.is_empty() { Vec::new() } else { vec![line.name.clone()] };
        let group = whole.groups.iter().find(|group| group.key == key).map(|group| group.buckets.clone());
        let found: Vec<u64> = line.points.iter().map(number).collect();
        ensure!(group.unwrap_or_default() == found || events.is_empty(), "{:?}: {found:?}", line.name);
    }
    if grouping.by.iter().all(|field| field.is_reserved()) {
        let lines: u64 = series.series.iter().flat_map(|line| line.points.iter().map(number)).sum();
        let other: u64 = series.other.iter().flatten().sum();
        ensure!(lines + other == tally.total, "{lines} in lines and {other} others of {}", tally.total);
    }
    Ok(())
}

fn text(cell: &Cell) -> Option<String> {
    if let Cell::Text(text) = cell { Some(text.clone()) } else { None }
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Count(count) => format!("{:.6}", *count as f64),
        Cell::Number(number) => format!("{number:.6}"),
        Cell::Text(text) => format!("{:?}", Some(text)),
        Cell::Nothing => "-".to_owned(),
    }
}

async fn get<T: DeserializeOwned>(door: &Door, path: &str, sent: &[(&str, &str)]) -> anyhow::Result<T> {
    let response = door.request(Method::GET, path).query(sent).send().await?;
    let (status, body) = (response.status(), response.text().await?);
    ensure!(status.is_success(), "{path} {sent:?}: {status} {body}");
    serde_json::from_str(&body).with_context(|| body.clone())
}

async fn table(door: &Door, q: &str) -> anyhow::Result<Table> {
    match get(door, "/api/query", &[("q", q)]).await? {
        Answer::Table(table) => Ok(table),
        other => anyhow::bail!("{q}: {other:?}"),
    }
}

#[tokio::test]
async fn of_more_events_than_are_read_the_counts_are_exact_and_the_rest_is_estimated() -> anyhow::Result<()> {
    const MANY: usize = 12_000;
    let house = House::new().await?;
    let served = house.search().await?;
    let own = &house.seats[0];
    let event = |n: usize| {
        let status = if n.is_multiple_of(10) { 500 } else { 200 };
        format!(
            "{{\"message\":\"m\",\"service\":\"s{}\",\"status\":{status},\"ms\":{},\"trace_id\":\"t{n}\"}}\n",
            n % 4,
            n % 1000
        )
    };
    let lines: Vec<String> = (0..MANY).map(event).collect();
    for lines in lines.chunks(MANY / 2) {
        let stored = house.store(own, lines).await?;
        house.index(own, &stored).await?;
    }
    let door = Door::at(&served.url, &served.url)?.with_key(&own.key);

    let by_status = table(&door, "| count by status").await?;
    let rows = vec![
        vec![Cell::Text("200".into()), Cell::Count(MANY as u64 / 10 * 9)],
        vec![Cell::Text("500".into()), Cell::Count(MANY as u64 / 10)],
    ];
    ensure!(by_status.rows == rows && by_status.told.exact && by_status.other == 0, "{by_status:?}");
    let both = table(&door, "status:500 | count by service, status").await?;
    ensure!(both.rows.len() == 2 && both.total == MANY as u64 / 10 && both.other == 0, "{both:?}");

    let traces = table(&door, "| top 5 trace_id").await?;
    ensure!(traces.rows.len() == 5 && traces.more && !traces.told.exact, "{traces:?}");
    ensure!(traces.rows.iter().all(|row| row[1] == Cell::Count(1)) && traces.other == MANY as u64 - 5, "{traces:?}");

    let stats = table(&door, "| stats count, avg(ms), p95(ms), max(ms), sum(ms), uniq(service) by service").await?;
    let sampled = stats.told.sampled.context("estimated")?;
    ensure!((sampled.of, stats.total, stats.rows.len()) == (MANY as u64, MANY as u64, 4), "{stats:?}");
    for row in &stats.rows {
        let number = |place: usize| match row[place] {
            Cell::Number(number) => number,
            Cell::Count(count) => count as f64,
            _ => f64::NAN,
        };
        ensure!(number(1) == MANY as f64 / 4.0 && number(6) == 1.0, "{row:?}");
        ensure!((450.0..550.0).contains(&number(2)) && (930.0..970.0).contains(&number(3)), "{row:?}");
        ensure!((0.9..1.1).contains(&(number(5) / (MANY as f64 / 4.0 * 499.5))), "{row:?}");
    }
    let uniq = table(&door, "| stats uniq(service), uniq(status)").await?;
    ensure!(uniq.rows == [[Cell::Count(4), Cell::Count(2)]], "{uniq:?}");
    house.retire().await
}

#[tokio::test]
async fn facets_fields_values_and_completions_are_of_what_there_is() -> anyhow::Result<()> {
    let house = House::new().await?;
    let served = house.search().await?;
    let (own, other) = (&house.seats[0], &house.seats[1]);
    let lines = [
        r#"{"service":"api","level":"error","message":"alpha","metadata":{"status":500},"trace_id":"x1"}"#,
        r#"{"service":"api","level":"info","message":"beta nection","metadata":{"status":200},"application":"my shop"}"#,
        r#"{"service":"web","level":"info","message":"gamma","full_log":"deep connection","metadata":{"status":200}}"#,
    ];
    let stored = house.store(own, &lines.map(|line| format!("{line}\n"))).await?;
    house.index(own, &stored).await?;
    let door = Door::at(&served.url, &served.url)?.with_key(&own.key);

    let facets: Facets = get(&door, "/api/facets", &[]).await?;
    let shown = |values: &[api::answer::ValueCount]| {
        let one = |of: &api::answer::ValueCount| format!("{}={}", of.value.as_deref().unwrap_or("-"), of.count);
        values.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let told: Vec<String> =
        facets.facets.iter().map(|facet| format!("{}: {}", facet.field, shown(&facet.values))).collect();
    ensure!(
        told == ["service: api=2 web=1", "level: INFO=2 ERROR=1", "application: -=2 my shop=1", "language: -=3"],
        "{told:?}"
    );
    ensure!(facets.total == 3 && facets.told.complete && facets.told.exact, "{facets:?}");
    let foreign: Facets = get(&Door::at(&served.url, &served.url)?.with_key(&other.key), "/api/facets", &[]).await?;
    ensure!(foreign.total == 0 && foreign.facets.iter().all(|facet| facet.values.is_empty()), "{foreign:?}");

    let fields: Fields = get(&door, "/api/fields", &[("q", "api OR level:info")]).await?;
    let names: Vec<&str> = fields.fields.iter().map(|field| field.name.as_str()).collect();
    ensure!(names == ["level", "service", "status", "application"], "{names:?}");

    for (name, sent, expected) in [
        ("status", &[][..], "200=2 500=1"),
        ("metadata.status", &[("prefix", "5")], "500=1"),
        ("level", &[("prefix", "er"), ("q", "service:api")], "ERROR=1"),
        ("application", &[], "my shop=1"),
        ("service", &[("limit", "1")], "api=2"),
        ("nothing", &[], ""),
    ] {
        let values: Values = get(&door, &format!("/api/fields/{name}/values"), sent).await?;
        ensure!(shown(&values.facet.values) == expected, "{name} {sent:?}: {values:?}");
    }

    for (q, at, expected) in [
        ("sta", None, "status:"),
        ("service:a", None, "api"),
        ("application:", None, "\"my shop\""),
        ("status:200 | cou", None, "count"),
        ("x | count by app", None, "application"),
        ("level:er | count", Some("8"), "ERROR"),
    ] {
        let mut sent = vec![("q", q)];
        sent.extend(at.map(|at| ("at", at)));
        let offered: Completions = get(&door, "/api/complete", &sent).await?;
        let texts: Vec<&str> = offered.items.iter().map(|item| item.text.as_str()).collect();
        ensure!(texts == [expected], "{q}: {offered:?}");
    }

    for (q, expected) in [
        ("| grep nection", "beta nection gamma"),
        ("level:info | grep -v CONN", "beta nection"),
        ("| grep /^(al|ga)/ | limit 1", "gamma"),
        ("alpha | fields status, service", "alpha"),
    ] {
        let Answer::Events(events) = get(&door, "/api/query", &[("q", q)]).await? else { anyhow::bail!("{q}") };
        let mut messages = events.page.messages();
        messages.sort_unstable();
        ensure!(messages.join(" ") == expected && events.page.complete, "{q}: {events:?}");
    }

    for (path, sent, code) in [
        ("/api/query", ("q", "a | conut"), "invalid_query"),
        ("/api/query", ("p", "a"), "invalid_parameter"),
        ("/api/search", ("q", "a | count"), "invalid_query"),
        ("/api/histogram", ("interval", "5"), "invalid_parameter"),
        ("/api/fields/message/values", ("q", "a"), "invalid_parameter"),
        ("/api/complete", ("at", "1"), "invalid_parameter"),
    ] {
        let refused = Door::refusal(door.request(Method::GET, path).query(&[sent])).await?;
        ensure!(refused == (400, code.to_owned()), "{path} {sent:?}: {refused:?}");
    }
    house.retire().await
}

#[tokio::test]
async fn a_histogram_holds_every_event_once_also_without_the_index() -> anyhow::Result<()> {
    let house = House::new().await?;
    let (with, without) = (house.search().await?, house.search_without_index().await?);
    let own = &house.seats[0];
    let mut random = StdRng::seed_from_u64(37);
    let lines: Vec<String> = (0..EVENTS).map(|_| line(&mut random)).collect();
    let stored = house.store(own, &lines).await?;
    house.index(own, &stored).await?;
    let index = Door::at(&with.url, &with.url)?.with_key(&own.key);
    let catalog = Door::at(&without.url, &without.url)?.with_key(&own.key);
    let sum = |series: &Series| -> u64 {
        let number = |cell: &Cell| if let Cell::Count(count) = cell { *count } else { 0 };
        let lines: u64 = series.series.iter().flat_map(|line| line.points.iter().map(number)).sum();
        lines + series.other.iter().flatten().sum::<u64>()
    };
    let from = dataplane::event::rfc3339(time_of(100));
    for sent in [
        &[][..],
        &[("interval", "7s")],
        &[("q", "level:>=warn")],
        &[("service", "api"), ("from", from.as_str())],
        &[("q", "level:fatal")],
    ] {
        let of_index: Series = get(&index, "/api/histogram", sent).await?;
        let of_catalog: Series = get(&catalog, "/api/histogram", sent).await?;
        ensure!(sum(&of_index) == of_index.total && of_index.told.complete, "{sent:?}: {of_index:?}");
        ensure!(of_index.series == of_catalog.series, "{sent:?}: {of_catalog:?}");
        // Where nothing is found, a chart begins now.
        ensure!(of_index.start == of_catalog.start || of_index.total == 0, "{sent:?}: {of_catalog:?}");
        ensure!(of_catalog.other == of_index.other && of_catalog.total == of_index.total, "{sent:?}: {of_catalog:?}");
    }
    let all: Series = get(&index, "/api/histogram", &[]).await?;
    ensure!(all.total == EVENTS as u64, "{all:?}");
    let words = catalog.request(Method::GET, "/api/histogram").query(&[("q", "connection")]);
    ensure!(Door::refusal(words).await? == (503, "store_unavailable".to_owned()), "a word is the index's");
    let day = [("interval", "1s"), ("from", "2026-01-01T00:00:00Z"), ("to", "2026-01-02T00:00:00Z")];
    let many = index.request(Method::GET, "/api/histogram").query(&day);
    ensure!(Door::refusal(many).await? == (400, "invalid_parameter".to_owned()), "86,400 points");
    house.retire().await
}
