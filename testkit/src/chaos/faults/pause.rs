//! Processes that stand still and go on later, when others have taken over their work.

use std::time::Duration;

use anyhow::ensure;
use dataplane::fail_points::Point;

use super::{STRIKE, Struck, crash};
use crate::chaos::house::House;
use crate::eventually;

/// Longer than the claim time of 1 s, the 5 s after which a successor no longer waits for a row, and
/// the 5 s of silence after which it has the holder's session ended.
const BEYOND: Duration = Duration::from_secs(13);

/// Stops one processor, then the other, at moments that nobody chose.
pub(super) async fn past_claim(house: &House) -> anyhow::Result<Struck> {
    let mut dice = house.dice(2);
    let mut struck = Struck::default();
    for name in ["process-0", "process-1", "process-0"] {
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        let child = house.child(name)?;
        let stopped = child.signal("STOP").await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        child.signal("CONT").await?;
        struck.note(stopped, format!("{name} stood still for 3 s"));
    }
    Ok(struck)
}

/// Waits until a role stands still at the point, and lets it go on after others have given up on it.
pub(super) async fn at(house: &House, point: Point) -> anyhow::Result<Struck> {
    let child = house.child(crash::victim(point))?;
    eventually(&format!("{} stands still at {}", child.name, point.name()), STRIKE, || async {
        ensure!(child.is_stopped(), "it does not");
        Ok(())
    })
    .await?;
    tokio::time::sleep(BEYOND).await;
    let mut struck = Struck::default();
    struck.note(child.is_stopped(), format!("{} stood still for {BEYOND:?} at {}", child.name, point.name()));
    child.signal("CONT").await?;
    Ok(struck)
}
