//! The queue's Redis: killed, its file cut, its disk failing or full, its memory full. No 202 may come that
//! is not on disk, and none that came may be forgotten.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

use super::{STRIKE, Struck};
use crate::chaos::house::House;
use crate::chaos::load::Load;
use crate::chaos::small_disk;
use crate::eventually;

/// After this, an answer that left before the fault has arrived.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// How long Redis stays away.
const AWAY: Duration = Duration::from_millis(1500);
/// Rounds of cutting: not every race is won.
const TAIL_ROUNDS: usize = 6;
/// Memory beyond what an empty Redis takes: some seconds of bulky requests.
const ROOM: u64 = 24 * 1024 * 1024;

pub(super) async fn killed(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let mut dice = house.dice(3);
    let mut struck = Struck::default();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500 + dice.below(500))).await;
        house.redis.kill().await?;
        no_promise(load, &mut struck).await;
        house.redis.restart().await?;
        accepts_again(load).await?;
    }
    Ok(struck)
}

/// Waits until requests are accepted that were sent from now on.
pub(super) async fn accepts_again(load: &Load) -> anyhow::Result<()> {
    let answers = &load.sender.answers;
    let before = answers.accepted();
    eventually("ingest accepts again by itself", STRIKE, || async {
        ensure!(answers.accepted() >= before + 20, "{} since", answers.accepted() - before);
        Ok(())
    })
    .await
}

/// Watches that nothing is promised while Redis can't keep it.
async fn no_promise(load: &Load, struck: &mut Struck) {
    tokio::time::sleep(IN_FLIGHT).await;
    let before = load.sender.answers.accepted();
    tokio::time::sleep(AWAY).await;
    let promised = load.sender.answers.accepted() - before;
    struck.note(promised == 0, format!("{promised} requests accepted without Redis"));
}

/// Waits until the file has something that nobody was promised, as far as can be told in time.
async fn written_beyond(house: &House, promised: u64) -> anyhow::Result<()> {
    for _ in 0..500 {
        if house.redis.tail_length()? > promised {
            break;
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    Ok(())
}

/// Cuts the file somewhere behind the last 202, as a power cut may that finds unsynced pages.
pub(super) async fn tail_cut(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let mut dice = house.dice(4);
    let mut struck = Struck::default();
    let mut cuts = 0;
    for _ in 0..TAIL_ROUNDS {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let _silence = load.silence().await;
        for _ in 0..5 {
            load.sender.send_next().await?;
        }
        let promised = house.redis.tail_length()?;
        // On their way when the power goes: nobody has their 202.
        let racing: Vec<_> = (0..3)
            .map(|_| {
                let sender = load.sender.clone();
                tokio::spawn(async move { sender.send_next().await })
            })
            .collect();
        written_beyond(house, promised).await?;
        house.redis.kill().await?;
        let mut accepted = 0;
        for racer in racing {
            accepted += u64::from(racer.await??);
        }
        let length = house.redis.tail_length()?;
        // With a 202 among the racers, nobody knows where the promised part ends.
        let kept = if accepted > 0 { length } else { promised + dice.below(length - promised + 1) / 2 };
        house.redis.cut_tail(kept)?;
        house.redis.restart().await?;
        if length > kept {
            cuts += 1;
            struck.seen.push(format!("cut {} of {} bytes behind the last 202", length - kept, length - promised));
        }
    }
    struck.note(cuts > 0, format!("{cuts} cuts"));
    Ok(struck)
}

/// Every fsync fails: Redis must not answer, so ingest must not promise.
pub(super) async fn sync_fails(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let mut struck = Struck::default();
    let pid = house.redis.pid().await.context("Redis runs")?;
    let (mut tracer, before) = {
        let _silence = load.silence().await;
        (fail_syncs(pid).await?, load.sender.answers.accepted())
    };
    let ended = house.redis.ended(STRIKE).await;
    tokio::time::sleep(AWAY).await;
    let promised = load.sender.answers.accepted() - before;
    tracer.kill().await.context("end strace")?;
    house.redis.restart().await?;
    ended.context("Redis goes on though it can't write to its disk")?;
    struck.note(promised == 0, format!("{promised} requests accepted while fsync fails"));
    Ok(struck)
}

/// From its return on, every fsync of the process fails with EIO.
async fn fail_syncs(pid: u32) -> anyhow::Result<Child> {
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync,fsync",
        "-e",
        "inject=fdatasync,fsync:error=EIO",
    ]);
    strace.args(["-p", &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let tracer = strace.spawn().context("run strace: `apt-get install strace`")?;
    eventually("strace is attached", STRIKE, || async {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // Redis may have met its first failure already, and be gone.
        let ended = status.is_empty() || status.contains("State:\tZ");
        ensure!(ended || !status.contains("TracerPid:\t0"), "not yet");
        Ok(())
    })
    .await?;
    Ok(tracer)
}

/// Its disk is full: Redis ends rather than answer what it could not write, each time that it is started again. With room,
/// it goes on from what it had written.
pub(super) async fn disk_full(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let disk = house.redis.small_disk.as_ref().context("Redis has no small disk")?;
    small_disk::fill(disk.path())?;
    let refused = while_full(house, load).await;
    small_disk::make_room(disk.path())?;
    let struck = refused?;
    house.redis.restart().await?;
    accepts_again(load).await?;
    Ok(struck)
}

async fn while_full(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let mut struck = Struck::default();
    house.redis.ended(STRIKE).await.context("Redis goes on though its disk is full")?;
    no_promise(load, &mut struck).await;
    for _ in 0..2 {
        house.redis.spawn().await?;
        house.redis.ended(STRIKE).await.context("Redis, started again, goes on though its disk is full")?;
    }
    no_promise(load, &mut struck).await;
    Ok(struck)
}

/// Fills Redis while no processor takes anything out, and lets them take it out again.
pub(super) async fn full(house: &House, load: &Load) -> anyhow::Result<Struck> {
    let processors = [house.child("process-0")?, house.child("process-1")?];
    for processor in processors {
        processor.signal("STOP").await?;
    }
    let memory: String = house.redis.command(&["INFO", "memory"]).await?;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok());
    let limit = (used.context("used_memory")? + ROOM).to_string();
    house.redis.command::<()>(&["CONFIG", "SET", "maxmemory", &limit]).await?;
    let answers = &load.sender.answers;
    let full = eventually("ingest says that the queue is full", STRIKE, || async {
        ensure!(answers.full() >= 20, "{} requests were refused as queue_full", answers.full());
        Ok(answers.full())
    })
    .await;
    for processor in processors {
        processor.signal("CONT").await?;
    }
    let recovered = accepts_again(load).await;
    house.redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1gb"]).await?;
    recovered?;
    Ok(Struck { seen: vec![format!("{} requests refused with 503 queue_full", full?)], ..Struck::default() })
}
