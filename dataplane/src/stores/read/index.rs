//! Reads from the index, always through the tenant's own alias.

mod lines;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opensearch::{OpenSearch, SearchParts};
use query::Page;
use query::cursor::Cursor;
use query::to_index::Prefixes;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::breaker::Breaker;
use super::document::Document;
use super::requests::{
    TIMEOUT as TIME_LIMIT, count_body, easy_body, event_body, held_body, reduced_body, reduced_page_body, search_body,
};
use crate::event::Micros;
use crate::stores::index::Ask;
use crate::tenancy::Tenant;

/// Longest wait for the index; by itself it ends a query before that.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for the answer to a question that costs nothing: it tells a slow query from an index that is away.
const EASY_TIMEOUT: Duration = Duration::from_secs(1);
/// Most bytes of an answer: a page of whole documents is held in memory.
const MAX_ANSWER: u64 = 64 << 20;
/// Causes of a failure that are looked at; a nest of them is some levels deep.
const MAX_CAUSES: usize = 64;

pub use lines::{Asked, Group, Grouped, Leaf};

/// The index, to read from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Index {
    client: OpenSearch,
    breaker: Arc<Breaker>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// OpenSearch can't be connected to, or broke off.
    #[error("ask the index")]
    Request(#[source] opensearch::Error),
    /// OpenSearch answers nobody: not even an easy question.
    #[error("the index does not answer")]
    Silent(#[source] opensearch::Error),
    /// OpenSearch answers, but not this query in time.
    #[error("the index took longer than {} s", TIMEOUT.as_secs())]
    TooSlow,
    /// OpenSearch answers that it can't.
    #[error("the index answered {status}: {}", causes.join(", "))]
    Refused {
        /// What that means.
        fault: Fault,
        /// The HTTP status.
        status: u16,
        /// The kinds of error, as OpenSearch names them.
        causes: Vec<String>,
    },
    /// An answer of more bytes than are read at once.
    #[error("the index answered with more than {} MiB", MAX_ANSWER >> 20)]
    TooLarge,
    /// OpenSearch did not answer a moment ago, and is not asked.
    #[error("the index did not answer a moment ago")]
    Away,
    /// An answer that we can't read.
    #[error("read the index's answer")]
    Malformed(#[from] serde_json::Error),
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The query's: a part of it stands for too many words.
    TooBroad,
    /// The query's: it can't be run.
    Query,
    /// The query's: it needed too much time or memory.
    TooDear,
    /// Nobody's: the index has too much to do.
    Busy,
    /// The index's: what is asked for is not there now.
    Away,
    /// Ours: of our rights, or a defect.
    Ours,
}

impl IndexError {
    /// Whether the catalog is to answer instead: only where the index can't answer anybody who asks as this one does.
    /// What it refuses because of one query, or because it has too much to do, would be no less work for the catalog.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Request(_) | Self::Silent(_) | Self::Away => true,
            Self::Refused { fault, .. } => *fault == Fault::Away,
            Self::TooSlow | Self::TooLarge | Self::Malformed(_) => false,
        }
    }

    fn is_too_broad(&self) -> bool {
        matches!(self, Self::Refused { fault: Fault::TooBroad, .. })
    }
}

/// Whose fault an answer with this status is. OpenSearch answers 500 also where only the query is at fault, so what it
/// names as a cause comes first.
fn fault(status: u16, causes: &[String]) -> Fault {
    const TOO_BROAD: [&str; 2] = ["too_many_clauses", "too_many_nested_clauses"];
    const QUERY: [&str; 6] = [
        "query_shard_exception",
        "parsing_exception",
        "parse_exception",
        "x_content_parse_exception",
        "too_complex_to_determinize_exception",
        "illegal_argument_exception",
    ];
    const TOO_DEAR: [&str; 2] = ["task_cancelled_exception", "time_exceeded_exception"];
    const BUSY: [&str; 2] = ["circuit_breaking_exception", "rejected_execution_exception"];
    let named = |kinds: &[&str]| causes.iter().any(|cause| kinds.contains(&cause.as_str()));
    match status {
        _ if named(&TOO_BROAD) => Fault::TooBroad,
        _ if named(&TOO_DEAR) => Fault::TooDear,
        429 => Fault::Busy,
        _ if named(&BUSY) => Fault::Busy,
        404 => Fault::Away,
        _ if named(&QUERY) => Fault::Query,
        400 => Fault::Query,
        502..=504 => Fault::Away,
        _ => Fault::Ours,
    }
}

