//! Somebody at ingest's door who means harm: connections that do nothing, and small bodies that are large refusals.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Struck;
use crate::chaos::house::House;
use crate::chaos::load::Load;
use crate::http::raw::{packed, socket_from};

/// Connections that are opened and say nothing.
const IDLE: usize = 10_000;
/// Addresses that they come from.
const PEERS: usize = 40;
/// How long they stay: some looks of a probe.
const STAY: Duration = Duration::from_secs(15);
/// Connections begun at once.
const AT_ONCE: usize = 200;

/// The chart's limit of an ingest pod.
const MEMORY_LIMIT: u64 = 1024 * 1024 * 1024;
/// Bodies sent at once, and how many in all.
const BODIES_AT_ONCE: usize = 8;
const BODIES: usize = 32;
/// What each is when it is unpacked: the most that ingest unpacks.
const UNPACKED: u64 = 20 * 1024 * 1024;
/// Longest answer to any of them.
const REFUSAL: usize = 4 * 1024;

/// Opens the connections, and sees whether others are served, and probes answered, while they are there.
pub(super) async fn idle(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let target: SocketAddr = address(house)?;
    let deaths = house.child("ingest-0")?.deaths();
    let opened: Vec<TcpStream> = futures::stream::iter(0..IDLE)
        .map(|number| connect(target, number % PEERS))
        .buffer_unordered(AT_ONCE)
        .filter_map(|opened| std::future::ready(opened.ok()))
        .collect()
        .await;
    let before = load.sender.answers.accepted();
    house.ready().await.context("while they are there")?;
    tokio::time::sleep(STAY).await;
    house.ready().await.context("after a while")?;
    let accepted = load.sender.answers.accepted() - before;
    let died = house.child("ingest-0")?.deaths() - deaths;
    let open = opened.iter().filter(|stream| is_open(stream)).count();
    let mut struck = Struck::default();
    struck.note(opened.len() == IDLE, format!("{} of {IDLE} connections came in", opened.len()));
    struck.note(open < IDLE, format!("{open} were still open after {STAY:?}"));
    struck.note(accepted > 0, format!("{accepted} requests accepted meanwhile"));
    struck.note(died == 0, format!("ingest ended {died} times"));
    Ok(struck)
}

async fn connect(target: SocketAddr, peer: usize) -> anyhow::Result<TcpStream> {
    let last = u8::try_from(peer + 1).context("a peer's address")?;
    Ok(socket_from(Ipv4Addr::new(127, 0, 1, last))?.connect(target).await?)
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Sends small bodies that unpack to one long string where an event is expected, and takes the answers slowly.
pub(super) async fn memory(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let target = address(house)?;
    let deaths = house.child("ingest-0")?.deaths();
    let before = load.sender.answers.accepted();
    // `["…"]`, of bytes that take six when they are printed and seven in JSON.
    let body = packed(b"[\"", 0x7f, UNPACKED - 8, b"\"]")?;
    let mut longest = 0;
    for _ in 0..BODIES / BODIES_AT_ONCE {
        let answers = join_all((0..BODIES_AT_ONCE).map(|_| refused(target, &house.tenants[0].key, &body))).await;
        for answer in answers {
            longest = longest.max(answer?.len());
        }
    }
    let accepted = load.sender.answers.accepted() - before;
    let most = house.child("ingest-0")?.most_memory()?;
    let died = house.child("ingest-0")?.deaths() - deaths;
    let mut struck = Struck::default();
    struck
        .note(longest <= REFUSAL, format!("{BODIES} bodies of {} bytes: the longest answer has {longest}", body.len()));
    struck.note(most < MEMORY_LIMIT, format!("ingest held {} MiB at most", most / 1024 / 1024));
    struck.note(accepted > 0, format!("{accepted} requests accepted meanwhile"));
    struck.note(died == 0, format!("ingest ended {died} times"));
    Ok(struck)
}

/// Sends the body, and gives back the answer, which has to be a refusal.
async fn refused(target: SocketAddr, key: &str, body: &[u8]) -> anyhow::Result<String> {
    let mut socket = connect(target, 0).await?;
    let head = format!(
        "POST /logs HTTP/1.1\r\nhost: {target}\r\nauthorization: Bearer {key}\r\ncontent-encoding: zstd\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body).await?;
    let mut answer = Vec::new();
    let mut some = [0; 256];
    loop {
        let read = socket.read(&mut some).await?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&some[..read]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status: u16 = answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
    // It may have no memory to spare right now.
    ensure!(matches!(status, 400 | 413 | 503), "{answer}");
    ensure!(!answer.contains("\\u007f") && !answer.contains('\u{7f}'), "what was sent comes back");
    Ok(answer)
}

fn address(house: &House) -> anyhow::Result<SocketAddr> {
    Ok(house.ingest[0].trim_start_matches("http://").parse()?)
}
