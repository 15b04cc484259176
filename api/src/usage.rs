//! What a tenant has used, and whose key asks.

use std::borrow::Cow;

use crds::tenant::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Source;

/// Most rows of usage in one answer.
pub const MAX_ROWS: u32 = 2000;

/// What usage is summed up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum By {
    /// By the hour, in UTC.
    Hour,
    /// By the day, in UTC.
    #[default]
    Day,
    /// By the key that sent it.
    Key,
    /// By the service of the events.
    Service,
}

/// How usage is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Form {
    /// JSON.
    #[default]
    Json,
    /// Comma-separated values with a header line.
    Csv,
}

/// What a tenant stored within a time of acceptance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Whose usage.
    pub tenant: String,
    /// What it is summed up by.
    pub by: By,
    /// From when on, by the time of acceptance.
    #[schemars(extend("format" = "date-time"))]
    pub from: String,
    /// Before when.
    #[schemars(extend("format" = "date-time"))]
    pub to: String,
    /// One for each hour, day, key or service that has any; by time, or the largest first.
    pub rows: Vec<UsageRow>,
    /// All rows together.
    pub total: Amount,
    /// Where this answer comes from.
    pub source: Source,
    /// Whether everything that was accepted within the time is counted.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
}

/// The usage of one hour, day, key or service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageRow {
    /// The beginning of the hour or day, the key's id, or the service.
    pub value: String,
    /// The key's name, if the key is still the tenant's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How much.
    #[serde(flatten)]
    pub amount: Amount,
}

/// An amount of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// Events.
    pub events: i64,
    /// Bytes of their lines as they are stored, before compression.
    pub bytes: i64,
}

/// Who a key belongs to, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Me {
    /// The tenant.
    pub tenant: String,
    /// `active`, or `suspended`: nothing new is accepted then.
    pub state: String,
    /// The key that asks.
    pub key: MyKey,
    /// The tenant's plan.
    pub plan: String,
    /// For how many days events can be searched at once.
    pub hot_days: i32,
    /// For how many days events are kept.
    pub total_days: i32,
    /// Events and bytes that may be sent in a second; null where there is no limit.
    pub quotas: MyQuotas,
    /// The version of LoggerHub that answers.
    pub version: String,
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MyKey {
    /// Its public id.
    pub id: String,
    /// Its name in the Tenant.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it ends, if it was replaced by another.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
}

/// A tenant's quotas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MyQuotas {
    /// Bytes a second.
    pub bytes_per_second: Option<u64>,
    /// Events a second.
    pub events_per_second: Option<u64>,
}

impl By {
    /// As it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Key => "key",
            Self::Service => "service",
        }
    }

    /// What a URL says.
    pub fn of(text: &str) -> Option<Self> {
        [Self::Hour, Self::Day, Self::Key, Self::Service].into_iter().find(|by| by.as_str() == text)
    }
}
