//! Every refusal has its status and its code, and leaves nothing behind.

use std::io::Read;

use crds::apikey::ApiKey;
use crds::registry::TenantState;
use crds::tenant::Scope;
use flate2::Compression;
use flate2::bufread::GzEncoder;
use reqwest::RequestBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::door::{Door, Sender, outcome};
use crate::redis_server::RedisServer;

const MIB: usize = 1024 * 1024;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    GzEncoder::new(bytes, Compression::fast()).read_to_end(&mut compressed).unwrap();
    compressed
}

#[tokio::test]
async fn each_refusal_has_its_code_and_keeps_nothing() {
    let redis = RedisServer::durable().await;
    let (sender, foreign) = (Sender::new(), Sender::new());
    let reader = Sender::with_scopes(&[Scope::Query]);
    let suspended = Sender::new().in_state(TenantState::Suspended);
    let leaving = Sender::new().in_state(TenantState::Deleting);
    for sender in [&sender, &foreign, &reader, &suspended, &leaving] {
        sender.project(&redis).await;
    }
    let door = Door::open(&redis).await;
    let logs = || door.logs(&sender);
    let gzip_bomb = gzip(&vec![b' '; 64 * MIB]);
    let zstd_bomb = zstd::bulk::compress(&vec![b' '; 256 * MIB], 19).unwrap();
    let frame = zstd::encode_all(&br#"{"message":"a frame of some length, so that there is something to cut"}"#[..], 1)
        .unwrap();
    let wide_window = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        std::io::Write::write_all(&mut encoder, &vec![b' '; MIB]).unwrap();
        encoder.finish().unwrap()
    };
    let encoded = |encoding: &'static str, body: &[u8]| logs().header("content-encoding", encoding).body(body.to_vec());
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, RequestBuilder, (u16, &str))> = vec![
        ("no key", door.post("/logs").body("{}"), (401, "missing_api_key")),
        ("an unknown key", door.post("/logs").bearer_auth(ApiKey::generate()).body("{}"), (401, "invalid_api_key")),
        ("not a key", door.post("/logs").header("x-api-key", "lh_").body("{}"), (401, "invalid_api_key")),
        ("a leaving tenant", door.logs(&leaving).body("{}"), (401, "invalid_api_key")),
        ("no scope", door.logs(&reader).body("{}"), (403, "scope_missing")),
        ("suspended", door.logs(&suspended).body("{}"), (403, "tenant_suspended")),
        ("a foreign header", logs().header("x-scope-orgid", foreign.name()).body("{}"), (403, "tenant_mismatch")),
        ("nothing", logs(), (400, "empty_batch")),
        ("an empty array", logs().body("[]"), (400, "empty_batch")),
        ("no JSON", logs().body("text"), (400, "invalid_json")),
        ("half an array", logs().body("[{},"), (400, "invalid_json")),
        ("depth", logs().body(deep), (400, "too_deep")),
        ("a long event", logs().body(format!(r#"{{"a":"{}"}}"#, "x".repeat(MIB))), (413, "event_too_large")),
        ("many events", logs().body("{}\n".repeat(10_001)), (413, "too_many_events")),
        ("a long body", logs().body(vec![b' '; 20 * MIB + 1]), (413, "body_too_large")),
        ("a gzip bomb", encoded("gzip", &gzip_bomb), (413, "decompressed_too_large")),
        ("a zstd bomb", encoded("zstd", &zstd_bomb), (413, "decompressed_too_large")),
        ("a zstd window of 128 MiB", encoded("zstd", &wide_window), (415, "unsupported_encoding")),
        ("brotli", encoded("br", b"{}"), (415, "unsupported_encoding")),
        ("gzip over gzip", encoded("gzip, gzip", &gzip(&gzip(b"{}"))), (415, "unsupported_encoding")),
        ("not gzip", encoded("gzip", b"{}"), (415, "unsupported_encoding")),
        ("half a gzip", encoded("gzip", &gzip(b"{}")[..12]), (415, "unsupported_encoding")),
        ("not zstd", encoded("zstd", b"{}"), (415, "unsupported_encoding")),
        ("half a zstd", encoded("zstd", &frame[..frame.len() - 9]), (415, "unsupported_encoding")),
        ("half a second zstd", encoded("zstd", &[&frame[..], &frame[..10]].concat()), (415, "unsupported_encoding")),
        ("zstd and more", encoded("zstd", &[&frame[..], b"x"].concat()), (415, "unsupported_encoding")),
        ("zstd and text", encoded("zstd", &[&frame[..], b"trailing rubbish"].concat()), (415, "unsupported_encoding")),
        ("gzip and more", encoded("gzip", &[&gzip(b"{}")[..], b"{}"].concat()), (415, "unsupported_encoding")),
        (
            "all or nothing",
            door.post("/logs?atomic=true").bearer_auth(&sender.key).body("[{},2]"),
            (400, "invalid_json"),
        ),
        ("not a choice", door.post("/logs?atomic=1").bearer_auth(&sender.key).body("{}"), (400, "invalid_parameter")),
        ("msgpack", logs().header("content-type", "application/msgpack").body("{}"), (415, "unsupported_content_type")),
        ("an empty key", logs().header("idempotency-key", "").body("{}"), (400, "invalid_idempotency_key")),
        ("a spaced key", logs().header("idempotency-key", "a b").body("{}"), (400, "invalid_idempotency_key")),
        ("a long key", logs().header("idempotency-key", "k".repeat(256)).body("{}"), (400, "invalid_idempotency_key")),
        (
            "two keys",
            logs().header("idempotency-key", "a").header("idempotency-key", "b").body("{}"),
            (400, "invalid_idempotency_key"),
        ),
        ("no such path", door.post("/log").bearer_auth(&sender.key).body("{}"), (404, "not_found")),
        ("GET", reqwest::Client::new().get(format!("{}/logs", door.url)), (405, "method_not_allowed")),
    ];
    for (what, request, (status, code)) in cases {
        assert_eq!(outcome(request).await, (status, code.to_owned()), "{what}");
    }
    let streams: Vec<String> = redis.command(&["KEYS", "lh:{default:*}:queue"]).await;
    assert_eq!(streams, Vec::<String>::new(), "a refusal left something behind");
    assert_eq!(outcome(logs().header("idempotency-key", "k".repeat(255)).body("{}")).await.0, 202);
}

#[tokio::test]
async fn a_body_that_grows_without_end_is_cut_off() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open(&redis).await;
    let mut socket = tokio::net::TcpStream::connect(door.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /logs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        sender.key
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    let (mut read, mut write) = socket.into_split();
    let writing = tokio::spawn(async move { while write.write_all(&chunk).await.is_ok() {} });
    let mut answer = vec![0; 4096];
    let length = read.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    drop(read);
    writing.abort();
}

#[tokio::test]
async fn what_does_not_fit_into_memory_is_refused_and_given_back() {
    let redis = RedisServer::durable().await;
    let sender = Sender::new();
    sender.project(&redis).await;
    let door = Door::open_unready(&redis, MIB).await;
    crate::door::eventually("ready", async || door.get("/ready").await.status() == 200).await;
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(700_000));
    let response = door.logs(&sender).body(large).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert!(response.text().await.unwrap().contains("overloaded"));
    assert_eq!(outcome(door.logs(&sender).body("{}")).await.0, 202);
    let metrics = door.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("loggerhub_ingest_in_flight_bytes 0"), "{metrics}");
}
