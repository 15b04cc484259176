//! The lines that are sent: made up by our own templates to look like those of real services, some
//! 292 bytes each, with numbers, addresses and ids that vary.
//!
//! They are rendered once, before anything is measured. To send one, it is copied, and its time and
//! its trace id are written over, so that no two events are the same and no dictionary is flattered.

use std::fmt::Write;

use uuid::Uuid;

use crate::random::Random;

/// Distinct lines.
pub(crate) const LINES: usize = 100_000;
/// Length of a time as [`dataplane::event::rfc3339`] writes it.
pub(crate) const TIME: usize = 27;

/// What is written over in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fresh {
    /// The time of sending.
    Time,
    /// The time of sending, in nanoseconds since 1970, 19 digits.
    Nanos,
    /// An id as 32 hexadecimal digits.
    Trace,
    /// An event's id, hyphenated.
    Id,
    /// The id of the request's batch, hyphenated.
    Batch,
}

/// Stands in a rendered text where [`Fresh`] values go.
pub(crate) const TIME_MARK: &str = "2026-01-01T00:00:00.000000Z";
pub(crate) const NANOS_MARK: &str = "1767225600000000000";
pub(crate) const TRACE_MARK: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// Many rendered texts, and where each of them is written over.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    texts: Vec<Text>,
    patches: Vec<(u32, Fresh)>,
}

#[derive(Debug)]
struct Text {
    start: u32,
    end: u32,
    first_patch: u32,
    end_patch: u32,
}

/// What one request writes over its copies.
pub(crate) struct Stamp<'a> {
    pub(crate) time: &'a str,
    pub(crate) nanos: &'a str,
    pub(crate) batch: Uuid,
    pub(crate) random: &'a Random,
    /// Milliseconds since 1970, the front of an event's id.
    pub(crate) millis: u64,
}

impl Texts {
    /// Adds a text, with each place of these marks to be written over.
    pub(crate) fn push(&mut self, text: &[u8], marks: &[(&str, Fresh)]) {
        let first_patch = self.patches.len() as u32;
        for (mark, fresh) in marks {
            let places = text.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark.as_bytes());
            self.patches.extend(places.map(|(at, _)| (at as u32, *fresh)));
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        let (end, end_patch) = (self.bytes.len() as u32, self.patches.len() as u32);
        self.texts.push(Text { start, end, first_patch, end_patch });
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text as it was rendered.
    pub(crate) fn get(&self, at: usize) -> &[u8] {
        let text = &self.texts[at % self.texts.len()];
        &self.bytes[text.start as usize..text.end as usize]
    }

    pub(crate) fn mean_bytes(&self) -> f64 {
        self.bytes.len() as f64 / self.texts.len() as f64
    }

    /// Appends `count` texts from `first` on, written over.
    pub(crate) fn copy(&self, first: usize, count: usize, stamp: &Stamp<'_>, out: &mut Vec<u8>) {
        for at in first..first + count {
            let text = &self.texts[at % self.texts.len()];
            let begin = out.len();
            out.extend_from_slice(&self.bytes[text.start as usize..text.end as usize]);
            // Both the action and the document of an event carry its id.
            let id = uuid::Builder::from_unix_timestamp_millis(stamp.millis, &ten_bytes(stamp.random)).into_uuid();
            for (place, fresh) in &self.patches[text.first_patch as usize..text.end_patch as usize] {
                let to = &mut out[begin + *place as usize..];
                match fresh {
                    Fresh::Time => to[..TIME].copy_from_slice(stamp.time.as_bytes()),
                    Fresh::Nanos => to[..19].copy_from_slice(stamp.nanos.as_bytes()),
                    Fresh::Trace => {
                        id.simple().encode_lower(to);
                    }
                    Fresh::Id => {
                        id.hyphenated().encode_lower(to);
                    }
                    Fresh::Batch => {
                        stamp.batch.hyphenated().encode_lower(to);
                    }
                }
            }
        }
    }
}

fn ten_bytes(random: &Random) -> [u8; 10] {
    let (a, b) = (random.next().to_be_bytes(), random.next().to_be_bytes());
    [a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1]]
}

