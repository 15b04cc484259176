//! `/loki/api/v1/tail`: lines that a query of LogQL finds, first those before, then as they are stored.
//!
//! The tail is in place before the past is asked for, so nothing is lost between the two; what comes by both ways is
//! shown once. The index shows an event about a second after it is stored, so the past is asked once more a moment later.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use api::loki::{Answer, CATEGORIZED, DroppedEntry, ENCODING_FLAGS, Stream, TailFrame};
use api::tail::Ending;
use axum::body::{Body, to_bytes};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use crds::tenant::Scope;
use futures::{SinkExt, StreamExt};
use query::logql::{Expr, LogExpr, Row, params, parse};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::frames::{self, TailEvent};
use super::recent::Recent;
use super::tail::{SourceState, Subscription, TailEntry};
use super::{Gateway, MAX_CLIENT_MESSAGE, too_many};
use crate::loki::{in_order, is_categorized, plain, text};

/// Lines of a frame.
const LINES_OF_A_FRAME: usize = 100;
/// Longest wait for the tail to be in place before the past is asked for.
const IN_PLACE: Duration = Duration::from_secs(5);
/// When the past is asked once more: the index refreshes twice a second, and a batch may take five to get there.
const ONCE_MORE: Duration = Duration::from_secs(6);
/// Bytes of the past at most.
const MAX_PAST: usize = 64 << 20;
/// Lines remembered, to be shown once.
const REMEMBERED: usize = 16_384;
/// How often a socket is pinged and its key checked again.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// Longest wait for a client to read.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Hands a question on to the role search; refusals are plain text.
pub(super) async fn to_search(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    plain(gateway.search.forward(request, peer).await).await
}

/// Opens a tail.
pub(super) async fn tail(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let caller = match gateway.registry.admit(&headers, Scope::Query) {
        Ok(caller) => caller,
        Err(error) => return plain(error.into_response()).await,
    };
    let asked = match Asked::read(&uri, &headers, peer) {
        Ok(asked) => asked,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(error) => return text(error.status(), error.body_text()),
    };
    let mut tail = match gateway.tails.watch(caller.tenant.name()) {
        Ok(tail) => tail,
        Err(error) => return plain(too_many(error)).await,
    };
    let in_place = tail.source.wait_for(|state| *state == SourceState::Live);
    if !matches!(timeout(IN_PLACE, in_place).await, Ok(Ok(_))) {
        tracing::warn!(tenant.name = %caller.tenant.name(), "a tail of the Loki API begins before its source answers");
    }
    let mut past = match asked.past(&gateway, asked.start, asked.limit, "backward").await {
        Ok(past) => past,
        Err(refusal) => return refusal,
    };
    past.reverse();
    let upgrade = upgrade.max_frame_size(MAX_CLIENT_MESSAGE).max_message_size(MAX_CLIENT_MESSAGE);
    upgrade.on_upgrade(move |socket| async move {
        let sockets = gateway.sockets.clone();
        sockets.track_future(run(socket, tail, asked, past, gateway)).await;
    })
}

/// What a client asks for.
struct Asked {
    log: LogExpr,
    query: String,
    limit: usize,
    start: i64,
    categorized: bool,
    headers: HeaderMap,
    peer: SocketAddr,
}

