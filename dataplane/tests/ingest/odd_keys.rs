//! API keys that are almost right, or two at once: by every way that a key can come, at every door that takes one.

use crds::tenant::Scope;
use testkit::http::raw::{LAST, exchange};

use crate::door::{Door, Sender};
use crate::front::Front;
use crate::redis_server::RedisServer;

/// A request, but for the header that brings its key.
#[derive(Clone, Copy, PartialEq)]
enum Asks {
    Sends,
    Watches,
}

impl Asks {
    fn with(self, header: &str) -> Vec<u8> {
        let watch = "GET /ws/logs HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let request = match self {
            Self::Sends => format!("POST /logs HTTP/1.1\r\nhost: x\r\n{header}\r\ncontent-length: 2\r\n\r\n{{}}"),
            Self::Watches => format!("{watch}{header}\r\n\r\n"),
        };
        format!("{request}{LAST}").into_bytes()
    }
}

/// Status and code of what is answered first.
async fn answered(url: &str, sent: &[u8]) -> String {
    let answers = exchange(url, sent).await.unwrap();
    let answer = answers.first().unwrap();
    format!("{} {}", answer.status, answer.code().unwrap_or_default())
}

/// Both tenants, and every door as `(name, URL, what is asked there)`.
struct Doors {
    own: Sender,
    other: Sender,
    redis: RedisServer,
    _door: Door,
    _front: Front,
    doors: [(&'static str, String, Asks); 3],
}

impl Doors {
    async fn open() -> Self {
        let (redis, cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
        let (own, other) = (Sender::new(), Sender::new());
        own.project(&redis).await;
        other.project(&redis).await;
        let door = Door::open(&redis).await;
        let front = Front::of(&door, &cache, &[&own, &other]).await;
        let doors = [
            ("ingest", door.url.clone(), Asks::Sends),
            ("the gateway", front.url.clone(), Asks::Sends),
            ("the tail", front.url.clone(), Asks::Watches),
        ];
        Self { own, other, redis, _door: door, _front: front, doors }
    }

    async fn kept(&self) -> u64 {
        self.redis.command(&["XLEN", &self.own.tenant().lane().stream()]).await
    }
}

#[tokio::test]
async fn a_key_that_is_almost_right_is_wrong() {
    let doors = Doors::open().await;
    let (key, other) = (doors.own.key.to_string(), doors.other.key.to_string());
    let (id, secret) = key["lh_".len()..].split_once('_').unwrap();
    let wide: String = key.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect();
    let upper = id.to_uppercase();
    let invalid = "401 invalid_api_key";
    let mut wrong = Vec::new();
    for (name, value) in [
        ("nothing", String::new()),
        ("a tab inside", format!("lh_{id}\t_{secret}")),
        ("a space inside", format!("lh_{id} _{secret}")),
        ("a tab and more", format!("{key}\tx")),
        ("a no-break space before", format!("\u{a0}{key}")),
        ("a no-break space after", format!("{key}\u{a0}")),
        ("a zero-width space", format!("{key}\u{200b}")),
        ("full width", wide),
        ("an id in capitals", format!("lh_{upper}_{secret}")),
        ("a secret in small letters", format!("lh_{id}_{}", secret.to_lowercase())),
        ("another's secret", format!("lh_{id}_{}", other.rsplit_once('_').unwrap().1)),
        ("the other prefix", key.replacen("lh_", "LH_", 1)),
        ("quotes", format!("\"{key}\"")),
        ("one byte less", key[..key.len() - 1].to_owned()),
        ("one byte more", format!("{key}x")),
        ("twice", format!("{key},{key}")),
        ("two in a list", format!("{key}, {other}")),
        ("60 KB", format!("{key}{}", "x".repeat(60_000))),
    ] {
        for (door, url, asks) in &doors.doors {
            for (way, header) in [("X-API-Key", "x-api-key: "), ("Authorization", "authorization: Bearer ")] {
                let answer = answered(url, &asks.with(&format!("{header}{value}"))).await;
                if answer != invalid && !(value.is_empty() && answer == "401 missing_api_key") {
                    wrong.push(format!("{name} as {way} at {door}: {answer}"));
                }
            }
        }
    }
    for scheme in ["Bearer\t", "Bearer", "Bearer:", "Token ", "Basic ", "Bearer\u{a0}", ""] {
        for (door, url, asks) in &doors.doors {
            let answer = answered(url, &asks.with(&format!("authorization: {scheme}{key}"))).await;
            if answer != "401 missing_api_key" {
                wrong.push(format!("{scheme:?} at {door}: {answer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(doors.kept().await, 0);
}

#[tokio::test]
async fn two_different_keys_by_any_two_ways_are_refused() {
    const WAYS: [&str; 3] =
        ["authorization: Bearer ", "x-api-key: ", "sec-websocket-protocol: loggerhub, loggerhub.key."];
    let doors = Doors::open().await;
    let (own, other) = (doors.own.key.to_string(), doors.other.key.to_string());
    let stranger = &*crds::apikey::ApiKey::generate().to_string();
    let mut wrong = Vec::new();
    for (door, url, asks) in &doors.doors {
        let ways = if *asks == Asks::Watches { &WAYS[..] } else { &WAYS[..2] };
        let pairs = ways.iter().flat_map(|first| ways.iter().map(move |second| (first, second)));
        for (first, second) in pairs {
            // A page can offer no subprotocol that is not ASCII.
            let strange = if second == &WAYS[2] { stranger } else { "\u{e9}" };
            for second_key in [&*other, stranger, strange] {
                let answer = answered(url, &asks.with(&format!("{first}{own}\r\n{second}{second_key}"))).await;
                if answer != "400 several_api_keys" {
                    wrong.push(format!("{first}and {second}at {door}: {answer}"));
                }
            }
            if *asks == Asks::Sends {
                let same = asks.with(&format!("{first}{own}\r\n{second}{own}"));
                let answer = answered(url, &same).await;
                if answer != "202 " {
                    wrong.push(format!("the same as {first}and {second}at {door}: {answer}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(doors.kept().await, 2 * 4, "the same key twice, by four pairs of ways at two doors");
}

#[tokio::test]
async fn no_scope_includes_another() {
    let (redis, cache) = (RedisServer::durable().await, RedisServer::with(&[]).await);
    let scopes = [Scope::Ingest, Scope::Query, Scope::Admin];
    let senders = scopes.map(|scope| Sender::with_scopes(&[scope]));
    for sender in &senders {
        sender.project(&redis).await;
    }
    let door = Door::open(&redis).await;
    let front = Front::of(&door, &cache, &senders.each_ref()).await;
    for (scope, sender) in scopes.iter().zip(&senders) {
        let header = format!("x-api-key: {}", sender.key);
        for url in [&door.url, &front.url] {
            for path in ["/logs", "/data", "/data/", "/data/fast"] {
                let sent = String::from_utf8(Asks::Sends.with(&header)).unwrap().replacen("/logs", path, 1);
                // `/data` waits for its batch to be stored, which nobody does here.
                if *scope != Scope::Ingest {
                    assert_eq!(answered(url, sent.as_bytes()).await, "403 scope_missing", "{scope:?} {path} at {url}");
                }
            }
        }
        if *scope != Scope::Query {
            assert_eq!(answered(&front.url, &Asks::Watches.with(&header)).await, "403 scope_missing", "{scope:?}");
        }
    }
    assert_eq!(answered(&door.url, &Asks::Sends.with(&format!("x-api-key: {}", senders[0].key))).await, "202 ");
}