/// The NDJSON lines of every scenario.
pub(crate) fn lines() -> Texts {
    let random = Random::new(20_260_101);
    let mut texts = Texts::default();
    for _ in 0..LINES {
        let line = format!("{}\n", line(&random));
        texts.push(line.as_bytes(), &[(TIME_MARK, Fresh::Time), (TRACE_MARK, Fresh::Trace)]);
    }
    texts
}

/// One event; its fields' order is that of most loggers.
fn line(random: &Random) -> String {
    let (service, level, template) = *random.pick(&TEMPLATES);
    let message = serde_json::Value::String(fill(template, random));
    format!(
        r#"{{"timestamp":"{TIME_MARK}","level":"{level}","service":"{service}","host":"node-{:03}","trace_id":"{TRACE_MARK}","message":{message}}}"#,
        random.below(40)
    )
}

/// A template with each `{…}` filled in.
fn fill(template: &str, random: &Random) -> String {
    let mut text = String::with_capacity(200);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((name, behind)) = after.split_once('}') else { break };
        let n = |bound| random.below(bound);
        // Writing to a text does not fail.
        let _written = match name {
            "n" => write!(text, "{}", n(10_u64.pow(1 + n(6) as u32))),
            "ms" => write!(text, "{}.{:03}", n(40) * n(40), n(1000)),
            "ip" => write!(text, "10.{}.{}.{}", n(8), n(256), 1 + n(254)),
            "port" => write!(text, "{}", 1024 + n(64_000)),
            "hex" => write!(text, "{:08x}", n(1 << 32)),
            "long" => write!(text, "{}", n(1 << 63)),
            "id" => write!(text, "{}", Uuid::from_u64_pair(random.next(), random.next())),
            "user" => write!(text, "{}{}", random.pick(&USERS), n(400)),
            "path" => write!(text, "{}/{}/{}", random.pick(&PATHS), n(9_000), random.pick(&LEAVES)),
            "word" => write!(text, "{}", random.pick(&LEAVES)),
            other => write!(text, "{other}"),
        };
        rest = behind;
    }
    text.push_str(rest);
    text
}

const USERS: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];
const PATHS: [&str; 6] =
    ["/api/v2/orders", "/api/v2/customers", "/static/assets", "/api/v1/carts", "/internal/jobs", "/search/items"];
const LEAVES: [&str; 12] = [
    "items",
    "invoice",
    "summary",
    "address",
    "payment",
    "history",
    "labels",
    "status",
    "thumbnail",
    "events",
    "preferences",
    "refunds",
];

