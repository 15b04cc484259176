//! WebSocket frames that no honest client sends.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::gateway;
use super::tail::{SOON, event, frame, open, publish};
use crate::house::{House, Served};

/// Sockets that a tenant may have at once.
const PLACES: usize = 100;

/// A client's frame as it should be, masked with zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ ..126 => vec![0x80 | short as u8],
        long => [&[0x80 | 126][..], &(long as u16).to_be_bytes()].concat(),
    };
    [&[first][..], &length, &[0; 4], payload].concat()
}

/// The beginning of a frame that says to be so long.
fn declared(length: u64) -> Vec<u8> {
    [&[0x82, 0x80 | 127][..], &length.to_be_bytes(), &[0; 4], b"and so on"].concat()
}

/// Upgrades, takes the greeting, sends these bytes, and gives back whether the server then closed.
async fn closed_after(front: &Served, key: &str, sent: &[u8]) -> anyhow::Result<bool> {
    let mut socket = TcpStream::connect(front.url.trim_start_matches("http://")).await?;
    let upgrade = format!(
        "GET /ws/logs HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-extensions: permessage-deflate\r\n\
         origin: https://evil.example\r\nx-api-key: {key}\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).await?;
    let mut come = Vec::new();
    while !come.ends_with(br#"{"type":"ready"}"#) {
        ensure!(timeout(SOON, socket.read_buf(&mut come)).await?? > 0, "{}", String::from_utf8_lossy(&come));
    }
    let head = String::from_utf8_lossy(&come).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 101") && !head.contains("sec-websocket-extensions"), "{head}");
    socket.write_all(sent).await?;
    Ok(timeout(Duration::from_secs(10), socket.read_to_end(&mut come)).await.is_ok())
}

#[tokio::test]
async fn a_broken_frame_ends_its_socket_and_nothing_else() -> anyhow::Result<()> {
    let house = House::new().await?;
    let front = gateway(&house, None, &CancellationToken::new()).await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let mut cache = house.stores.cache()?.connection()?;
    let mut theirs = open(&front, "", Some(&other.key)).await.unwrap();
    assert_eq!(frame(&mut theirs).await?["type"], "ready");
    let many = [masked(0x02, &[b'x'; 3000]), masked(0x80, &[b'x'; 3000])].concat();
    let cases = [
        ("not masked", b"\x81\x02hi".to_vec()),
        ("RSV1, as compressed", masked(0xc1, b"hi")),
        ("RSV2", masked(0xa1, b"hi")),
        ("RSV3", masked(0x91, b"hi")),
        ("a reserved opcode", masked(0x83, b"hi")),
        ("a reserved control opcode", masked(0x8b, b"hi")),
        ("4,097 bytes", masked(0x82, &[b'x'; 4097])),
        ("4,097 bytes, of which few come", declared(4097)),
        ("16 MiB, of which few come", declared(1 << 24)),
        ("2^62 declared", declared(1 << 62)),
        ("2^63 declared", declared(1 << 63)),
        ("a continuation of nothing", masked(0x80, b"hi")),
        ("a message within a message", [masked(0x01, b"hi"), masked(0x81, b"hi")].concat()),
        ("fragments of 6,000 bytes", many),
        ("a ping in fragments", masked(0x09, b"hi")),
        ("a ping of 126 bytes", masked(0x89, &[b'x'; 126])),
        ("text that is none", masked(0x81, b"\xff\xfe")),
        ("half a surrogate", masked(0x81, b"\xed\xa0\x80")),
        ("a close code of one byte", masked(0x88, b"\x03")),
        ("a close code that is none", masked(0x88, &1005u16.to_be_bytes())),
        ("a reason that is no text", masked(0x88, b"\x03\xe8\xff")),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
    ];
    // Each several times: a place that is not given back is missing in the end.
    for round in 0..PLACES.div_ceil(cases.len()) + 1 {
        for (name, sent) in &cases {
            ensure!(closed_after(&front, &own.key, sent).await?, "{name}, round {round}: still open");
        }
    }
    publish(&mut cache, &other.tenant, &[event("api", "INFO", "theirs")]).await?;
    assert_eq!(frame(&mut theirs).await?["event"]["message"], "theirs", "another tenant's tail goes on");

    let mut held = Vec::new();
    for _ in 0..PLACES {
        let place = testkit::eventually("a place is given back", SOON, async || {
            open(&front, "", Some(&own.key)).await.map_err(|refused| anyhow::anyhow!("{refused:?}"))
        });
        held.push(place.await?);
    }
    assert_eq!(open(&front, "", Some(&own.key)).await.map(drop).unwrap_err().0, 429);
    let mut second = open(&front, "", Some(&other.key)).await.unwrap();
    assert_eq!(frame(&mut second).await?, json!({"type": "ready"}), "another tenant is admitted meanwhile");
    house.retire().await
}
