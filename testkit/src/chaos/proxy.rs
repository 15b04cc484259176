//! A proxy that stands between the data plane and one store, and breaks what passes through it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::requests::Dice;

/// Longest head and body of a request that is answered here: a `_bulk` has 5 MiB, a part 32.
const MAX_REQUEST: usize = 64 * 1024 * 1024;
/// Of a hundred answers, how many [`Mode::Truncate`] and [`Mode::LoseAnswer`] break: enough that a
/// client meets many, few enough that it gets on.
const BROKEN_PERCENT: u64 = 40;
/// Longest wait for a connection to the store.
const CONNECT: Duration = Duration::from_secs(3);

/// What happens to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Connections are closed at once.
    Refuse,
    /// Connections stay, and nothing passes.
    Stall,
    /// Whatever comes back passes so much later.
    Slow(Duration),
    /// Each HTTP request is answered here, and the store never sees it.
    Answer(u16, &'static str),
    /// Of some answers only so many bytes pass; then the connection ends.
    Truncate(usize),
    /// Some answers never pass: the store has done what it was asked, and nobody knows.
    LoseAnswer,
}

/// The proxy; it ends when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    upstream: Mutex<String>,
    mode: watch::Sender<Mode>,
    /// Connections of an earlier number are cut.
    generation: watch::Sender<u64>,
    /// Of connections of an earlier number nothing passes any more, in no direction, and they stay open.
    vanished: watch::Sender<u64>,
    broken: AtomicU64,
}

impl Proxy {
    /// Passes everything on to `upstream`, a host and a port.
    pub async fn start(upstream: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            mode: watch::Sender::new(Mode::Pass),
            generation: watch::Sender::new(0),
            vanished: watch::Sender::new(0),
            broken: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Ok(Self { address, shared, stop })
    }