/// The kinds of error in an answer, outermost first.
fn causes(body: &Value) -> Vec<String> {
    fn collect(error: &Value, causes: &mut Vec<String>) {
        if causes.len() >= MAX_CAUSES {
            return;
        }
        if let Some(kind) = error["type"].as_str()
            && !causes.iter().any(|cause| cause == kind)
        {
            causes.push(kind.to_owned());
        }
        for cause in ["root_cause", "failed_shards"] {
            for one in error[cause].as_array().into_iter().flatten().take(MAX_CAUSES) {
                collect(one, causes);
            }
        }
        for cause in ["caused_by", "reason"] {
            if error[cause].is_object() {
                collect(&error[cause], causes);
            }
        }
    }
    let mut found = Vec::new();
    collect(&body["error"], &mut found);
    found
}

/// Whether no answer came in time to a request that had got through.
fn is_silence(error: &opensearch::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<reqwest::Error>());
    cause.is_some_and(|cause| cause.is_timeout() && !cause.is_connect())
}

/// What a search found.
#[derive(Debug)]
pub struct Hits {
    /// Events, newest first, one more than the page holds if there are more.
    pub places: Vec<Cursor>,
    /// Whether a part of the index didn't answer in time.
    pub partial: bool,
    /// Whether the words of a prefix of several were looked for anywhere in an event, because together they stand for
    /// too many.
    pub loose: bool,
}

#[derive(Deserialize)]
struct Answer<H> {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    hits: HitList<H>,
    #[serde(default)]
    aggregations: Value,
}

#[derive(Deserialize)]
struct Shards {
    #[serde(default)]
    total: u32,
    #[serde(default)]
    successful: u32,
    failed: u32,
    /// Why.
    #[serde(default)]
    failures: Vec<Value>,
}

#[derive(Deserialize)]
struct HitList<H> {
    hits: Vec<H>,
    /// Where it was asked for.
    total: Option<Total>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
}

/// What was computed of events.
pub(super) struct Computed<H> {
    /// Some of them.
    pub(super) hits: Vec<H>,
    /// How many there are.
    pub(super) total: u64,
    /// What was computed.
    pub(super) aggregations: Value,
    /// Whether a part of the index didn't answer in time.
    pub(super) partial: bool,
}

/// A hit that is known by its id, and the form of its document.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "_id")]
    id: Uuid,
    #[serde(rename = "_source", default)]
    source: Formed,
}

/// What a document says of its form; the first documents said nothing.
#[derive(Deserialize, Default)]
struct Formed {
    #[serde(default)]
    form: u32,
}

/// A hit is known by its sort values: nanoseconds, id.
#[derive(Deserialize)]
struct Place {
    sort: (i64, Uuid),
}

impl Place {
    fn cursor(self) -> Cursor {
        let Self { sort: (nanos, event_id) } = self;
        Cursor { time: nanos.div_euclid(1000), event_id }
    }
}

/// A hit that is known by its time alone, in nanoseconds.
#[derive(Deserialize)]
struct Moment {
    sort: (i64,),
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "_source")]
    document: Document,
}

impl Index {
    /// Over a client of OpenSearch.
    pub fn new(client: OpenSearch) -> Self {
        Self { client, breaker: Arc::new(Breaker::new()) }
    }

    /// The events of one page, and one more if there is one.
    pub async fn search(&self, tenant: &Tenant, page: &Page) -> Result<Hits, IndexError> {
        let loosenable = page.query.as_ref().is_some_and(query::Query::can_be_loosened);
        match self.search_by(tenant, page, Prefixes::SideBySide).await {
            Err(error) if error.is_too_broad() && loosenable => self.search_by(tenant, page, Prefixes::Anywhere).await,
            outcome => outcome,
        }
    }

    async fn search_by(&self, tenant: &Tenant, page: &Page, prefixes: Prefixes) -> Result<Hits, IndexError> {
        let answer: Answer<Place> = self.ask(tenant, search_body(tenant.name(), page, prefixes)).await?;
        Ok(Hits {
            partial: answer.is_partial(),
            places: answer.hits.hits.into_iter().map(Place::cursor).collect(),
            loose: prefixes == Prefixes::Anywhere,
        })
    }

