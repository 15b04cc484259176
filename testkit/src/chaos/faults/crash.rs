//! Roles that die: at fail points, and at random.

use std::time::Duration;

use anyhow::ensure;
use dataplane::fail_points::Point;

use super::{STRIKE, Struck};
use crate::chaos::house::House;
use crate::chaos::proxy::Mode;
use crate::eventually;

/// How long the index is away before batches are left to `maintain`: its patience of 10 s, and some.
const INDEX_AWAY: Duration = Duration::from_secs(14);
/// Wait for late indexing, which begins when a batch is 15 s old.
const LATE: Duration = Duration::from_secs(90);

/// The child that reaches a point and is told to.
pub(super) fn victim(point: Point) -> &'static str {
    match point.name().split_once('.') {
        Some(("ingest", _)) => "ingest-0",
        Some(("process", _)) => "process-0",
        _ => "maintain-0",
    }
}

/// An order for each of so many lives: the first time in one, a later time in the next.
pub(super) fn lives(point: Point, action: &str, count: u32) -> Vec<Vec<(String, String)>> {
    let order = |life: u32| format!("{}={action}@{}", point.name(), 1 + life % 3);
    (0..count).map(|life| vec![("LOGGERHUB_FAIL_POINT".to_owned(), order(life))]).collect()
}

/// Waits until the role has died at the point as often as it was told to.
pub(super) async fn at(house: &House, point: Point, deaths: u32) -> anyhow::Result<Struck> {
    let late = matches!(point, Point::LateRead | Point::LateIndexed);
    if late {
        house.proxies.opensearch.set(Mode::Answer(503, "{}"));
        tokio::time::sleep(INDEX_AWAY).await;
        house.proxies.opensearch.set(Mode::Pass);
    }
    let victim = house.child(victim(point))?;
    let what = format!("{} dies {deaths} times at {}", victim.name, point.name());
    eventually(&what, if late { LATE } else { STRIKE }, || async {
        ensure!(victim.deaths() >= deaths, "it died {} times", victim.deaths());
        Ok(())
    })
    .await?;
    let mut struck = Struck::default();
    struck.note(victim.deaths() == deaths, format!("{} died {} times", victim.name, victim.deaths()));
    Ok(struck)
}

/// Kills children at random moments.
pub(super) async fn at_random(house: &House, kills: u32) -> anyhow::Result<Struck> {
    let mut dice = house.dice(1);
    let mut done = 0;
    while done < kills {
        tokio::time::sleep(Duration::from_millis(30 + dice.below(450))).await;
        let victim = &house.children[dice.below(house.children.len() as u64) as usize];
        // One that is just being started again can't be killed.
        done += u32::from(victim.signal("KILL").await?);
    }
    let deaths: Vec<String> = house.children.iter().map(|child| format!("{} {}", child.name, child.deaths())).collect();
    Ok(Struck { seen: vec![format!("deaths: {}", deaths.join(", "))], ..Struck::default() })
}
