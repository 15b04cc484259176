//! HTTP/1.1 on one kept-alive connection, with nothing that costs: a request that is ready as bytes
//! goes out in one write, and of the answer only its status, its length and its body are looked at.
//! The generator shares the cores with what it measures.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer that is taken: a `_bulk` of 2,000 documents answers with less.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// A connection; one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What was answered.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(2048) })
    }

    /// Sends a whole request and reads its answer. After an error the connection is of no use.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await.context("send a request")?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await?;
        };
        let (status, length) = head_of(&self.buffer[..head])?;
        ensure!(length <= MAX_ANSWER, "an answer of {length} bytes");
        while self.buffer.len() < head + length {
            self.read().await?;
        }
        Ok(Answer { status, body: &self.buffer[head..head + length] })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        ensure!(self.buffer.len() <= 2 * MAX_ANSWER, "an endless answer");
        if self.stream.read_buf(&mut self.buffer).await.context("read an answer")? == 0 {
            bail!("the connection was closed");
        }
        Ok(())
    }
}

/// Writes a request's head for a body of unknown length; [`end`] fills the length in. Gives back
/// where it goes.
pub(crate) fn begin(out: &mut Vec<u8>, path: &str, headers: &str) -> usize {
    out.clear();
    out.extend_from_slice(b"POST ");
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: bench\r\n");
    out.extend_from_slice(headers.as_bytes());
    out.extend_from_slice(b"content-length: ");
    let at = out.len();
    out.extend_from_slice(b"0000000000\r\n\r\n");
    at
}

/// Fills in the length of the body that was appended since [`begin`].
pub(crate) fn end(out: &mut [u8], at: usize) {
    let length = out.len() - (at + 14);
    out[at..at + 10].copy_from_slice(format!("{length:010}").as_bytes());
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Status and length of the body.
fn head_of(head: &[u8]) -> anyhow::Result<(u16, usize)> {
    let text = std::str::from_utf8(head).context("the head of an answer")?;
    let status = text.get(9..12).and_then(|code| code.parse().ok()).with_context(|| format!("no status: {text}"))?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    match (status, length) {
        (_, Some(length)) => Ok((status, length)),
        (204, None) => Ok((status, 0)),
        _ => bail!("an answer without a length: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_its_length() {
        let mut out = Vec::new();
        let at = begin(&mut out, "/logs", "authorization: Bearer k\r\n");
        out.extend_from_slice(b"{}\n");
        end(&mut out, at);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "POST /logs HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer k\r\ncontent-length: 0000000003\r\n\r\n{}\n"
        );
    }

    #[test]
    fn an_answers_head_is_read() {
        for (head, expected) in [
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 7\r\n\r\n", Some((202, 7))),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some((204, 0))),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", None),
        ] {
            assert_eq!(head_of(head.as_bytes()).ok(), expected, "{head}");
        }
    }
}