    /// How many events a search finds, `most` at most; `None` if a part of the index didn't answer.
    pub async fn count(&self, tenant: &Tenant, page: &Page, most: u64) -> Result<Option<u64>, IndexError> {
        let answer: Answer<Place> = self.ask(tenant, count_body(tenant.name(), page, most)).await?;
        let partial = answer.is_partial();
        Ok(answer.hits.total.filter(|_| !partial).map(|total| total.value))
    }

    /// One event; `None` if the index doesn't hold it (yet, or any more).
    pub async fn event(&self, tenant: &Tenant, id: Uuid) -> Result<Option<Document>, IndexError> {
        let mut answer: Answer<Found> = self.ask(tenant, event_body(tenant.name(), id)).await?;
        Ok(answer.hits.hits.pop().map(|found| found.document))
    }

    /// Which of these events the index holds, each in its form; `None` if a part of it didn't answer.
    pub async fn held(&self, tenant: &Tenant, ids: &[Uuid]) -> Result<Option<HashMap<Uuid, u32>>, IndexError> {
        let answer: Answer<Named> = self.ask(tenant, held_body(tenant.name(), ids)).await?;
        let partial = answer.is_partial();
        Ok((!partial).then(|| answer.hits.hits.into_iter().map(|hit| (hit.id, hit.source.form)).collect()))
    }

    /// Events of a page, whatever its query says, of which the index holds less than the whole: `most` of them, and one
    /// more if there are more. `None` if a part of it didn't answer.
    pub async fn reduced(&self, tenant: &Tenant, page: &Page, most: u32) -> Result<Option<Vec<Cursor>>, IndexError> {
        let answer: Answer<Place> = self.ask(tenant, reduced_page_body(tenant.name(), page, most)).await?;
        let partial = answer.is_partial();
        Ok((!partial).then(|| answer.hits.hits.into_iter().map(Place::cursor).collect()))
    }

    /// When the newest event happened of which the index holds less than the whole; `None` if there is none.
    pub async fn newest_reduced(&self, tenant: &Tenant) -> Result<Option<Micros>, IndexError> {
        let mut answer: Answer<Moment> = self.ask(tenant, reduced_body(tenant.name())).await?;
        Ok(answer.hits.hits.pop().map(|hit| hit.sort.0.div_euclid(1000)))
    }

    /// Asks for what can be computed of events.
    pub(super) async fn compute<H: serde::de::DeserializeOwned>(
        &self,
        tenant: &Tenant,
        mut body: Value,
    ) -> Result<Computed<H>, IndexError> {
        body["timeout"] = Value::from(TIME_LIMIT);
        let answer: Answer<H> = self.ask(tenant, body).await?;
        let partial = answer.is_partial();
        let Answer { hits: HitList { hits, total }, aggregations, .. } = answer;
        Ok(Computed { hits, total: total.map_or(0, |total| total.value), aggregations, partial })
    }

    /// Asks unless the index failed a moment ago.
    async fn ask<H: serde::de::DeserializeOwned>(&self, tenant: &Tenant, body: Value) -> Result<Answer<H>, IndexError> {
        let (name, sent) = (tenant.name(), Instant::now());
        let asked = self.breaker.ask(name, sent);
        if asked == Ask::Leave {
            return Err(IndexError::Away);
        }
        let answer = match self.ask_now(tenant, body, TIMEOUT).await {
            Err(IndexError::Request(error)) if is_silence(&error) => {
                match self.ask_now::<Named>(tenant, easy_body(), EASY_TIMEOUT).await {
                    Err(IndexError::Request(again)) if is_silence(&again) => Err(IndexError::Silent(error)),
                    Err(IndexError::Request(broken)) => Err(IndexError::Request(broken)),
                    _ => Err(IndexError::TooSlow),
                }
            }
            answer => answer,
        };
        match &answer {
            Err(IndexError::Request(_)) => self.breaker.broken(sent, Instant::now()),
            Err(IndexError::Silent(_)) => self.breaker.unanswered(name, asked, sent, Instant::now()),
            _ => self.breaker.answered(name),
        }
        answer
    }

