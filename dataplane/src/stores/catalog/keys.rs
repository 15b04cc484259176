//! Which batches count, of those that came under an `Idempotency-Key`.
//!
//! The first body under a key is the key's, for as long as its window: what was accepted within it is held to that body,
//! whenever it is stored. The same body again is nothing new. Another body is told apart, and so is whatever was accepted
//! outside of the window: the first batch, which has the key's id, may still be there. It has the key from then on.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, failed};
use crate::event::{Micros, date_time, micros};
use crate::stores::batch::{Batch, Frame, Resend};

/// How long a key is its first body's, from that one's acceptance: the documented window.
pub const KEY_WINDOW: Micros = 72 * 3600 * 1_000_000;

/// A batch's place: which frame, and which batch of it.
pub(super) type Place = (usize, usize);

/// What is known of the keys of a flush.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Who had the keys before, by batch ids.
    remembered: HashMap<Uuid, Holder>,
    /// Batches that are to be told apart first. While there are any, nothing is to be stored.
    pub(super) resends: Vec<(Place, Resend)>,
}

impl Keys {
    /// Whether a batch came under a key whose body is stored already.
    pub(super) fn is_nothing_new(&self, batch: &Batch) -> bool {
        let holder = self.remembered.get(&batch.told_id()).filter(|_| batch.body_hash.is_some());
        holder.is_some_and(|holder| batch.first_batch_id.is_none() || holder.holds(batch.accepted_at))
    }
}

/// The body that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    hash: Vec<u8>,
    accepted_at: Micros,
}

impl Holder {
    fn of(keyed: &Keyed<'_>) -> Self {
        Self { hash: keyed.hash.to_vec(), accepted_at: keyed.batch.accepted_at }
    }

    /// Whether what was accepted then is held to it.
    fn holds(&self, accepted_at: Micros) -> bool {
        self.accepted_at.abs_diff(accepted_at) < KEY_WINDOW.unsigned_abs()
    }
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
    let mut firsts: BTreeMap<Uuid, Holder> = BTreeMap::new();
    for one in &keyed {
        firsts.entry(one.batch.told_id()).or_insert_with(|| Holder::of(one));
    }
    if firsts.is_empty() {
        return Ok(Keys::default());
    }
    let ids: Vec<Uuid> = firsts.keys().copied().collect();
    let new: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO idempotency (batch_id, body_hash, created_at)
         SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[])
         ON CONFLICT DO NOTHING RETURNING batch_id",
    )
    .bind(&ids)
    .bind(firsts.values().map(|first| first.hash.as_slice()).collect::<Vec<_>>())
    .bind(firsts.values().map(|first| date_time(first.accepted_at)).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await
    .map_err(failed("keep the idempotency keys"))?;
    let old: Vec<Uuid> = ids.iter().filter(|id| !new.contains(id)).copied().collect();
    let remembered = if old.is_empty() { HashMap::new() } else { holders(connection, &old).await? };
    let stored = acceptances(connection, &ids).await?;
    let (resends, moved) = judge(&keyed, &remembered, &stored);
    if resends.is_empty() {
        give_on(connection, moved).await?;
    }
    Ok(Keys { remembered, resends })
}

fn keyed(frames: &[Frame]) -> Vec<Keyed<'_>> {
    let mut keyed = Vec::new();
    for (at, frame) in frames.iter().enumerate() {
        let batches = frame.batches.iter().enumerate();
        keyed.extend(batches.filter_map(|(n, batch)| Some(Keyed { place: (at, n), batch, hash: batch.body_hash? })));
    }
    keyed
}