    /// From now on; connections that the new mode would never meet are cut.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        if !matches!(mode, Mode::Stall | Mode::Slow(_) | Mode::Pass) {
            self.cut();
        }
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// The machine behind it vanishes without a word: the connections that there are stay open, and nothing passes in
    /// them ever again. New ones are passed on as before.
    pub fn vanish(&self) {
        self.shared.vanished.send_modify(|vanished| *vanished += 1);
    }

    /// The address leads elsewhere from now on. Connections that there are stay where they are.
    pub fn lead_to(&self, upstream: String) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// How many requests or answers were broken so far.
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((client, _)) = accepted else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let (mut generation, mut vanished) = (shared.generation.subscribe(), shared.vanished.subscribe());
            generation.mark_unchanged();
            vanished.mark_unchanged();
            let mut serving = pin!(serve(client, &shared));
            tokio::select! {
                // Whoever is at the other end sees what went wrong.
                _served = &mut serving => {}
                _cut = generation.changed() => {}
                _vanished = vanished.changed() => {
                    // Both sockets stay as they are; nobody reads or writes.
                    generation.changed().await.ok();
                }
            }
        });
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mode = *shared.mode.borrow();
    match mode {
        Mode::Refuse => {
            shared.broken.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        Mode::Answer(status, body) => return answer(&mut client, shared, status, body).await,
        Mode::Pass | Mode::Stall | Mode::Slow(_) | Mode::Truncate(_) | Mode::LoseAnswer => {}
    }
    let upstream = shared.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect(upstream)).await;
    let upstream = connected.map_err(std::io::Error::other)??;
    upstream.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (upstream_read, upstream_write) = upstream.into_split();
    tokio::select! {
        sent = requests(client_read, upstream_write, shared) => sent,
        received = answers(upstream_read, client_write, shared) => received,
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        unstalled(shared).await;
        to.write_all(&buffer[..read]).await?;
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut dice = Dice::new(shared.broken.load(Ordering::Relaxed) ^ 0x5eed);
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        unstalled(shared).await;
        let mode = *shared.mode.borrow();
        if let Mode::Slow(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        let passing = match mode {
            Mode::Truncate(length) if dice.percent(BROKEN_PERCENT) => Some(length.min(read - 1)),
            Mode::LoseAnswer if dice.percent(BROKEN_PERCENT) => Some(0),
            _ => None,
        };
        to.write_all(&buffer[..passing.unwrap_or(read)]).await?;
        if passing.is_some() {
            shared.broken.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
    }
}

/// Waits for as long as nothing may pass.
async fn unstalled(shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    // The sender lives as long as the proxy, whose end cuts this.
    mode.wait_for(|mode| *mode != Mode::Stall).await.ok();
}

/// Reads one HTTP request to its end and answers it.
async fn answer(client: &mut TcpStream, shared: &Shared, status: u16, body: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !is_whole(&request) && request.len() < MAX_REQUEST {
        let read = client.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
    }
    shared.broken.fetch_add(1, Ordering::Relaxed);
    let kind = if body.starts_with('<') { "application/xml" } else { "application/json" };
    let text = format!(
        "HTTP/1.1 {status} Fault\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(text.as_bytes()).await?;
    client.shutdown().await
}

/// Whether a request has its head and as many bytes as the head says.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    request.len() >= end + 4 + length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        address
    }

    async fn exchange(proxy: &Proxy, text: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(proxy.address).await?;
        stream.write_all(text).await?;
        let mut got = vec![0; 1024];
        let read = stream.read(&mut got).await?;
        got.truncate(read);
        Ok(got)
    }

    #[tokio::test]
    async fn what_was_open_when_its_machine_vanished_stays_open_and_silent() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut before = TcpStream::connect(proxy.address).await.unwrap();
        let mut got = [0; 5];
        before.write_all(b"hello").await.unwrap();
        before.read_exact(&mut got).await.unwrap();
        proxy.vanish();
        assert_eq!(exchange(&proxy, b"hello").await.unwrap(), b"hello", "a new connection");
        before.write_all(b"again").await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(200), before.read_exact(&mut got)).await;
        assert!(silent.is_err(), "neither an answer nor an end");
        proxy.cut();
        assert!(before.read_exact(&mut got).await.is_err());
    }

    #[tokio::test]
    async fn a_proxy_passes_refuses_answers_and_cuts() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        assert_eq!(exchange(&proxy, b"hello").await.unwrap(), b"hello");
        proxy.set(Mode::Refuse);
        assert!(exchange(&proxy, b"hello").await.unwrap_or_default().is_empty());
        proxy.set(Mode::Answer(503, "{}"));
        let request = b"POST /_bulk HTTP/1.1\r\nContent-Length: 2\r\n\r\nab";
        let answer = String::from_utf8(exchange(&proxy, request).await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("{}"), "{answer}");
        proxy.set(Mode::Pass);
        let mut open = TcpStream::connect(proxy.address).await.unwrap();
        open.write_all(b"x").await.unwrap();
        assert_eq!(open.read(&mut [0; 8]).await.unwrap(), 1);
        proxy.cut();
        assert_eq!(open.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert!(proxy.broken() >= 2);
    }

    #[tokio::test]
    async fn a_stalled_proxy_passes_nothing_until_it_goes_on() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        proxy.set(Mode::Stall);
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"late").await.unwrap();
        let mut got = [0; 4];
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut got)).await;
        assert!(early.is_err());
        proxy.set(Mode::Pass);
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"late");
    }

    #[tokio::test]
    async fn a_slow_proxy_passes_answers_late() {
        let (proxy, delay) = (Proxy::start(echo().await).await.unwrap(), Duration::from_millis(100));
        proxy.set(Mode::Slow(delay));
        let begun = std::time::Instant::now();
        assert_eq!(exchange(&proxy, b"late").await.unwrap(), b"late");
        assert!(begun.elapsed() >= delay);
    }

    #[test]
    fn a_request_is_whole_with_its_body() {
        for (request, expected) in [
            ("", false),
            ("GET / HTTP/1.1\r\n", false),
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", false),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", true),
        ] {
            assert_eq!(is_whole(request.as_bytes()), expected, "{request:?}");
        }
    }
}
