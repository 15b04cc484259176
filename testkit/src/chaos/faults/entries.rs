//! What should never stand in the queue, and what stands there twice.

use anyhow::{Context, ensure};
use crds::names::Lane;
use dataplane::queue::entry::Fields;
use runtime::stores::Connection;
use uuid::Uuid;

use super::{STRIKE, Struck};
use crate::chaos::house::House;
use crate::eventually;
use crate::http::Door;
use crate::ledger::audit::Promise;
use crate::ledger::journal::Fate;

/// Entries copied for one round of duplicates.
const COPIED: usize = 20;
/// Lines of the request with a bad one.
const LINES: usize = 1000;

/// Number of requests that are not the load's, far above its own.
const BY_HAND: u64 = 1 << 40;

/// Adds entries that can't be read, and sends a request with one line of a thousand that the stages
/// refuse. Each is a dead letter with its bytes, and everything else goes on.
pub(super) async fn poison(house: &House) -> anyhow::Result<Struck> {
    let mut struck = Struck::default();
    let mut connection = house.redis.connection()?;
    let tenant = house.tenants[0].desired.name();
    let lane = house.pipeline.lane(tenant);
    let of = |name: &str| name.as_bytes().to_vec();
    let garbage: [&[(&str, &[u8])]; 4] = [
        &[("v", b"1"), ("t", tenant.as_str().as_bytes()), ("n", b"3"), ("h", b"\xff\xff\xff\xff"), ("p", b"x")],
        &[("v", b"99"), ("t", tenant.as_str().as_bytes()), ("n", b"1"), ("h", b"\x00"), ("p", b"from the future")],
        &[
            ("v", b"1"),
            ("t", tenant.as_str().as_bytes()),
            ("n", b"1"),
            ("h", b"\x00"),
            ("p", b"\x28\xb5\x2f\xfdgarbage"),
        ],
        &[("v", b"1"), ("t", b"Nobody!"), ("n", b"1"), ("h", b"\x00"), ("p", b"nobody's")],
    ];
    for fields in garbage {
        let fields: Fields = fields.iter().map(|(name, value)| (of(name), value.to_vec())).collect();
        add(&mut connection, &lane, &fields).await?;
        if fields[1].1 == tenant.as_str().as_bytes() {
            struck.promises.push(Promise {
                request: BY_HAND + struck.promises.len() as u64,
                tenant: 0,
                // It never had a batch: the bytes tell it.
                fate: Fate::Accepted { batch_id: Uuid::nil() },
                lines: vec![(as_kept(&fields), true)],
            });
        }
    }
    struck.promises.push(one_bad_of_many(house).await?);
    let quarantined = eventually("the entry of nobody is in quarantine", STRIKE, || async {
        let quarantined: u64 = house.redis.command(&["XLEN", &lane.quarantine()]).await?;
        ensure!(quarantined > 0, "it is not");
        Ok(quarantined)
    })
    .await?;
    struck.note(quarantined == 1, format!("{quarantined} in quarantine"));
    Ok(struck)
}

/// An entry that can't be read, as its dead letter keeps it: every field, with name and length.
fn as_kept(fields: &Fields) -> Vec<u8> {
    let mut kept = Vec::new();
    for (name, value) in fields {
        kept.extend_from_slice(format!("{} {}\n", name.escape_ascii(), value.len()).as_bytes());
        kept.extend_from_slice(value);
        kept.push(b'\n');
    }
    kept
}

async fn one_bad_of_many(house: &House) -> anyhow::Result<Promise> {
    let lines: Vec<(Vec<u8>, bool)> = (0..LINES)
        .map(|n| match n {
            500 => (br#"{"message":"never ended, by hand"#.to_vec(), true),
            _ => (format!(r#"{{"message":"by hand, line {n} of {LINES}"}}"#).into_bytes(), false),
        })
        .collect();
    let body: Vec<String> = lines.iter().map(|(line, _)| String::from_utf8_lossy(line).into_owned()).collect();
    let door = Door::at(&house.ingest[0], &house.ingest[0])?.with_key(&house.tenants[0].key);
    let accepted = door.send_lines(&body.join("\n")).await?;
    ensure!(accepted.accepted + accepted.rejected == LINES as u64, "{accepted:?}");
    Ok(Promise { request: BY_HAND << 1, tenant: 0, fate: Fate::Accepted { batch_id: accepted.batch_id }, lines })
}

/// Adds copies of entries that wait, so that each is delivered twice, to two processors if it so happens.
pub(super) async fn duplicates(house: &House) -> anyhow::Result<Struck> {
    let mut connection = house.redis.connection()?;
    let mut copied = 0;
    for _ in 0..4 {
        let processors = [house.child("process-0")?, house.child("process-1")?];
        for processor in processors {
            processor.signal("STOP").await?;
        }
        let done = copy_waiting(house, &mut connection).await;
        for processor in processors {
            processor.signal("CONT").await?;
        }
        copied += done?;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let mut struck = Struck::default();
    struck.note(copied > 0, format!("{copied} entries added once more"));
    Ok(struck)
}

/// Waits for entries and copies them.
async fn copy_waiting(house: &House, connection: &mut Connection) -> anyhow::Result<usize> {
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let mut copied = 0;
    for lane in house.pipeline.lanes() {
        type Entry = (String, Fields);
        let entries: Vec<Entry> = redis::cmd("XRANGE")
            .arg(lane.stream())
            .arg(&["-", "+", "COUNT"])
            .arg(COPIED)
            .query_async(connection)
            .await
            .context("read what waits")?;
        for (_, fields) in &entries {
            add(connection, &lane, fields).await?;
        }
        copied += entries.len();
    }
    Ok(copied)
}

/// Adds an entry as ingest does: with its share of the counters.
async fn add(connection: &mut Connection, lane: &Lane, fields: &Fields) -> anyhow::Result<()> {
    let field = |wanted: &[u8]| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_slice());
    let events: u64 = std::str::from_utf8(field(b"n").unwrap_or(b"0"))?.parse()?;
    let bytes = field(b"p").map_or(0, <[u8]>::len);
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("XADD").arg(lane.stream()).arg("*");
    for (name, value) in fields {
        pipe.arg(name.as_slice()).arg(value.as_slice());
    }
    pipe.cmd("INCRBY").arg(lane.events_counter()).arg(events);
    pipe.cmd("INCRBY").arg(lane.bytes_counter()).arg(bytes);
    let _: redis::Value = pipe.query_async(connection).await.context("add an entry")?;
    Ok(())
}
