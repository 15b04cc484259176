//! Requests whose ends two servers could see in different places, at ingest's own door and through the gateway.
//!
//! Each carries a second request inside, with another tenant's key, that must never be one. After each the other
//! tenant sends something of its own: it is answered as ever, and kept once.

use testkit::http::raw::{Answer, LAST, exchange};

use crate::door::{Door, Sender, outcome};
use crate::front::Front;
use crate::redis_server::RedisServer;

/// Longest refusal: head and body of what says no more than why.
const SHORT: usize = 1500;

/// Bytes on one connection, and what comes of them.
struct Case {
    name: &'static str,
    sent: String,
    /// The statuses of all answers, until the server closes.
    answered: &'static str,
    /// Own batches that are then kept.
    kept: u64,
}

/// What follows the header, after a body that ends in one place only, is another tenant's request.
fn cases(own: &Sender, other: &Sender) -> Vec<Case> {
    let request = |key: &str, framing: &str, body: &str| {
        format!("POST /logs HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n{framing}\r\n\r\n{body}")
    };
    let (key, theirs) = (own.key.to_string(), other.key.to_string());
    let inner = request(&theirs, "content-length: 2", "{}");
    let post = |framing: &str, body: &str| request(&key, framing, &format!("{body}{inner}"));
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    let mut cases = Vec::new();
    let mut case = |name, sent, answered, kept| cases.push(Case { name, sent, answered, kept });

    // The end of the body is said twice: chunks count, and nothing after them is read.
    case("chunks, then a length", post("transfer-encoding: chunked\r\ncontent-length: 7", chunks), "202", 1);
    case("a length, then chunks", post("content-length: 2\r\ntransfer-encoding: chunked", chunks), "202", 1);
    let longer = format!("content-length: {}", inner.len() + 2);
    for (name, lengths) in [
        ("two lengths", format!("content-length: 2\r\n{longer}")),
        ("two lengths, the longer one first", format!("{longer}\r\ncontent-length: 2")),
    ] {
        case(name, post(&lengths, "{}"), "400", 0);
    }
    for (name, length) in [
        ("a list of one length", "2, 2"),
        ("a list of two lengths", "2, 200"),
        ("a plus", "+2"),
        ("a minus", "-1"),
        ("hexadecimal", "0x2"),
        ("2^64 + 2", "18446744073709551618"),
        ("no number", ""),
        ("two numbers", "2 0"),
        ("digits of another script", "\u{0662}"),
        ("quotes", "\"2\""),
        ("a fraction", "2.0"),
    ] {
        case(name, post(&format!("content-length: {length}"), "{}"), "400", 0);
    }
    for (name, encoding, answered) in [
        ("xchunked", "transfer-encoding: xchunked", "400"),
        ("chunked, identity", "transfer-encoding: chunked, identity", "400"),
        ("identity", "transfer-encoding: identity", "400"),
        ("gzip, chunked", "transfer-encoding: gzip, chunked", "501"),
        ("chunked, chunked", "transfer-encoding: chunked, chunked", "501"),
        ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked", "501"),
        ("quoted", "transfer-encoding: \"chunked\"", "400"),
        ("no encoding", "transfer-encoding:", "400"),
        ("a vertical tab", "transfer-encoding: \x0bchunked", "400"),
        ("a space before the colon", "transfer-encoding : chunked", "400"),
        ("a tab before the colon", "transfer-encoding\t: chunked", "400"),
        ("a NUL before the colon", "transfer-encoding\0: chunked", "400"),
        ("a bare CR", "x: 1\rtransfer-encoding: chunked", "400"),
        ("a NUL", "x: 1\0transfer-encoding: chunked", "400"),
        ("a folded value", "transfer-encoding:\r\n chunked", "400"),
        ("a folded field", "x: 1\r\n transfer-encoding: chunked", "400"),
        ("a folded length", "x: 1\r\n\tcontent-length: 2", "400"),
        ("a line without a colon", "x\r\ntransfer-encoding: chunked", "400"),
        ("a space before a name", " x: 1\r\ntransfer-encoding: chunked", "400"),
        // No body is announced: an empty batch, and then something that is no request.
        ("another name", "transfer_encoding: chunked", "400 400"),
    ] {
        case(name, post(encoding, chunks), answered, 0);
    }
    let old = post("transfer-encoding: chunked", chunks).replacen("HTTP/1.1", "HTTP/1.0", 1);
    case("chunks in HTTP/1.0", old, "400", 0);
    for (name, chunks) in [
        ("a chunk of 2^64 + 2", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        ("a chunk of 0x2", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("a chunk of +2", "+2\r\n{}\r\n0\r\n\r\n"),
        ("a space before a chunk", " 2\r\n{}\r\n0\r\n\r\n"),
        ("a chunk of no size", "\r\n{}\r\n0\r\n\r\n"),
        ("a NUL after a size", "2\0\r\n{}\r\n0\r\n\r\n"),
        ("a bare LF after a size", "2\n{}\r\n0\r\n\r\n"),
        ("a bare CR after a size", "2\r{}\r\n0\r\n\r\n"),
        ("a bare LF after a chunk", "2\r\n{}\n0\r\n\r\n"),
        ("a chunk that is longer than it says", "2\r\n{}x\r\n0\r\n\r\n"),
        ("a chunk's extension of 20 KB", &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(20_000))),
    ] {
        case(name, post("transfer-encoding: chunked", chunks), "400", 0);
    }

    // From here on what follows, if anything, is one's own: each is a request, or none is.
    let whole = |framing: &str, body: &str| request(&key, framing, body);
    let trailers = format!("2\r\n{{}}\r\n0\r\nX-Tenant: {}\r\nX-API-Key: {theirs}\r\n\r\n", other.name());
    let announced = "transfer-encoding: chunked\r\ntrailer: x-tenant, x-api-key";
    case("a key and a tenant in trailers", whole(announced, &trailers), "202 200", 1);
    let nobody = |framing: &str, body: &str| format!("POST /logs HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n{body}");
    case("a key in trailers alone", nobody(announced, &trailers), "401 200", 0);
    let simple = whole("content-length: 2", "{}");
    case("three at once", simple.repeat(3), "202 202 202 200", 3);
    case("one with a key, one without", simple.clone() + &nobody("content-length: 2", "{}"), "202 401 200", 1);
    let length = format!("content-length: {}", inner.len());
    for (name, line, answered) in [
        ("a request as the body of GET /", "GET /", "200 200"),
        ("a request as the body of GET /logs", "GET /logs", "405 200"),
        ("a request as the body of no route's", "POST /none", "404 200"),
        ("a request as the body of one without a key", "POST /logs", "401 200"),
    ] {
        case(name, format!("{line} HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n{inner}"), answered, 0);
    }
    let in_chunks = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    case("the same in chunks", nobody("transfer-encoding: chunked", &in_chunks), "401 200", 0);
    case("the same, waiting to go on", nobody(&format!("expect: 100-continue\r\n{length}"), &inner), "401 200", 0);

    let h2c = "content-length: 2\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk";
    case("an upgrade to HTTP/2", whole(h2c, "{}"), "202 200", 1);
    case("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "", 0);
    case("HTTP/1.2", simple.replace("HTTP/1.1", "HTTP/1.2"), "400", 0);
    case("HTTP/0.9", "GET /\r\n".to_owned(), "400", 0);
    case("TLS", "\x16\x03\x01\x02".to_owned(), "400", 0);
    case("bare LFs", simple.replace("\r\n", "\n"), "202 200", 1);
    case("no host", simple.replace("host: x\r\n", ""), "400", 0);
    case("two hosts", whole("content-length: 2\r\nhost: y", "{}"), "400", 0);
    case("150 fields", whole(&format!("content-length: 2{}", "\r\nx: 1".repeat(150)), "{}"), "431", 0);
    case("a head of 200 KB", whole(&format!("content-length: 2\r\nx: {}", "x".repeat(200_000)), "{}"), "431", 0);
    cases
}

fn statuses(answers: &[Answer]) -> String {
    let statuses = answers.iter().map(|answer| answer.status).filter(|status| *status >= 200);
    statuses.map(|status| status.to_string()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_request_inside_of_a_request_is_never_one() {
    let (redis, cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
    let (own, mut other) = (Sender::new(), Sender::new());
    // A lane of its own, where its batches can be counted.
    other.registered.pipeline = "theirs".parse().unwrap();
    own.project(&redis).await;
    other.project(&redis).await;
    let door = Door::open(&redis).await;
    let front = Front::of(&door, &cache, &[&own, &other]).await;
    let batches = async |sender: &Sender| -> u64 { redis.command(&["XLEN", &sender.tenant().lane().stream()]).await };
    let (mut owns, mut others) = (0, 0);
    let mut wrong = Vec::new();
    for Case { name, sent, answered, kept } in cases(&own, &other) {
        for (at, url) in [("ingest", &door.url), ("gateway", &front.url)] {
            let name = format!("{name}, at {at}");
            let answers = exchange(url, format!("{sent}{LAST}").as_bytes()).await;
            let answers = answers.unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let refusals = answers.iter().filter(|answer| answer.status >= 400);
            let longest = refusals.map(|answer| answer.head.len() + answer.body.len()).max().unwrap_or_default();
            let theirs = reqwest::Client::new().post(format!("{url}/logs")).bearer_auth(&other.key).body("{}");
            let theirs = outcome(theirs).await;
            let now = (batches(&own).await, batches(&other).await);
            for (holds, what) in [
                (statuses(&answers) == answered, format!("answered {}, not {answered}", statuses(&answers))),
                (longest < SHORT, format!("a refusal of {longest} bytes")),
                (theirs.0 == 202, format!("the other tenant is answered {theirs:?}")),
                (now.0 == owns + kept, format!("{} own batches are kept", now.0 - owns)),
                (now.1 == others + 1, format!("{} batches of the other tenant are kept", now.1 - others)),
            ] {
                if !holds {
                    wrong.push(format!("{name}: {what}"));
                }
            }
            (owns, others) = now;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