/// The bodies that have these keys.
async fn holders(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, Holder>, Error> {
    let rows: Vec<(Uuid, Vec<u8>, OffsetDateTime)> =
        sqlx::query_as("SELECT batch_id, body_hash, created_at FROM idempotency WHERE batch_id = ANY($1)")
            .bind(ids)
            .fetch_all(connection)
            .await
            .map_err(failed("look up idempotency keys"))?;
    Ok(rows.into_iter().map(|(id, hash, at)| (id, Holder { hash, accepted_at: micros(at) })).collect())
}

/// Gives keys to the bodies of a later window.
async fn give_on(connection: &mut PgConnection, moved: BTreeMap<Uuid, Holder>) -> Result<(), Error> {
    if moved.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE idempotency SET body_hash = later.body_hash, created_at = later.accepted_at
         FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[]) AS later (batch_id, body_hash, accepted_at)
         WHERE idempotency.batch_id = later.batch_id",
    )
    .bind(moved.keys().copied().collect::<Vec<_>>())
    .bind(moved.values().map(|later| later.hash.as_slice()).collect::<Vec<_>>())
    .bind(moved.values().map(|later| date_time(later.accepted_at)).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(failed("give idempotency keys on"))?;
    Ok(())
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

/// Which batches are to be told apart from the one that has their key, and which keys another body has afterwards.
/// `remembered` are the bodies that had keys before, `stored` the acceptance of the batches that have these keys' ids.
fn judge(
    keyed: &[Keyed<'_>],
    remembered: &HashMap<Uuid, Holder>,
    stored: &HashMap<Uuid, Micros>,
) -> (Vec<(Place, Resend)>, BTreeMap<Uuid, Holder>) {
    let (mut resends, mut moved) = (Vec::new(), BTreeMap::new());
    let mut holders: HashMap<Uuid, Holder> = remembered.clone();
    for one in keyed {
        let (id, accepted_at) = (one.batch.told_id(), one.batch.accepted_at);
        // What was accepted at the very same time is the batch that is stored under the id, delivered again.
        let again = stored.get(&id) == Some(&accepted_at);
        let told_apart = one.batch.first_batch_id.is_some();
        let why = match holders.get(&id) {
            None => {
                holders.insert(id, Holder::of(one));
                (stored.contains_key(&id) && !again).then_some(Resend::LaterWindow)
            }
            Some(holder) if !holder.holds(accepted_at) => {
                if accepted_at > holder.accepted_at {
                    holders.insert(id, Holder::of(one));
                    moved.insert(id, Holder::of(one));
                }
                (!again).then_some(Resend::LaterWindow)
            }
            Some(holder) => (holder.hash != one.hash).then_some(Resend::OtherBody),
        };
        if let Some(why) = why.filter(|_| !told_apart) {
            resends.push((one.place, why));
        }
    }
    (resends, moved)
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
        const LATER: Micros = 5 + KEY_WINDOW;
        // Which body has the key afterwards, where that is another.
        let has_key = HashMap::from([
            ("accepted after the window, and stored while the key is remembered", (b'a', LATER)),
            ("another body after the window", (b'b', LATER)),
            ("two windows at once", (b'b', LATER)),
        ]);
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
            ("the last moment of the window", vec![(LATER - 1, b'a')], a, Some(5), vec![]),
            (
                "accepted after the window, and stored while the key is remembered",
                vec![(LATER, b'a'), (LATER + 1, b'a')],
                a,
                Some(5),
                vec![(0, LaterWindow)],
            ),
            (
                "another body after the window",
                vec![(LATER, b'b'), (5, b'a'), (LATER + 1, b'a')],
                a,
                Some(5),
                vec![(0, LaterWindow), (2, OtherBody)],
            ),
            (
                "two windows at once",
                vec![(5, b'a'), (6, b'a'), (LATER, b'b'), (LATER + 1, b'b')],
                new,
                nothing,
                vec![(2, LaterWindow)],
            ),
            ("an earlier window", vec![(5 - KEY_WINDOW, b'b')], a, Some(5), vec![(0, LaterWindow)]),
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
            let holder = |hash| (id, Holder { hash: vec![hash; 32], accepted_at: 5 });
            let remembered = remembered.map(holder).into_iter().collect();
            let stored = stored.map(|at| (id, at)).into_iter().collect();
            let (resends, moved) = judge(&keyed, &remembered, &stored);
            let judged: Vec<_> = resends.into_iter().map(|((_, n), why)| (n, why)).collect();
            assert_eq!(judged, expected, "{what}");
            let moved: Option<(u8, Micros)> = moved.get(&id).map(|later| (later.hash[0], later.accepted_at));
            assert_eq!(moved, has_key.get(what).copied(), "{what}");
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
        assert!(judge(&keyed, &HashMap::new(), &stored).0.is_empty());
        // Beside the one whose window is over it is to be stored, and beside itself it is not.
        let holder = |accepted_at| Holder { hash: vec![b'a'; 32], accepted_at };
        for (accepted_at, nothing_new) in [(9 - KEY_WINDOW, false), (9, true)] {
            let remembered = HashMap::from([(Uuid::from_u128(1), holder(accepted_at))]);
            assert_eq!(Keys { remembered, resends: Vec::new() }.is_nothing_new(&later), nothing_new);
        }
    }
}
