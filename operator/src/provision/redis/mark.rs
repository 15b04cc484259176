//! Whether the registry was lost since it was last looked at: emptied by a hand, or put back to what it was before,
//! while Redis answers all the time.

use redis::Value;

use crds::names::{REGISTRY_CHANGES, REGISTRY_EPOCH, REGISTRY_SIGNATURES, REGISTRY_TENANTS};

use super::Registry;
use crate::provision::Error;
use crate::provision::error::RedisContext;

/// The registry at one moment, as far as it tells a loss.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    epoch: Option<u64>,
    /// The newest change in the stream.
    last_change: Option<String>,
    entries: u64,
    signatures: u64,
}

impl Registry {
    /// Looks at the registry, and whether it was lost since `before`.
    pub async fn look(&self, before: Option<&Mark>) -> Result<(Mark, bool), Error> {
        let seen = before.and_then(|before| before.last_change.as_deref()).unwrap_or("0");
        type Changes = Vec<(String, Value)>;
        type Found = (Option<u64>, u64, u64, Changes, Changes);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("GET").arg(REGISTRY_EPOCH).cmd("HLEN").arg(REGISTRY_TENANTS);
        pipe.cmd("HLEN").arg(REGISTRY_SIGNATURES);
        pipe.cmd("XREVRANGE").arg(REGISTRY_CHANGES).arg(&["+", "-", "COUNT", "1"]);
        pipe.cmd("XRANGE").arg(REGISTRY_CHANGES).arg(&[seen, seen]);
        let (epoch, entries, signatures, last, seen): Found =
            pipe.query_async(&mut self.connection.clone()).await.doing("look at the registry")?;
        let last_change = last.into_iter().next().map(|(id, _)| id);
        let now = Mark { epoch, last_change, entries, signatures };
        let lost = before.is_some_and(|before| is_lost(before, &now, !seen.is_empty()));
        Ok((now, lost))
    }
}

/// Whether the registry was lost between two looks. `still_there`: the newest change of before is in the stream.
fn is_lost(before: &Mark, now: &Mark, still_there: bool) -> bool {
    let epoch_lost = match (before.epoch, now.epoch) {
        (Some(before), Some(now)) => now < before,
        (Some(_), None) => true,
        (None, _) => false,
    };
    // Whatever we change, the epoch and the stream change with it.
    let untold = (before.epoch, &before.last_change) == (now.epoch, &now.last_change)
        && (now.entries < before.entries || now.signatures < before.signatures);
    epoch_lost || untold || (before.last_change.is_some() && !still_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_emptied_or_put_back_is_lost_and_one_that_is_written_to_is_not() {
        let mark = |epoch, change: Option<&str>, entries| Mark {
            epoch,
            last_change: change.map(str::to_owned),
            entries,
            signatures: entries,
        };
        let before = mark(Some(7), Some("7-0"), 5);
        for (what, now, still_there, expected) in [
            ("as it was", before.clone(), true, false),
            ("another Tenant", mark(Some(8), Some("8-0"), 6), true, false),
            ("one less", mark(Some(8), Some("8-0"), 4), true, false),
            ("everything", mark(None, None, 0), false, true),
            ("everything, and begun anew", mark(Some(1_000), None, 0), false, true),
            ("everything, and written to", mark(Some(1_001), Some("9-0"), 1), false, true),
            ("the entries", mark(Some(7), Some("7-0"), 0), true, true),
            ("an entry", mark(Some(7), Some("7-0"), 4), true, true),
            ("the signatures", Mark { signatures: 0, ..before.clone() }, true, true),
            ("the epoch", mark(None, Some("7-0"), 5), true, true),
            ("the stream", mark(Some(7), None, 5), false, true),
            ("an older file", mark(Some(5), Some("5-0"), 5), false, true),
        ] {
            assert_eq!(is_lost(&before, &now, still_there), expected, "{what}");
        }
        assert!(!is_lost(&Mark::default(), &before, false), "it has begun");
    }
}
