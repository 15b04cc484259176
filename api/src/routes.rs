//! The routes: which role answers them, and what a key must be allowed to use them.

use std::fmt;

use crds::tenant::Scope;

/// A method of HTTP that a route has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Sends or acts.
    Post,
    /// Purges.
    Delete,
}

/// What answers a route. All of them are reached through the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts events.
    Ingest,
    /// Reads what is stored.
    Search,
    /// Shows events as they are stored.
    Tail,
    /// Describes the API itself.
    Gateway,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The method. A live tail is a `GET` that becomes a WebSocket.
    pub method: Method,
    /// The path; `{id}` and `{name}` stand for one segment.
    pub path: &'static str,
    /// Who answers it.
    pub role: Role,
    /// The scope that a key needs; none if no key is needed.
    pub scope: Option<Scope>,
    /// What it answers.
    pub summary: &'static str,
}

/// Sends events.
pub const LOGS: &str = "/logs";
/// The same as [`LOGS`].
pub const DATA_FAST: &str = "/data/fast";
/// Sends events and waits until they are stored.
pub const DATA: &str = "/data/";
/// The same as [`DATA`].
pub const DATA_BARE: &str = "/data";
/// The list of events.
pub const LIST: &str = "/api/logs";
/// One event.
pub const EVENT: &str = "/api/logs/{id}";
/// One event between its neighbours.
pub const CONTEXT: &str = "/api/logs/{id}/context";
/// The search.
pub const SEARCH: &str = "/api/search";
/// Many whole events.
pub const EXPORT: &str = "/api/export";
/// What was understood of a query.
pub const EXPLAIN: &str = "/api/explain";
/// What a question is answered with: events, a table or a chart.
pub const ASK: &str = "/api/query";
/// How many events over time, by level.
pub const HISTOGRAM: &str = "/api/histogram";
/// The values of the fields that LoggerHub has names for.
pub const FACETS: &str = "/api/facets";
/// The fields that events have.
pub const FIELDS: &str = "/api/fields";
/// The values of one field.
pub const VALUES: &str = "/api/fields/{name}/values";
/// What a query may go on with.
pub const COMPLETE: &str = "/api/complete";
/// One batch.
pub const BATCH: &str = "/api/batches/{id}";
/// What the tenant has used.
pub const USAGE: &str = "/api/usage";
/// Whose key it is.
pub const ME: &str = "/api/me";
/// The list of dead letters.
pub const LETTERS: &str = "/api/dead-letters";
/// One dead letter.
pub const LETTER: &str = "/api/dead-letters/{id}";
/// Redrives some.
pub const REDRIVE: &str = "/api/dead-letters/redrive";
/// Redrives one.
pub const REDRIVE_ONE: &str = "/api/dead-letters/{id}/redrive";
/// The live tail.
pub const TAIL: &str = "/ws/logs";
/// The live tail as server-sent events.
pub const TAIL_EVENTS: &str = "/api/tail";
/// What was stored after an event. Search answers it to gateways, and no gateway forwards it.
pub const STORED: &str = "/tail/stored";
/// What there is.
pub const INDEX: &str = "/";
/// The OpenAPI document.
pub const OPENAPI: &str = "/openapi.json";

/// Every route of the API.
pub const ROUTES: [Route; 29] = {
    use Method::{Delete, Get, Post};
    const fn route(
        method: Method,
        path: &'static str,
        role: Role,
        scope: Option<Scope>,
        summary: &'static str,
    ) -> Route {
        Route { method, path, role, scope, summary }
    }
    const INGEST: Option<Scope> = Some(Scope::Ingest);
    const QUERY: Option<Scope> = Some(Scope::Query);
    const ADMIN: Option<Scope> = Some(Scope::Admin);
    [
        route(Post, LOGS, Role::Ingest, INGEST, "sends events: 202 once they are kept"),
        route(Post, DATA_FAST, Role::Ingest, INGEST, "the same as `POST /logs`"),
        route(Post, DATA, Role::Ingest, INGEST, "sends events: 201 once they are stored, or 202 after 10 s"),
        route(Post, DATA_BARE, Role::Ingest, INGEST, "the same as `POST /data/`"),
        route(Get, LIST, Role::Search, QUERY, "events, newest first or oldest first"),
        route(Get, EVENT, Role::Search, QUERY, "one event, whole"),
        route(Get, CONTEXT, Role::Search, QUERY, "one event between its neighbours"),
        route(Get, SEARCH, Role::Search, QUERY, "events that match a query, newest first or oldest first"),
        route(Get, EXPORT, Role::Search, QUERY, "whole events, up to a million, as NDJSON, CSV or text"),
        route(Get, EXPLAIN, Role::Search, QUERY, "what was understood of a query; nothing is searched"),
        route(Get, ASK, Role::Search, QUERY, "what the stages of a query make of events: events, a table or a chart"),
        route(Get, HISTOGRAM, Role::Search, QUERY, "how many events match a query, over time and by level"),
        route(Get, FACETS, Role::Search, QUERY, "the values of service, level, application and language, counted"),
        route(Get, FIELDS, Role::Search, QUERY, "the fields that events have, by a sample"),
        route(Get, VALUES, Role::Search, QUERY, "the values of one field, counted"),
        route(Get, COMPLETE, Role::Search, QUERY, "what a query may go on with at the cursor"),
        route(Get, BATCH, Role::Search, QUERY, "how far a batch has come"),
        route(Get, USAGE, Role::Search, QUERY, "what the tenant sent, by hour, day, key or service"),
        route(Get, ME, Role::Search, QUERY, "whose key it is, and what it may do"),
        route(Get, LETTERS, Role::Search, QUERY, "lines that could not be events, newest first"),
        route(Get, LETTER, Role::Search, QUERY, "one of them with its original bytes"),
        route(Post, REDRIVE, Role::Search, ADMIN, "202: these are tried again"),
        route(Post, REDRIVE_ONE, Role::Search, ADMIN, "202: this one is tried again"),
        route(Delete, LETTERS, Role::Search, ADMIN, "purges those that match"),
        route(Delete, LETTER, Role::Search, ADMIN, "purges one"),
        route(Get, TAIL, Role::Tail, QUERY, "a WebSocket: events as they are stored"),
        route(Get, TAIL_EVENTS, Role::Tail, QUERY, "the same as server-sent events, for `curl -N`"),
        route(Get, INDEX, Role::Gateway, None, "what there is"),
        route(Get, OPENAPI, Role::Gateway, None, "this API as an OpenAPI document"),
    ]
};

impl Method {
    /// As HTTP writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// As people are told of it: `GET /api/logs`, `WS /ws/logs`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = if self.path == TAIL { "WS" } else { self.method.as_str() };
        write!(f, "{method} {}", self.path)
    }
}

/// The routes of one role.
pub fn of(role: Role) -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(move |route| route.role == role)
}