/// Service, level and message of what is logged, about as often as services log it.
const TEMPLATES: [(&str, &str, &str); 24] = [
    (
        "edge",
        "INFO",
        r#"{ip} - {user} "GET {path}?page={n}&session={hex} HTTP/1.1" 200 {n} "-" "Mozilla/5.0 (X11; Linux) Gecko/20100101" {ms}"#,
    ),
    (
        "edge",
        "INFO",
        r#"{ip} - - "POST {path} HTTP/1.1" 201 {n} "https://shop.example.com{path}" "okhttp/4.12.0" upstream={ip}:{port} {ms}"#,
    ),
    ("edge", "WARN", r#"{ip} - {user} "GET {path} HTTP/1.1" 404 {n} "-" "curl/8.5.0" request_id={id} upstream=- {ms}"#),
    (
        "checkout",
        "INFO",
        "order {id} placed by customer {n}: {n} items, total {n} cents, payment method card ending {n}, took {ms} ms",
    ),
    (
        "checkout",
        "INFO",
        "reserved stock for order {id}: warehouse {n}, {n} lines, shelf {hex}, expires in 900 seconds, attempt 1",
    ),
    (
        "checkout",
        "WARN",
        "payment provider answered slowly for order {id}: {ms} ms over the budget of 800 ms, will be retried as {hex}",
    ),
    (
        "checkout",
        "ERROR",
        "payment for order {id} refused: provider code {n}, customer {n}, correlation {hex}, next attempt in {n} seconds",
    ),
    (
        "blocks",
        "INFO",
        "Receiving block blk_{long} src: /{ip}:{port} dest: /{ip}:{port} of size {n} from pipeline of three",
    ),
    (
        "blocks",
        "INFO",
        "PacketResponder {n} for block blk_{long} terminating after {n} packets, mirror /{ip}:{port}, checksum {hex}",
    ),
    (
        "blocks",
        "INFO",
        "BLOCK* allocated /user/{user}/{word}/part-{n}.parquet blk_{long} generation {n} on {ip}:{port} and two more nodes",
    ),
    (
        "blocks",
        "WARN",
        "slow flush of block blk_{long} to disk cost {ms} ms (threshold 300 ms), volume /data/{n}, queue depth {n}, peer {ip}",
    ),
    (
        "sshd",
        "INFO",
        "Failed password for invalid user {user} from {ip} port {port} ssh2, {n} attempts since the connection was opened",
    ),
    (
        "sshd",
        "INFO",
        "pam_unix(sshd:session): session opened for user {user}(uid={n}) by (uid=0), tty pts/{n}, remote host {ip}",
    ),
    (
        "kernel",
        "INFO",
        "[{n}.{n}] TCP: request_sock_TCP: Possible SYN flooding on port {port}. Sending cookies, from {ip} on eth{n}",
    ),
    (
        "scheduler",
        "INFO",
        "Started task {n}.0 in stage {n}.0 (TID {n}) on executor {n} at {ip}:{port}, PROCESS_LOCAL, {n} bytes",
    ),
    (
        "scheduler",
        "INFO",
        "Finished task {n}.0 in stage {n}.0 (TID {n}) in {ms} ms on {ip} (executor {n}), {n} of {n} complete, peak memory {n} bytes",
    ),
    (
        "postgres",
        "LOG",
        "duration: {ms} ms  execute <unnamed>: SELECT id, state, updated_at FROM orders WHERE customer_id = {n} AND state <> 'closed' LIMIT {n}",
    ),
    (
        "postgres",
        "LOG",
        "checkpoint complete: wrote {n} buffers (1.2%); {n} WAL files added, {n} removed; write={ms} s, sync={ms} s, lsn=2/{hex}",
    ),
    (
        "kubelet",
        "INFO",
        "probe succeeded for pod default/{word}-{hex}-{n}, container {word}, http://{ip}:{port}/healthz, took {ms} ms, node ready",
    ),
    (
        "kubelet",
        "WARN",
        "Readiness probe failed for pod shop/{word}-{hex}: Get http://{ip}:{port}/ready: context deadline exceeded after {ms} ms",
    ),
    (
        "mail",
        "INFO",
        "delivered message {id} to {user}@example.com via mx{n}.example.net[{ip}]:25, delay={ms}, status=sent (250 ok {hex})",
    ),
    (
        "inventory",
        "DEBUG",
        "cache miss for key stock:{n}:{hex}, loaded {n} rows in {ms} ms from replica {ip}, expires in {n} seconds, generation {n}",
    ),
    (
        "inventory",
        "ERROR",
        "java.lang.IllegalStateException: stock of item {n} is negative ({n}) after update {id}\n\tat com.example.Stock.apply(Stock.java:{n})",
    ),
    (
        "gateway",
        "INFO",
        "forwarded {path} for tenant {user} to {ip}:{port} in {ms} ms, request bytes {n}, response bytes {n}, retries 0, h2 stream {n}",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_of_the_intended_length_and_no_two_copies_are_alike() {
        let random = Random::new(1);
        let mut texts = Texts::default();
        for _ in 0..2000 {
            let line = format!("{}\n", line(&random));
            texts.push(line.as_bytes(), &[(TIME_MARK, Fresh::Time), (TRACE_MARK, Fresh::Trace)]);
        }
        assert!((280.0..304.0).contains(&texts.mean_bytes()), "{}", texts.mean_bytes());
        let time = "2026-11-21T09:00:00.123456Z";
        let stamp = Stamp { time, nanos: "1767225600000000001", batch: Uuid::nil(), random: &random, millis: 1 };
        let mut copies = Vec::new();
        texts.copy(1999, 2, &stamp, &mut copies);
        texts.copy(1999, 1, &stamp, &mut copies);
        let copies: Vec<serde_json::Value> = copies
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(copies.len(), 3);
        assert_eq!(copies[0]["message"], copies[2]["message"]);
        assert_ne!(copies[0]["trace_id"], copies[2]["trace_id"]);
        assert!(copies.iter().all(|copy| copy["timestamp"] == time && copy["trace_id"] != TRACE_MARK));
    }
}
