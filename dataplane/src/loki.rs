//! What search and gateway share of the Loki API: lines as streams, and refusals as plain text, which its clients show as
//! they are.

use std::collections::HashMap;

use api::loki::{CATEGORIZED, Categorized, ENCODING_FLAGS, Entry, Labels, Stream};
use api::{Code, Refusal};
use axum::body::to_bytes;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use query::logql::Row;

/// Longest refusal: a message is cut long before.
const MAX_BODY: usize = 64 * 1024;

/// Whether a client knows of a third element of a line.
pub(crate) fn is_categorized(headers: &HeaderMap) -> bool {
    let flags = headers.get_all(ENCODING_FLAGS).iter().filter_map(|flags| flags.to_str().ok());
    flags.flat_map(|flags| flags.split(',')).any(|flag| flag.trim() == CATEGORIZED)
}

/// Lines as they come, neighbours with equal labels as one stream: the order of a tail's lines is that of its frames.
pub(crate) fn in_order(rows: Vec<Row>, categorized: bool) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    for row in rows {
        let (labels, entry) = entry(row, categorized);
        match streams.last_mut().filter(|stream| stream.stream == labels) {
            Some(stream) => stream.values.push(entry),
            None => streams.push(Stream { stream: labels, values: vec![entry] }),
        }
    }
    streams
}

fn entry(row: Row, categorized: bool) -> (Labels, Entry) {
    let time = (i128::from(row.time) * 1000).to_string();
    if !categorized {
        return (row.merged(), Entry(time, row.line, None));
    }
    let parsed = row.parsed_with_error();
    let third = Categorized { structured_metadata: row.structured, parsed };
    (row.stream, Entry(time, row.line, Some(third)))
}

/// Lines with equal labels side by side, in their order.
pub(crate) fn by_stream(rows: Vec<Row>, categorized: bool) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    let mut places: HashMap<Labels, usize> = HashMap::new();
    for row in rows {
        let (labels, entry) = entry(row, categorized);
        let at = *places.entry(labels.clone()).or_insert_with(|| {
            streams.push(Stream { stream: labels, values: Vec::new() });
            streams.len() - 1
        });
        streams[at].values.push(entry);
    }
    streams
}

/// A text with a status.
pub(crate) fn text(status: StatusCode, message: impl Into<String>) -> Response {
    let message: String = message.into();
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], message).into_response()
}

/// The answer; if it is a refusal of ours, its message alone.
pub(crate) async fn plain(answer: Response) -> Response {
    let is_json =
        answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if answer.status().is_success() || !is_json {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let message = match Refusal::read(&body) {
        Some(refusal) => shown(&refusal),
        None => String::from_utf8_lossy(&body).into_owned(),
    };
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, message.into())
}

/// The message, with the words by which clients know what it is about.
fn shown(refusal: &Refusal) -> String {
    let message = &refusal.error.message;
    match refusal.code() {
        Some(Code::QueryTimeout | Code::UpstreamTimeout) => format!("request timed out: {message}"),
        Some(Code::TooManyQueries) => format!("too many outstanding requests: {message}"),
        _ => message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::http::refusal;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_refusal_is_its_message() {
        for (code, text) in [
            (Code::InvalidApiKey, "no"),
            (Code::QueryTimeout, "request timed out: no"),
            (Code::TooManyQueries, "too many outstanding requests: no"),
        ] {
            let answer = plain(refusal(code, "no")).await;
            assert_eq!(answer.status().as_u16(), code.status());
            assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
            assert_eq!(to_bytes(answer.into_body(), 100).await.unwrap(), text);
        }
        let good = plain(axum::Json("x").into_response()).await;
        assert_eq!(to_bytes(good.into_body(), 100).await.unwrap(), "\"x\"");
    }

    #[test]
    fn lines_of_equal_labels_are_a_stream_in_their_order() {
        let row = |n: u128, line: &str| {
            let event = stages::event(line.as_bytes(), 0).unwrap();
            Row::new(event, 1, Uuid::from_u128(n))
        };
        let rows = || {
            vec![
                row(1, r#"{"message":"a","service":"api","level":"info"}"#),
                row(2, r#"{"message":"b","service":"web","level":"info"}"#),
                row(3, r#"{"message":"c","service":"api","level":"error","status":5}"#),
                row(4, r#"{"message":"d","service":"api","level":"info"}"#),
            ]
        };
        let shown = |streams: Vec<Stream>| {
            let lines = |stream: &Stream| stream.values.iter().map(|entry| entry.1.clone()).collect::<String>();
            streams.iter().map(|stream| format!("{} {}", stream.stream.len(), lines(stream))).collect::<Vec<_>>()
        };
        assert_eq!(shown(by_stream(rows(), true)), ["1 acd", "1 b"]);
        assert_eq!(
            shown(by_stream(rows(), false)),
            ["2 ad", "2 b", "3 c"],
            "one stream for each set of labels, without ids"
        );
        assert_eq!(shown(in_order(rows(), true)), ["1 a", "1 b", "1 cd"]);
        let categorized = by_stream(rows(), true);
        let third = serde_json::to_value(&categorized[0].values[1]).unwrap();
        assert_eq!(third[0], "1000");
        assert_eq!(third[2]["structuredMetadata"]["status"], "5");
    }
}
