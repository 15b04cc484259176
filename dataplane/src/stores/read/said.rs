//! What events say: their texts from the index, to be looked through one by one.

use query::Page;
use query::cursor::Cursor;
use query::to_index::Prefixes;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::index::{Computed, Index, IndexError};
use super::requests::search_body;
use crate::tenancy::Tenant;

/// An event's texts.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its place in the list.
    pub place: Cursor,
    /// Its message.
    pub message: String,
    /// Its whole text, where that is more.
    pub full_log: Option<String>,
}

#[derive(Deserialize)]
struct Hit {
    sort: (i64, Uuid),
    #[serde(rename = "_source")]
    source: Source,
}

#[derive(Deserialize)]
struct Source {
    message: String,
    full_log: Option<String>,
}

impl Index {
    /// The texts of a page's events, newest first; and whether a part of the index didn't answer.
    pub async fn said(&self, tenant: &Tenant, page: &Page) -> Result<(Vec<Said>, bool), IndexError> {
        let mut body = search_body(tenant.name(), page, Prefixes::SideBySide);
        body["size"] = json!(page.limit);
        body["_source"] = json!(["message", "full_log"]);
        let Computed { hits, partial, .. } = self.compute::<Hit>(tenant, body).await?;
        let said = |Hit { sort: (nanos, event_id), source }: Hit| Said {
            place: Cursor { time: nanos.div_euclid(1000), event_id },
            message: source.message,
            full_log: source.full_log,
        };
        Ok((hits.into_iter().map(said).collect(), partial))
    }
}
