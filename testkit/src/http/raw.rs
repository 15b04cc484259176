//! Requests as bytes, for what no HTTP client would send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use api::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A request that every door answers, and the last one of its connection: put behind others it makes the server
/// close, so that all answers are there.
pub const LAST: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Longest wait for the server to close: longer than any answer takes on a busy machine.
const CLOSED: Duration = Duration::from_secs(30);

/// One answer as it came.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Status line and header, in lower case.
    pub head: String,
    /// What follows it.
    pub body: String,
}

impl Answer {
    /// The stable code of a refusal; none where the body is no refusal of ours.
    pub fn code(&self) -> Option<String> {
        Some(Refusal::read(self.body.as_bytes())?.error.code)
    }
}

/// Writes `sent` on a connection of its own and reads until the server closes it.
pub async fn exchange(url: &str, sent: &[u8]) -> anyhow::Result<Vec<Answer>> {
    let stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let (mut read, mut write) = stream.into_split();
    let (mut come, all) = (Vec::new(), sent.to_vec());
    // Beside the reading: a refusal comes before all is written, and the rest may then find nobody.
    let writing = tokio::spawn(async move {
        write.write_all(&all).await.ok();
        write
    });
    timeout(CLOSED, read.read_to_end(&mut come)).await.context("the connection is not closed")?.ok();
    writing.abort();
    answers(&come)
}

/// Takes apart what came on one connection.
fn answers(come: &[u8]) -> anyhow::Result<Vec<Answer>> {
    let (mut rest, mut answers) = (std::str::from_utf8(come)?, Vec::new());
    while !rest.is_empty() {
        let (head, after) = rest.split_once("\r\n\r\n").with_context(|| format!("no end of a head: {rest}"))?;
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.with_context(|| format!("no status: {head}"))?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        anyhow::ensure!(field("transfer-encoding:").is_none(), "an answer in chunks: {head}");
        let length = match field("content-length:") {
            Some(length) => length.parse()?,
            None if status < 200 || status == 204 => 0,
            None => after.len(),
        };
        let body = after.get(..length).with_context(|| format!("an answer is cut: {rest}"))?.to_owned();
        answers.push(Answer { status, head, body });
        rest = &after[length..];
    }
    Ok(answers)
}

/// A socket that will connect from this address of the machine: to a server, a peer of its own.
pub fn socket_from(peer: Ipv4Addr) -> anyhow::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((peer, 0)))?;
    Ok(socket)
}

/// So many bytes of one kind between a beginning and an end, compressed by zstd: a body of some hundred bytes.
pub fn packed(beginning: &[u8], byte: u8, length: u64, end: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
    encoder.write_all(beginning)?;
    std::io::copy(&mut std::io::repeat(byte).take(length), &mut encoder)?;
    encoder.write_all(end)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_on_one_connection_is_taken_apart() {
        let come = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 400 Bad Request\r\n\r\n";
        let come = answers(come.as_bytes()).unwrap();
        let seen: Vec<_> = come.iter().map(|answer| (answer.status, answer.body.as_str())).collect();
        assert_eq!(seen, [(100, ""), (202, "{}"), (400, "")]);
        assert!(answers(b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\n{}").is_err());
    }
}
