//! Which waiting batches share an entry. An entry holds one tenant's batches of one lane; a batch
//! is never divided, so that a redelivery finds it whole.

use std::collections::{HashMap, HashSet};

use crds::TenantName;
use crds::names::Lane;
use uuid::Uuid;

/// Redis gives memory in classes: a payload just below 112 KiB wastes least.
pub(super) const MAX_FRAME: usize = 112 * 1024;
/// Raw bytes that an entry is filled up to. Log lines shrink 4 to 5 times, to well below
/// [`MAX_FRAME`]; an entry of lines that do not is divided after compression.
const RAW_TARGET: usize = 400 * 1024;
/// Events that an entry is filled up to: what one failing entry can hold up.
const MAX_EVENTS: usize = 2_000;

/// What grouping needs to know of a batch.
pub(crate) trait Weighed {
    fn lane(&self) -> &Lane;
    fn tenant(&self) -> &TenantName;
    fn events(&self) -> usize;
    fn raw_bytes(&self) -> usize;
    /// The batch's id, if a client chose it by an `Idempotency-Key`: another may have the same.
    fn keyed(&self) -> Option<Uuid>;
}

/// Groups batches, each tenant's in the order they came. Groups of one lane stand together. Of two
/// batches with one id, the second opens another entry: whoever reads an entry may tell its batches
/// apart by their ids.
pub(crate) fn group<T: Weighed>(batches: Vec<T>) -> Vec<Vec<T>> {
    struct Open<T> {
        batches: Vec<T>,
        events: usize,
        raw_bytes: usize,
        keyed: HashSet<Uuid>,
    }
    let mut groups: Vec<Open<T>> = Vec::new();
    let mut open: HashMap<(Lane, TenantName), usize> = HashMap::new();
    for batch in batches {
        let (events, raw_bytes) = (batch.events(), batch.raw_bytes());
        let keyed = batch.keyed();
        let fits = |group: &Open<T>| {
            group.events + events <= MAX_EVENTS
                && group.raw_bytes + raw_bytes <= RAW_TARGET
                && keyed.is_none_or(|id| !group.keyed.contains(&id))
        };
        let key = (batch.lane().clone(), batch.tenant().clone());
        match open.get(&key).map(|at| &mut groups[*at]).filter(|group| fits(group)) {
            Some(group) => {
                group.events += events;
                group.raw_bytes += raw_bytes;
                group.keyed.extend(keyed);
                group.batches.push(batch);
            }
            None => {
                open.insert(key, groups.len());
                groups.push(Open { batches: vec![batch], events, raw_bytes, keyed: keyed.into_iter().collect() });
            }
        }
    }
    // Stable, so a tenant's groups stay in order.
    groups.sort_by(|a, b| a.batches[0].lane().cmp(b.batches[0].lane()));
    groups.into_iter().map(|group| group.batches).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Batch {
        id: usize,
        lane: Lane,
        tenant: TenantName,
        events: usize,
        raw_bytes: usize,
        keyed: Option<Uuid>,
    }

    impl Weighed for Batch {
        fn lane(&self) -> &Lane {
            &self.lane
        }
        fn tenant(&self) -> &TenantName {
            &self.tenant
        }
        fn events(&self) -> usize {
            self.events
        }
        fn raw_bytes(&self) -> usize {
            self.raw_bytes
        }
        fn keyed(&self) -> Option<Uuid> {
            self.keyed
        }
    }

    #[test]
    fn two_batches_with_one_id_never_share_an_entry() {
        let tenant: TenantName = "a".parse().unwrap();
        let lane = crds::PipelineName::default_pipeline().lane(&tenant);
        let batches = [None, Some(7), Some(8), Some(7), None].into_iter().enumerate().map(|(id, key)| Batch {
            id,
            lane: lane.clone(),
            tenant: tenant.clone(),
            events: 1,
            raw_bytes: 1,
            keyed: key.map(Uuid::from_u128),
        });
        let groups: Vec<Vec<usize>> =
            group(batches.collect()).iter().map(|group| group.iter().map(|batch| batch.id).collect()).collect();
        assert_eq!(groups, [vec![0, 1, 2], vec![3, 4]]);
    }

    /// Tenant, events and raw bytes of each batch → the batches' places, grouped.
    fn grouped(batches: &[(&str, usize, usize)]) -> Vec<Vec<usize>> {
        let pipeline = crds::PipelineName::default_pipeline();
        let batches = batches.iter().enumerate().map(|(id, (tenant, events, raw_bytes))| {
            let tenant: TenantName = tenant.parse().unwrap();
            let lane = pipeline.lane(&tenant);
            Batch { id, lane, tenant, events: *events, raw_bytes: *raw_bytes, keyed: None }
        });
        let mut groups: Vec<Vec<usize>> =
            group(batches.collect()).iter().map(|group| group.iter().map(|batch| batch.id).collect()).collect();
        groups.sort();
        groups
    }

    #[test]
    fn small_batches_of_one_tenant_share_an_entry() {
        assert_eq!(grouped(&[("a", 1, 10), ("b", 1, 10), ("a", 1, 10)]), [vec![0, 2], vec![1]]);
    }

    #[test]
    fn an_entry_is_cut_by_events_and_by_bytes_and_a_batch_never() {
        let kib = 1024;
        assert_eq!(grouped(&[("a", 1500, 10), ("a", 500, 10), ("a", 1, 10)]), [vec![0, 1], vec![2]]);
        assert_eq!(grouped(&[("a", 1, 300 * kib), ("a", 1, 300 * kib)]), [vec![0], vec![1]]);
        assert_eq!(grouped(&[("a", 10_000, 20 * kib * kib), ("a", 1, 1)]), [vec![0], vec![1]]);
        assert_eq!(grouped(&[]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn groups_of_one_lane_stand_together() {
        let names: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
        let pipeline = crds::PipelineName::default_pipeline();
        let batches = names.iter().enumerate().map(|(id, name)| {
            let tenant: TenantName = name.parse().unwrap();
            Batch { id, lane: pipeline.lane(&tenant), tenant, events: 1, raw_bytes: 1, keyed: None }
        });
        let mut lanes: Vec<_> = group(batches.collect()).iter().map(|group| group[0].lane.shard).collect();
        lanes.dedup();
        assert!(lanes.len() <= usize::from(crds::names::SHARDS), "{lanes:?}");
    }
}
