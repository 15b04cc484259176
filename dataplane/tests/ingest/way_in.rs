//! The way in without HTTP: what a protocol that decodes for itself is promised.

use std::collections::BTreeMap;

use crds::registry::{IngestQuotas, Rate};
use crds::tenant::Scope;
use dataplane::cache::OptionalCacheSettings;
use dataplane::ingest::accept::{
    Arrival, Encoding, Events, Form, IdempotencyKey, Intake, Kept, Known, Lines, Options, Packed, Refusal, Rejected,
    Taking,
};
use dataplane::queue::Producer;
use dataplane::queue::entry::{Entry, Fields, Rejection};
use dataplane::tenancy::{AuthError, Peppers, Registry};
use runtime::settings::TlsSettings;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::door::{Sender, eventually, pepper};
use crate::redis_server::RedisServer;

/// A way in for these senders.
struct Way {
    redis: RedisServer,
    intake: Intake,
    _stop: DropGuard,
}

impl Way {
    async fn of(senders: &[&Sender], cache: Option<&RedisServer>) -> Self {
        Self::with(senders, cache, 256 << 20).await
    }

    /// One that holds at most so many bytes.
    async fn with(senders: &[&Sender], cache: Option<&RedisServer>, budget: usize) -> Self {
        let redis = RedisServer::durable().await;
        let tenants = senders.iter().map(|sender| sender.registered.clone());
        let registry = Registry::fixed(tenants, Peppers::new([pepper()]).unwrap());
        let stop = CancellationToken::new();
        let (producer, _) = Producer::start(&redis.redis(), stop.clone()).unwrap();
        eventually("the queue answers", async || producer.health().answering).await;
        let cache_url = cache.map(|cache| cache.settings().queue_url);
        let cache = OptionalCacheSettings { cache_url, cache_credentials: None };
        let cache = cache.connect(&TlsSettings::default()).unwrap();
        let intake = Intake::start(&redis.redis(), registry, producer, cache, budget, stop.clone()).unwrap();
        Self { redis, intake, _stop: stop.drop_guard() }
    }

    fn arrive(&self, sender: &Sender) -> Result<Arrival, Refusal> {
        self.intake.arrive(self.intake.registry().authenticate_key(&sender.key.to_string()))
    }

    async fn accept(&self, sender: &Sender, lines: Lines, options: Options<'_>) -> Result<Kept, Refusal> {
        self.intake.accept(&mut self.arrive(sender)?, lines, options).await
    }

    /// Everything in the tenant's lane.
    async fn entries(&self, sender: &Sender) -> Vec<Entry> {
        let stream = sender.tenant().lane().stream();
        let entries: Vec<(String, Fields)> = self.redis.command(&["XRANGE", &stream, "-", "+"]).await;
        entries.into_iter().map(|(_, fields)| Entry::decode(fields).unwrap()).collect()
    }
}

