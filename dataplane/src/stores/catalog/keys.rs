//! Which batches count, of those that came under an `Idempotency-Key`.
//!
//! The first body under a key is the key's, for as long as the key is remembered. The same body
//! again is nothing new. Another body is told apart, and so is whatever comes under the key once it
//! is forgotten: the first batch, which has the key's id, may still be there.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, failed};
use crate::event::{Micros, micros};
use crate::stores::batch::{Batch, Frame, Resend};

/// A batch's place: which frame, and which batch of it.
pub(super) type Place = (usize, usize);

/// What is known of the keys of a flush.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Batch ids of keys that were remembered before: what comes under them is stored already.
    pub(super) remembered: HashSet<Uuid>,
    /// Batches that are to be told apart first. While there are any, nothing is to be stored.
    pub(super) resends: Vec<(Place, Resend)>,
}

/// A batch under a key.
struct Keyed<'a> {
    place: Place,
    batch: &'a Batch,
    hash: [u8; 32],
}

/// Remembers the keys of these frames and judges what came under them.
pub(super) async fn claim(connection: &mut PgConnection, frames: &[Frame]) -> Result<Keys, Error> {
    let keyed = keyed(frames);
    // Ordered by id: two flushes that share keys wait for each other, never in a circle.
    let mut firsts: BTreeMap<Uuid, [u8; 32]> = BTreeMap::new();
    for Keyed { batch, hash, .. } in &keyed {
        firsts.entry(batch.told_id()).or_insert(*hash);
    }
    if firsts.is_empty() {
        return Ok(Keys::default());
    }
    let ids: Vec<Uuid> = firsts.keys().copied().collect();
    let new: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO idempotency (batch_id, body_hash) SELECT * FROM unnest($1::uuid[], $2::bytea[])
         ON CONFLICT DO NOTHING RETURNING batch_id",
    )
    .bind(&ids)
    .bind(firsts.values().map(|hash| hash.to_vec()).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await
    .map_err(failed("keep the idempotency keys"))?;
    let old: Vec<Uuid> = ids.iter().filter(|id| !new.contains(id)).copied().collect();
    let remembered = if old.is_empty() { HashMap::new() } else { hashes(connection, &old).await? };
    let stored = acceptances(connection, &ids).await?;
    let resends = judge(&keyed, &remembered, &stored);
    Ok(Keys { remembered: remembered.into_keys().collect(), resends })
}

fn keyed(frames: &[Frame]) -> Vec<Keyed<'_>> {
    let mut keyed = Vec::new();
    for (at, frame) in frames.iter().enumerate() {
        let batches = frame.batches.iter().enumerate();
        keyed.extend(batches.filter_map(|(n, batch)| Some(Keyed { place: (at, n), batch, hash: batch.body_hash? })));
    }
    keyed
}