impl Asked {
    fn read(uri: &Uri, headers: &HeaderMap, peer: SocketAddr) -> Result<Self, String> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| error.body_text())?;
        let query = params::query(&pairs).map_err(|error| error.to_string())?;
        let Expr::Log(log) = parse(query).map_err(|error| error.to_string())? else {
            return Err("only log queries can be tailed, and this is a metric query".to_owned());
        };
        Ok(Self {
            log,
            query: query.to_owned(),
            limit: params::limit(&pairs).map_err(|error| error.to_string())?,
            start: params::tail_start(&pairs, now_nanos()).map_err(|error| error.to_string())?,
            categorized: is_categorized(headers),
            headers: headers.clone(),
            peer,
        })
    }

    /// Lines since `start` as the role search finds them; or its refusal.
    async fn past(&self, gateway: &Gateway, start: i64, limit: usize, direction: &str) -> Result<Vec<Row>, Response> {
        // An event may say that it happens in a moment.
        let (start, end) = (start.to_string(), now_nanos().saturating_add(3600 * 1_000_000_000).to_string());
        let limit = limit.to_string();
        let pairs = [
            ("query", self.query.as_str()),
            ("start", &start),
            ("end", &end),
            ("limit", &limit),
            ("direction", direction),
        ];
        let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mut request = Request::get(format!("/loki/api/v1/query_range?{}", query.join("&")));
        for name in ["authorization", "x-api-key", "x-scope-orgid", "x-tenant"] {
            for value in self.headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        let failed = |why: &str| text(StatusCode::BAD_GATEWAY, format!("the lines before could not be read: {why}"));
        let request = request.header(ENCODING_FLAGS, CATEGORIZED).body(Body::empty());
        let request = request.map_err(|error| failed(&error.to_string()))?;
        let answer = plain(gateway.search.forward(request, self.peer).await).await;
        if !answer.status().is_success() {
            return Err(answer);
        }
        let body = to_bytes(answer.into_body(), MAX_PAST).await.map_err(|error| failed(&error.to_string()))?;
        let answer: Answer<Vec<Stream>> = serde_json::from_slice(&body).map_err(|error| failed(&error.to_string()))?;
        let mut rows: Vec<Row> = answer.data.result.into_iter().flat_map(rows_of).collect();
        rows.sort_by_key(|row| (row.time, row.id));
        if direction == "backward" {
            rows.reverse();
        }
        Ok(rows)
    }
}

/// Percent-encoded, as a value of a query string.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn rows_of(Stream { stream, values }: Stream) -> impl Iterator<Item = Row> {
    values.into_iter().filter_map(move |entry| {
        let third = entry.2.unwrap_or_default();
        // A query may drop it.
        let id = third.structured_metadata.get("event_id").and_then(|id| id.parse().ok()).unwrap_or_default();
        let time = entry.0.parse::<i64>().ok()?.div_euclid(1000);
        Some(Row::of_labels(time, id, entry.1, stream.clone(), third.structured_metadata, third.parsed))
    })
}

fn now_nanos() -> i64 {
    crate::event::micros(time::OffsetDateTime::now_utc()).saturating_mul(1000)
}

/// Shows lines until one side ends it.
async fn run(socket: WebSocket, mut tail: Subscription, asked: Asked, past: Vec<Row>, gateway: Gateway) {
    let (mut sink, mut client) = socket.split();
    let newest = past.last().map(|row| (row.time, row.id));
    let mut view = View::default();
    let mut waiting: VecDeque<Message> = messages(&asked, view.new_ones(past), 0).into();
    let mut check = interval(CHECK_EVERY);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let once_more = tokio::time::sleep_until(Instant::now() + ONCE_MORE);
    let mut once_more = std::pin::pin!(once_more);
    let mut complete = false;
    let ending = loop {
        while let Some(message) = waiting.pop_front() {
            let admitted = async {
                loop {
                    check.tick().await;
                    if gateway.registry.admit(&asked.headers, Scope::Query).is_err() {
                        break;
                    }
                }
            };
            let sent = tokio::select! {
                sent = timeout(SEND_TIMEOUT, sink.send(message)) => sent,
                () = admitted => return close(sink, Ending::KeyRefused).await,
                () = gateway.stop.cancelled() => return,
            };
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return close(sink, Ending::TooSlow).await,
            }
        }
        tokio::select! {
            entry = tail.entries.recv() => match entry {
                Ok(entry) => waiting.extend(view.entry(&asked, &entry)),
                // The next entry's number says how many events are lost.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            () = &mut once_more, if !complete => {
                complete = true;
                let start = newest.map_or(asked.start, |(time, _)| time.saturating_mul(1000));
                // What can't be had now was in no answer before either.
                let late = asked.past(&gateway, start, params::MAX_LIMIT, "forward").await.unwrap_or_default();
                let late = late.into_iter().filter(|row| newest.is_none_or(|newest| (row.time, row.id) > newest));
                let late = view.new_ones(late.collect());
                waiting.extend(messages(&asked, late, 0));
            }
            message = client.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            _ = check.tick() => {
                if gateway.registry.admit(&asked.headers, Scope::Query).is_err() {
                    break Ending::KeyRefused;
                }
                waiting.push_back(Message::Ping(axum::body::Bytes::new()));
            }
            // Without a close frame: Grafana comes again by itself only after a connection that broke.
            () = gateway.stop.cancelled() => return,
        }
    };
    close(sink, ending).await;
}

