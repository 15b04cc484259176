//! One `_bulk` request: its lines going out, and the verdict on each of its items coming back.

use crds::TenantName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Document, Error};

/// A request that grows; `P` is what its owner wants to know of each item afterwards.
pub(super) struct Request<'t, P> {
    tenant: &'t TenantName,
    body: Vec<u8>,
    places: Vec<P>,
}

#[derive(Serialize)]
struct Action<'a> {
    create: Target<'a>,
}

#[derive(Serialize)]
struct Target<'a> {
    _index: &'a str,
    _id: Uuid,
    routing: &'a str,
}

impl<'t, P> Request<'t, P> {
    pub(super) fn new(tenant: &'t TenantName) -> Self {
        Self { tenant, body: Vec::new(), places: Vec::new() }
    }

    pub(super) fn tenant(&self) -> &'t TenantName {
        self.tenant
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Makes room for documents of so many bytes.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.body.reserve_exact(bytes);
    }

    /// Adds one document. All of a tenant's go to one shard of each index.
    pub(super) fn create(&mut self, index: &str, id: Uuid, document: &Document<'_>, place: P) {
        let action = Action { create: Target { _index: index, _id: id, routing: self.tenant.as_str() } };
        let before = self.body.len();
        if line(&mut self.body, &action).and_then(|()| line(&mut self.body, document)).is_ok() {
            self.places.push(place);
        } else {
            // Maps with text keys into memory: there is nothing here that could fail.
            self.body.truncate(before);
        }
    }

    /// What was added, leaving the request empty.
    pub(super) fn take(&mut self) -> (Vec<u8>, Vec<P>) {
        (std::mem::take(&mut self.body), std::mem::take(&mut self.places))
    }
}

fn line(body: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *body, value)?;
    body.push(b'\n');
    Ok(())
}

/// What OpenSearch says of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Created,
    Existing,
    /// Never in this form.
    Refused(String),
    /// The index that it names takes nothing now; others may.
    IndexUnusable {
        status: u16,
        reason: String,
    },
    /// OpenSearch does not do it now.
    Again {
        status: u16,
        reason: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    error: Option<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(rename = "type")]
    kind: String,
    reason: Option<String>,
}

/// The verdict on each of so many items, in their order. An answer that says less than was asked
/// is no answer: nothing may be taken for indexed that was not named.
pub(super) fn verdicts(answer: &[u8], items: usize) -> Result<Vec<Verdict>, Error> {
    let unreadable = |reason| Error::Refused { doing: "read the answer to `_bulk`", status: 200, reason };
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| unreadable(error.to_string()))?;
    if answer.items.len() != items {
        return Err(unreadable(format!("it speaks of {} items, not of {items}", answer.items.len())));
    }
    Ok(answer.items.into_iter().map(|item| verdict(item.create)).collect())
}

fn verdict(outcome: Outcome) -> Verdict {
    let reason = || match &outcome.error {
        Some(Cause { kind, reason: Some(reason) }) => format!("{kind}: {reason}").chars().take(500).collect(),
        Some(Cause { kind, reason: None }) => kind.clone(),
        None => String::new(),
    };
    let concerns_index = outcome.error.as_ref().is_some_and(|cause| INDEX_IS_UNUSABLE.contains(&cause.kind.as_str()));
    match outcome.status {
        200..=299 => Verdict::Created,
        409 => Verdict::Existing,
        // Forbidden by a block, or by a security role that lacks this index; or there is none.
        status @ (403 | 404) => Verdict::IndexUnusable { status, reason: reason() },
        status if concerns_index => Verdict::IndexUnusable { status, reason: reason() },
        400 => Verdict::Refused(reason()),
        // Too many requests.
        status => Verdict::Again { status, reason: reason() },
    }
}

/// Types of errors that say something of one index, whatever their status: it is closed, blocked (with 429 if by a full
/// disk), or has no primary shard that works.
const INDEX_IS_UNUSABLE: [&str; 4] = [
    "cluster_block_exception",
    "index_closed_exception",
    "no_shard_available_action_exception",
    "unavailable_shards_exception",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_has_its_verdict() {
        let answer = br#"{"items":[
            {"create":{"status":201}},
            {"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"there"}}},
            {"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"bad"}}},
            {"create":{"status":404,"error":{"type":"index_not_found_exception"}}},
            {"create":{"status":429,"error":{"type":"rejected_execution_exception","reason":"full"}}},
            {"create":{"status":503}},
            {"create":{"status":403,"error":{"type":"cluster_block_exception","reason":"write"}}},
            {"create":{"status":429,"error":{"type":"cluster_block_exception","reason":"disk"}}},
            {"create":{"status":503,"error":{"type":"unavailable_shards_exception","reason":"red"}}},
            {"create":{"status":400,"error":{"type":"index_closed_exception","reason":"closed"}}}]}"#;
        let again = |status, reason: &str| Verdict::Again { status, reason: reason.into() };
        let unusable = |status, reason: &str| Verdict::IndexUnusable { status, reason: reason.into() };
        assert_eq!(
            verdicts(answer, 10).unwrap(),
            [
                Verdict::Created,
                Verdict::Existing,
                Verdict::Refused("mapper_parsing_exception: bad".into()),
                unusable(404, "index_not_found_exception"),
                again(429, "rejected_execution_exception: full"),
                again(503, ""),
                unusable(403, "cluster_block_exception: write"),
                unusable(429, "cluster_block_exception: disk"),
                unusable(503, "unavailable_shards_exception: red"),
                unusable(400, "index_closed_exception: closed"),
            ]
        );
        assert!(verdicts(b"<html>", 6).is_err());
        assert!(verdicts(br#"{"items":[{"create":{"status":201}}]}"#, 2).is_err(), "an item without a verdict");
    }
}