fn lines(bytes: &[u8], decode: impl FnOnce(&[u8], &mut Events<'_>) -> Result<(), Refusal> + Send + 'static) -> Lines {
    Lines::new(Packed::new(Encoding::Identity, bytes.to_vec()), decode)
}

#[tokio::test]
async fn what_a_protocol_has_decoded_is_kept_and_each_event_is_told_of() {
    let sender = Sender::new();
    let way = Way::of(&[&sender], None).await;
    let decode = |_: &[u8], events: &mut Events<'_>| {
        events.event(br#"{"message": "as it is"}"#)?;
        events.record(&json!({"message": "of a value"}))?;
        let metadata = BTreeMap::from([("job", "nginx")]);
        let known = Known { timestamp: Some(1), level: Some("warn"), metadata, ..Known::default() };
        events.line(b"a \"line\" with \xff", &known)?;
        events.event(b"[no object]")?;
        events.record(&json!("no object"))?;
        events.dead_letter(b"\x01\x02", Rejection::TooLarge)
    };
    let kept = way.accept(&sender, lines(b"any bytes", decode), Options::default()).await.unwrap();
    let [entry] = &way.entries(&sender).await[..] else { panic!("one entry") };
    let raw: Vec<&[u8]> = {
        let mut rest = entry.raw.as_slice();
        let events = entry.header.batches[0].events.iter();
        events.map(|event| rest.split_off(..event.length as usize).unwrap()).collect()
    };
    let line = r#"{"timestamp":1,"level":"warn","metadata":{"job":"nginx"},"message":"a \"line\" with �"}"#;
    let expected: [&[u8]; 6] = [
        br#"{"message": "as it is"}"#,
        br#"{"message":"of a value"}"#,
        line.as_bytes(),
        b"[no object]",
        br#""no object""#,
        b"\x01\x02",
    ];
    assert_eq!(raw, expected);
    let (json, large) = (Rejection::InvalidJson, Rejection::TooLarge);
    let rejected = [(3, json), (4, json), (5, large)].map(|(position, why)| Rejected { position, why });
    assert_eq!((kept.accepted, kept.rejected.as_slice()), (3, rejected.as_slice()));
    assert_eq!(kept.batch_id, entry.header.batches[0].batch_id);
    let receipt = way.intake.registry().peppers().read_receipt(&kept.receipt).unwrap();
    assert_eq!((receipt.batch_id, receipt.events), (kept.batch_id, 6));
}

#[tokio::test]
async fn nothing_is_kept_of_what_is_refused() {
    let (sender, reader) = (Sender::new(), Sender::with_scopes(&[Scope::Query]));
    let way = Way::of(&[&sender, &reader], None).await;
    assert_eq!(way.arrive(&reader).unwrap_err(), AuthError::ScopeMissing(Scope::Ingest).into());
    type Decode = fn(&[u8], &mut Events<'_>) -> Result<(), Refusal>;
    let cases: [(&str, Decode, Taking); 8] = [
        ("empty_batch", |_, _| Ok(()), Taking::Each),
        ("invalid_json", |_, events| events.event(b"text"), Taking::Each),
        (
            "invalid_json",
            |_, events| {
                events.record(&json!({}))?;
                events.record(&json!(1))
            },
            Taking::Atomic,
        ),
        ("event_too_large", |_, events| events.line(&[b'x'; (1 << 20) + 1], &Known::default()), Taking::Each),
        ("too_many_events", |_, events| (0..=10_000).try_for_each(|_| events.event(b"{}")), Taking::Each),
        // A few bytes, of which a protocol makes many: a label that stands in every line.
        (
            "decompressed_too_large",
            |_, events| (0..100).try_for_each(|_| events.line(&[b'x'; 1 << 19], &Known::default())),
            Taking::Each,
        ),
        ("invalid_json", |body, events| Form::Json.split(body, events), Taking::Each),
        (
            "too_deep",
            |_, events| events.event(&[br#"{"a":"#.repeat(33), b"1".to_vec(), b"}".repeat(33)].concat()),
            Taking::Each,
        ),
    ];
    for (code, decode, taking) in cases {
        let refusal = way.accept(&sender, lines(b"[", decode), Options { taking, ..Options::default() }).await;
        assert_eq!(refusal.unwrap_err().code().as_str(), code);
    }
    assert!(way.entries(&sender).await.is_empty());
}

#[tokio::test]
async fn what_a_protocol_makes_of_its_bytes_is_paid_for() {
    let sender = Sender::new();
    let way = Way::with(&[&sender], None, 64 << 20).await;
    // The tenant's share of 64 MiB is half.
    let mut arrival = way.arrive(&sender).unwrap();
    arrival.hold(12 << 20).unwrap();
    let grown = lines(b"x", |_, events| (0..30).try_for_each(|_| events.line(&[b'x'; 1 << 19], &Known::default())));
    assert_eq!(way.accept(&sender, grown, Options::default()).await.unwrap_err(), Refusal::Overloaded);
    // What was not held while it was read is held when it is accepted.
    let plain = lines(&[b' '; 8 << 20], |_, events| events.event(b"{}"));
    assert_eq!(way.accept(&sender, plain, Options::default()).await.unwrap_err(), Refusal::Overloaded);
    drop(arrival);
    let plain = lines(&[b' '; 8 << 20], |_, events| events.event(b"{}"));
    assert_eq!(way.accept(&sender, plain, Options::default()).await.unwrap().accepted, 1);
}

#[tokio::test]
async fn keys_and_quotas_hold_without_http() {
    let (sender, mut limited) = (Sender::new(), Sender::new());
    limited.registered.quotas = IngestQuotas { bytes: None, events: Some(Rate { per_second: 1, burst: 2 }) };
    let cache = RedisServer::with(&[]).await;
    let way = Way::of(&[&sender, &limited], Some(&cache)).await;
    let body = |text: &'static str| lines(text.as_bytes(), |body, events| events.event(body));
    let key = |text: &'static str| Options {
        key: Some(IdempotencyKey::parse(text.as_bytes()).unwrap()),
        ..Options::default()
    };
    let first = way.accept(&sender, body("{}"), key("k")).await.unwrap();
    let again = way.accept(&sender, body("{}"), key("k")).await.unwrap();
    assert_eq!((first.duplicate, again.duplicate, first.batch_id), (false, true, again.batch_id));
    let other = way.accept(&sender, body("{ }"), key("k")).await;
    assert_eq!(other.unwrap_err(), Refusal::IdempotencyKeyReused { kept: false });
    assert!(IdempotencyKey::parse(b"two words").is_err());

    // Five times the burst: paid back over eight seconds and more.
    let ten = || lines(b"", |_, events| (0..10).try_for_each(|_| events.event(b"{}")));
    assert_eq!(way.accept(&limited, ten(), Options::default()).await.unwrap().accepted, 10);
    let refusal = way.accept(&limited, ten(), Options::default()).await.unwrap_err();
    assert_eq!(refusal.code().as_str(), "quota_exceeded");
    assert!((5..=10).contains(&refusal.retry_after_seconds().unwrap()), "{refusal}");
    let mut arrival = way.arrive(&limited).unwrap();
    assert_eq!(
        way.intake.admit(&mut arrival, 1).unwrap_err().code().as_str(),
        "quota_exceeded",
        "before anything is read"
    );
    assert!(way.intake.quota_left(&arrival).unwrap().limits.contains("events"));
}
