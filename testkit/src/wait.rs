//! Waiting without guessing: try until it holds, and at the deadline say what was seen last.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Pause between two tries: short against every bound in the tests, long against a round-trip.
const PAUSE: Duration = Duration::from_millis(100);

/// Tries `probe` until it gives a value, at most `within`. An error means "not yet"; the last one
/// stands in the failure, so that it says what was seen instead.
pub async fn eventually<T, P, F>(what: &str, within: Duration, mut probe: P) -> anyhow::Result<T>
where
    P: FnMut() -> F,
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = last.or_else(|| Some(anyhow::anyhow!("no answer yet"))),
        }
        if Instant::now() + PAUSE >= deadline {
            let last = last.unwrap_or_else(|| anyhow::anyhow!("never tried"));
            return Err(last.context(format!("waited {within:?} in vain until {what}")));
        }
        sleep(PAUSE).await;
    }
}

/// Checks that `probe` holds at every try for as long as `during`.
pub async fn holds<P, F>(what: &str, during: Duration, mut probe: P) -> anyhow::Result<()>
where
    P: FnMut() -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let deadline = Instant::now() + during;
    while Instant::now() < deadline {
        probe().await.map_err(|error| error.context(format!("no longer holds: {what}")))?;
        sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_wait_ends_with_the_value_or_with_what_was_seen_last() {
        let tries = Cell::new(0);
        let third = eventually("the third try", Duration::from_secs(5), || async {
            tries.set(tries.get() + 1);
            anyhow::ensure!(tries.get() == 3, "try {}", tries.get());
            Ok(tries.get())
        });
        assert_eq!(third.await.unwrap(), 3);
        let never = eventually("it rains", Duration::from_millis(150), || async { anyhow::bail!("dry") });
        let error: anyhow::Result<()> = never.await;
        let text = format!("{:#}", error.unwrap_err());
        assert!(text.contains("it rains") && text.contains("dry"), "{text}");
    }
}