    async fn ask_now<H: serde::de::DeserializeOwned>(
        &self,
        tenant: &Tenant,
        body: Value,
        timeout: Duration,
    ) -> Result<Answer<H>, IndexError> {
        let alias = tenant.name().index_alias();
        let aliases = [alias.as_str()];
        let search = self.client.search(SearchParts::Index(&aliases)).request_timeout(timeout).body(body);
        let response = search.send().await.map_err(IndexError::Request)?;
        let status = response.status_code();
        if response.content_length().is_some_and(|length| length > MAX_ANSWER) {
            return Err(IndexError::TooLarge);
        }
        let text = response.text().await.map_err(IndexError::Request)?;
        if !status.is_success() {
            let status = status.as_u16();
            let causes = causes(&serde_json::from_str(&text).unwrap_or_default());
            return Err(IndexError::Refused { fault: fault(status, &causes), status, causes });
        }
        let answer: Answer<H> = serde_json::from_str(&text)?;
        answer.whole_enough()
    }
}

impl<H> Answer<H> {
    fn is_partial(&self) -> bool {
        // A shard without a copy that works is none that failed: it is only missing among the others.
        self.timed_out || self.shards.failed > 0 || self.shards.successful < self.shards.total
    }

    /// A query that is too broad for one shard is too broad, also where another shard has fewer words.
    fn whole_enough(self) -> Result<Self, IndexError> {
        let failures: Vec<String> = self.shards.failures.iter().flat_map(causes_of_shard).collect();
        match fault(500, &failures) {
            fault @ Fault::TooBroad => Err(IndexError::Refused { fault, status: 200, causes: failures }),
            _ => Ok(self),
        }
    }
}

/// The kinds of error of one shard's failure.
fn causes_of_shard(failure: &Value) -> Vec<String> {
    causes(&serde_json::json!({ "error": failure["reason"] }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_of_one_query_is_that_querys() {
        let all_failed = |cause: &str| {
            json!({"error": {
                "type": "search_phase_execution_exception", "reason": "all shards failed",
                "root_cause": [{"type": cause}],
                "failed_shards": [{"shard": 0, "reason": {"type": "query_phase_execution_exception", "caused_by": {"type": cause}}}],
            }})
        };
        for (status, body, expected) in [
            (500, all_failed("too_many_clauses"), Fault::TooBroad),
            (400, all_failed("too_many_nested_clauses"), Fault::TooBroad),
            (500, all_failed("query_shard_exception"), Fault::Query),
            (400, all_failed("illegal_argument_exception"), Fault::Query),
            (400, json!({"error": {"type": "some_exception"}}), Fault::Query),
            (500, all_failed("task_cancelled_exception"), Fault::TooDear),
            (429, all_failed("rejected_execution_exception"), Fault::Busy),
            (429, Value::Null, Fault::Busy),
            (503, all_failed("circuit_breaking_exception"), Fault::Busy),
            (404, json!({"error": {"type": "index_not_found_exception"}}), Fault::Away),
            (503, all_failed("no_shard_available_action_exception"), Fault::Away),
            (502, Value::Null, Fault::Away),
            (403, json!({"error": {"type": "security_exception"}}), Fault::Ours),
            (401, Value::Null, Fault::Ours),
            (500, all_failed("null_pointer_exception"), Fault::Ours),
        ] {
            assert_eq!(fault(status, &causes(&body)), expected, "{status} {body}");
        }
    }

    #[test]
    fn only_an_index_that_answers_nobody_is_an_outage() {
        let refused = |fault| IndexError::Refused { fault, status: 500, causes: Vec::new() };
        for fault in [Fault::TooBroad, Fault::Query, Fault::TooDear, Fault::Busy, Fault::Ours] {
            assert!(!refused(fault).is_outage(), "{fault:?}");
        }
        assert!(refused(Fault::Away).is_outage() && IndexError::Away.is_outage() && !IndexError::TooSlow.is_outage());
    }

    #[test]
    fn causes_are_bounded() {
        let mut body = json!({"type": "deepest"});
        for n in 0..200 {
            body = json!({"type": format!("t{n}"), "caused_by": body});
        }
        assert_eq!(causes(&json!({ "error": body })).len(), MAX_CAUSES);
    }
}