async fn close(mut sink: impl futures::Sink<Message> + Unpin, ending: Ending) {
    if timeout(Duration::from_secs(1), sink.send(frames::close(ending))).await.is_err() {
        tracing::debug!("a client didn't take its close frame");
    }
}

/// What a socket was shown.
struct View {
    /// Number of the next event, once one has come.
    expected: Option<u64>,
    shown: Recent,
}

impl Default for View {
    fn default() -> Self {
        Self { expected: None, shown: Recent::of(REMEMBERED) }
    }
}

impl View {
    fn entry(&mut self, asked: &Asked, entry: &TailEntry) -> Vec<Message> {
        let lost = self.expected.map_or(0, |expected| entry.first.saturating_sub(expected));
        self.expected = Some(entry.first + entry.events.len() as u64 + entry.left_out);
        let rows = entry.events.iter().filter_map(row);
        let rows = rows.filter_map(|mut row| asked.log.keeps(&mut row).then_some(row)).collect();
        messages(asked, self.new_ones(rows), lost + entry.left_out)
    }

    fn new_ones(&mut self, mut rows: Vec<Row>) -> Vec<Row> {
        // A line whose id is not known can't be known again.
        rows.retain(|row| row.id.is_nil() || self.shown.is_new(row.id));
        rows
    }
}

/// An event of the live tail as a line.
fn row(event: &TailEvent) -> Option<Row> {
    let said = event.said()?;
    let time = said.time?;
    Some(Row::new(said, time, event.id))
}

/// Lines as frames, and how many were left out.
fn messages(asked: &Asked, rows: Vec<Row>, left_out: u64) -> Vec<Message> {
    let flags = || if asked.categorized { vec![CATEGORIZED.to_owned()] } else { Vec::new() };
    let mut frames: Vec<TailFrame> = rows
        .chunks(LINES_OF_A_FRAME)
        .map(|rows| TailFrame {
            streams: in_order(rows.to_vec(), asked.categorized),
            dropped_entries: None,
            encoding_flags: flags(),
        })
        .collect();
    if left_out > 0 {
        let labels = [("lines_left_out".to_owned(), left_out.to_string())].into();
        let dropped = DroppedEntry { timestamp: now_nanos().to_string(), labels };
        frames.push(TailFrame { streams: Vec::new(), dropped_entries: Some(vec![dropped]), encoding_flags: flags() });
    }
    let text = |frame: TailFrame| serde_json::to_string(&frame).ok().map(|text| Message::Text(text.into()));
    frames.into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_before_the_upgrade() {
        let read = |query: &str| {
            let uri: Uri = format!("/loki/api/v1/tail?{query}").parse().unwrap();
            Asked::read(&uri, &HeaderMap::new(), "10.0.0.9:1".parse().unwrap())
        };
        let asked =
            read("query=%7Bservice_name%3D%22api%22%7D&limit=30&delay_for=0&from=1764240000000000000").ok().unwrap();
        assert_eq!((asked.limit, asked.start), (30, 1_764_240_000_000_000_000));
        for (query, why) in [
            ("", "`query` is missing"),
            ("query=%7B", "parse error"),
            ("query=count_over_time(%7Ba%3D%22x%22%7D%5B5m%5D)", "metric query"),
            ("query=%7B%7D&limit=0", "limit must be a positive value"),
        ] {
            let refused = read(query).err().unwrap();
            assert!(refused.contains(why), "{query}: {refused}");
        }
        assert_eq!(encoded("{a=\"é b\"}"), "%7Ba%3D%22%C3%A9%20b%22%7D");
    }

    #[test]
    fn a_line_is_shown_once_and_memory_is_bounded() {
        let mut view = View::default();
        let mut is_new = |id: u128| {
            let labels = Default::default;
            let row = Row::of_labels(0, uuid::Uuid::from_u128(id), String::new(), labels(), labels(), labels());
            view.new_ones(vec![row]).len() == 1
        };
        assert!(is_new(1) && !is_new(1));
        for id in 2..=REMEMBERED as u128 + 1 {
            assert!(is_new(id));
        }
        assert!(!is_new(2) && is_new(1), "as many are remembered, and no more");
        // A line without an id can't be known again.
        assert!(is_new(0) && is_new(0));
    }
}