/// Bodies that keys were first used for.
async fn hashes(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<u8>>, Error> {
    let rows: Vec<(Uuid, Vec<u8>)> =
        sqlx::query_as("SELECT batch_id, body_hash FROM idempotency WHERE batch_id = ANY($1)")
            .bind(ids)
            .fetch_all(connection)
            .await
            .map_err(failed("look up idempotency keys"))?;
    Ok(rows.into_iter().collect())
}

/// When the batches that are stored under these ids were accepted.
async fn acceptances(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, Micros>, Error> {
    let rows: Vec<(Uuid, OffsetDateTime)> =
        sqlx::query_as("SELECT batch_id, accepted_at FROM batches WHERE batch_id = ANY($1)")
            .bind(ids)
            .fetch_all(connection)
            .await
            .map_err(failed("look up the batches of idempotency keys"))?;
    Ok(rows.into_iter().map(|(id, accepted_at)| (id, micros(accepted_at))).collect())
}

/// Which batches are to be told apart from the one that has their key. `remembered` are the bodies
/// of keys that others used before, `stored` the acceptance of the batches that have these keys.
fn judge(
    keyed: &[Keyed<'_>],
    remembered: &HashMap<Uuid, Vec<u8>>,
    stored: &HashMap<Uuid, Micros>,
) -> Vec<(Place, Resend)> {
    let mut firsts: HashMap<Uuid, &Keyed<'_>> = HashMap::new();
    for one in keyed {
        firsts.entry(one.batch.told_id()).or_insert(one);
    }
    let resend = |one: &Keyed<'_>| {
        let id = one.batch.batch_id;
        if one.batch.first_batch_id.is_some() {
            // Told apart already.
            return None;
        }
        let first = firsts.get(&id)?;
        match remembered.get(&id) {
            Some(hash) if *hash != one.hash => Some(Resend::OtherBody),
            Some(_) => None,
            None if first.hash != one.hash => Some(Resend::OtherBody),
            // What was accepted at the very same time is that batch, delivered again.
            None if first.place == one.place && stored.get(&id).is_some_and(|at| *at != one.batch.accepted_at) => {
                Some(Resend::LaterWindow)
            }
            None => None,
        }
    };
    keyed.iter().filter_map(|one| Some((one.place, resend(one)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: u128, accepted_at: Micros, hash: u8) -> Batch {
        Batch {
            batch_id: Uuid::from_u128(id),
            accepted_at,
            key_id: "k".into(),
            body_hash: Some([hash; 32]),
            first_batch_id: None,
            raw_start: 0,
            raw_bytes: 0,
            events: Vec::new(),
            dead_letters: Vec::new(),
            dropped: Vec::new(),
        }
    }

    #[test]
    fn a_resend_is_nothing_new_another_body_or_a_later_window() {
        use Resend::{LaterWindow, OtherBody};
        let id = Uuid::from_u128(1);
        let (new, a, nothing) = (None, Some(b'a'), None::<Micros>);
        for (what, batches, remembered, stored, expected) in [
            ("the first", vec![(5, b'a')], new, nothing, vec![]),
            ("the same body again", vec![(6, b'a')], a, Some(5), vec![]),
            ("the same body again before the first is seen", vec![(6, b'a')], a, nothing, vec![]),
            ("delivered again", vec![(5, b'a')], a, Some(5), vec![]),
            ("delivered again when the key is forgotten", vec![(5, b'a')], new, Some(5), vec![]),
            ("another body", vec![(6, b'b')], a, Some(5), vec![(0, OtherBody)]),
            ("another body at the same time", vec![(5, b'b')], a, Some(5), vec![(0, OtherBody)]),
            ("two bodies at once", vec![(5, b'a'), (6, b'b'), (7, b'a')], new, nothing, vec![(1, OtherBody)]),
            ("the other body first", vec![(6, b'b'), (7, b'a')], a, nothing, vec![(0, OtherBody)]),
            ("the key is forgotten", vec![(9, b'a')], new, Some(5), vec![(0, LaterWindow)]),
            (
                "forgotten, and two at once",
                vec![(8, b'b'), (9, b'b'), (9, b'a')],
                new,
                Some(5),
                vec![(0, LaterWindow), (2, OtherBody)],
            ),
        ] {
            let batches: Vec<Batch> = batches.into_iter().map(|(at, hash)| batch(1, at, hash)).collect();
            let keyed: Vec<Keyed<'_>> = batches
                .iter()
                .enumerate()
                .map(|(n, batch)| Keyed { place: (0, n), batch, hash: batch.body_hash.unwrap() })
                .collect();
            let remembered = remembered.map(|hash| (id, vec![hash; 32])).into_iter().collect();
            let stored = stored.map(|at| (id, at)).into_iter().collect();
            let judged: Vec<_> =
                judge(&keyed, &remembered, &stored).into_iter().map(|((_, n), why)| (n, why)).collect();
            assert_eq!(judged, expected, "{what}");
        }
    }

    #[test]
    fn what_was_told_apart_is_not_judged_again() {
        let mut later = batch(1, 9, b'a');
        later.tell_apart(Resend::LaterWindow);
        let again = batch(1, 10, b'a');
        let keyed = [&later, &again].map(|batch| Keyed { place: (0, 0), batch, hash: [b'a'; 32] });
        let keyed = keyed.into_iter().enumerate().map(|(n, one)| Keyed { place: (0, n), ..one }).collect::<Vec<_>>();
        let stored = HashMap::from([(Uuid::from_u128(1), 5)]);
        assert!(judge(&keyed, &HashMap::new(), &stored).is_empty());
    }
}
