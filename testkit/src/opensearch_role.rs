//! OpenSearch as somebody who has one of the shipped roles. The core distribution has no security plugin, so a
//! proxy stands in for it: it knows which permissions each call of ours needs, passes on what the role's document
//! allows, and answers 403 to everything else, calls that it does not know among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use runtime::settings::OpenSearchSettings;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

/// The document that is shipped.
const ROLES: &str = include_str!("../../charts/loggerhub/files/access/opensearch-roles.yml");

/// One role of the document.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Role {
    #[serde(default)]
    cluster_permissions: Vec<String>,
    #[serde(default)]
    index_permissions: Vec<IndexPermissions>,
}

#[derive(Debug, Clone, Deserialize)]
struct IndexPermissions {
    index_patterns: Vec<String>,
    allowed_actions: Vec<String>,
}

/// One permission that a call needs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    /// An action of the cluster.
    Cluster(&'static str),
    /// An action on an index, an alias or a pattern of them.
    Index(&'static str, String),
}

impl Role {
    /// The role of this name.
    pub fn shipped(name: &str) -> anyhow::Result<Self> {
        let mut roles: BTreeMap<String, Self> = serde_saphyr::from_str(ROLES).context("read the shipped roles")?;
        roles.remove(name).with_context(|| format!("no role {name} is shipped"))
    }

    fn allows(&self, need: &Need) -> bool {
        let any = |patterns: &[String], text: &str| patterns.iter().any(|pattern| matches(pattern, text));
        match need {
            Need::Cluster(action) => any(&self.cluster_permissions, action),
            Need::Index(action, name) => self
                .index_permissions
                .iter()
                .any(|on| any(&on.index_patterns, name) && any(&on.allowed_actions, action)),
        }
    }
}

/// A proxy in front of OpenSearch; it ends when it is dropped.
pub struct RoleProxy {
    url: Url,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    role: Role,
    upstream: Url,
    client: reqwest::Client,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    passed: BTreeSet<String>,
    refused: Vec<String>,
}

impl RoleProxy {
    /// Stands in front of `upstream` for somebody who has the role of this name.
    pub async fn start(upstream: &OpenSearchSettings, role: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a proxy")?;
        let url = format!("http://{}", listener.local_addr()?).parse()?;
        let shared = Arc::new(Shared {
            role: Role::shipped(role)?,
            upstream: upstream.url.clone(),
            client: reqwest::Client::new(),
            calls: Mutex::default(),
        });
        let router = Router::new().fallback(pass).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(
            async move { axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned()).await },
        );
        Ok(Self { url, shared, _stop: stop.drop_guard() })
    }

    /// How to reach OpenSearch through it.
    pub fn settings(&self) -> OpenSearchSettings {
        OpenSearchSettings { url: self.url.clone(), opensearch_credentials: None }
    }

    /// The kinds of calls that passed, such as `POST /{index}/_search`.
    pub fn passed(&self) -> BTreeSet<String> {
        self.shared.calls().passed.clone()
    }

    /// The calls that were refused, each with what the role lacks.
    pub fn refused(&self) -> Vec<String> {
        self.shared.calls().refused.clone()
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let verdict = match needs(method.as_str(), uri.path(), &body) {
        None => Err("a call that nobody listed".to_owned()),
        Some((kind, needs)) => match needs.into_iter().find(|need| !shared.role.allows(need)) {
            None => Ok(kind),
            Some(need) => Err(format!("{need:?}")),
        },
    };
    match verdict {
        Err(lacking) => {
            shared.calls().refused.push(format!("{method} {uri}: {lacking}"));
            let answer = serde_json::json!({"error": {"type": "security_exception", "reason": lacking}, "status": 403});
            (StatusCode::FORBIDDEN, axum::Json(answer)).into_response()
        }
        Ok(kind) => {
            shared.calls().passed.insert(kind);
            let mut url = shared.upstream.clone();
            url.set_path(uri.path());
            url.set_query(uri.query());
            let mut request = shared.client.request(method, url).body(body);
            if let Some(kind) = headers.get(CONTENT_TYPE) {
                request = request.header(CONTENT_TYPE, kind);
            }
            match answer(request).await {
                Ok(answer) => answer.into_response(),
                Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
            }
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<(StatusCode, HeaderMap, Bytes)> {
    let answer = request.send().await?;
    let status = answer.status();
    let kind = answer.headers().get(CONTENT_TYPE).cloned();
    Ok((status, kind.map(|kind| (CONTENT_TYPE, kind)).into_iter().collect(), answer.bytes().await?))
}

/// What a call needs, by its method, path and body, beside the kind of call that it is: the one table of it. `None`:
/// nothing of LoggerHub's calls this.
fn needs(method: &str, path: &str, body: &[u8]) -> Option<(String, Vec<Need>)> {
    use Need::Cluster;
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let named = |actions: &[&'static str], names: &str| -> Vec<Need> {
        let mut needs = Vec::new();
        for name in names.split(',') {
            for &action in actions {
                needs.push(Need::Index(action, name.to_owned()));
            }
        }
        needs
    };
    let (kind, needs) = match (method, &segments[..]) {
        ("GET", []) => ("/", vec![Cluster("cluster:monitor/main")]),
        ("GET", ["_cluster", "settings"]) => ("/_cluster/settings", vec![Cluster("cluster:monitor/state")]),
        ("PUT", ["_cluster", "settings"]) => ("/_cluster/settings", vec![Cluster("cluster:admin/settings/update")]),
        ("GET", ["_index_template", _]) => {
            ("/_index_template/{name}", vec![Cluster("indices:admin/index_template/get")])
        }
        ("PUT", ["_index_template", _]) => {
            ("/_index_template/{name}", vec![Cluster("indices:admin/index_template/put")])
        }
        ("GET", ["_cat", "indices", names]) => {
            let mut needs = named(&["indices:monitor/settings/get", "indices:monitor/stats"], names);
            needs.extend([Cluster("cluster:monitor/state"), Cluster("cluster:monitor/health")]);
            ("/_cat/indices/{index}", needs)
        }
        // Of whichever index carries the alias.
        ("GET", ["_alias", _]) => ("/_alias/{alias}", named(&["indices:admin/aliases/get"], "*")),
        ("POST", ["_aliases"]) => ("/_aliases", aliases_of(body)?),
        ("POST", ["_bulk"]) => ("/_bulk", bulk_of(body)?),
        (_, [name, ..]) if name.starts_with('_') => return None,
        ("PUT", [index]) => {
            let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).ok()? };
            let with_aliases = body.get("aliases").is_some();
            let actions = ["indices:admin/create", "indices:admin/aliases"];
            ("/{index}", named(&actions[..1 + usize::from(with_aliases)], index))
        }
        ("DELETE", [names]) => ("/{index}", named(&["indices:admin/delete"], names)),
        ("GET", [names, "_settings", _]) => {
            ("/{index}/_settings/{name}", named(&["indices:monitor/settings/get"], names))
        }
        ("GET", [names, "_alias"]) => ("/{index}/_alias", named(&["indices:admin/aliases/get"], names)),
        ("DELETE", [names, "_alias", _]) => ("/{index}/_alias/{alias}", named(&["indices:admin/aliases"], names)),
        ("POST", [names, "_search"]) => ("/{index}/_search", named(&["indices:data/read/search"], names)),
        // A count is a search for no hits.
        ("POST", [names, "_count"]) => ("/{index}/_count", named(&["indices:data/read/search"], names)),
        ("POST", [names, "_refresh"]) => ("/{index}/_refresh", named(&["indices:admin/refresh"], names)),
        ("POST", [names, "_delete_by_query"]) => {
            let actions = [
                "indices:data/write/delete/byquery",
                "indices:data/read/search",
                "indices:data/write/bulk[s]",
                "indices:data/write/delete",
                "indices:admin/refresh",
            ];
            let mut needs = named(&actions, names);
            needs.extend([
                Cluster("indices:data/read/scroll"),
                Cluster("indices:data/read/scroll/clear"),
                Cluster("indices:data/write/bulk"),
            ]);
            ("/{index}/_delete_by_query", needs)
        }
        _ => return None,
    };
    Some((format!("{method} {kind}"), needs))
}

/// The indices that a change of aliases is about.
fn aliases_of(body: &[u8]) -> Option<Vec<Need>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let add = |action: &Value| Some(Need::Index("indices:admin/aliases", action["add"]["index"].as_str()?.to_owned()));
    body["actions"].as_array()?.iter().map(add).collect()
}

/// What each item of a `_bulk` does to its index.
fn bulk_of(body: &[u8]) -> Option<Vec<Need>> {
    let mut needs = vec![Need::Cluster("indices:data/write/bulk")];
    let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        let action: BTreeMap<String, Value> = serde_json::from_slice(line).ok()?;
        let (name, target) = action.first_key_value()?;
        let action = match name.as_str() {
            "create" => "indices:data/write/index",
            "delete" => "indices:data/write/delete",
            _ => return None,
        };
        if action != "indices:data/write/delete" {
            lines.next()?;
        }
        let index = target["_index"].as_str()?;
        for action in ["indices:data/write/bulk[s]", action] {
            let need = Need::Index(action, index.to_owned());
            if !needs.contains(&need) {
                needs.push(need);
            }
        }
    }
    Some(needs)
}

/// Whether the text is one of a pattern's, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, rest)) => text.strip_prefix(before).is_some_and(|text| {
            rest.is_empty()
                || (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_matched_as_a_whole() {
        for (pattern, text, expected) in [
            ("lh-hot*", "lh-hot7-p0-000001", true),
            ("lh-hot*", "lh-own-a-000001", false),
            ("lh-hot*", "*", false),
            ("indices:data/write/bulk*", "indices:data/write/bulk[s]", true),
            ("indices:admin/aliases", "indices:admin/aliases/get", false),
            ("*", "anything", true),
            ("a*c", "abcc", true),
            ("a*c", "abcd", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// What each program's role refuses. Its other half, what each allows, is every test that runs a program
    /// through the proxy.
    #[test]
    fn no_role_allows_what_its_program_does_not_do() {
        let create = r#"{"create":{"_index":"lh-own-a-000001","_id":"1"}}"#.to_owned() + "\n{}\n";
        let elsewhere = create.replace("lh-own-a-000001", "others");
        let delete = "{\"delete\":{\"_index\":\"lh-own-a-000001\",\"_id\":\"1\"}}\n";
        let programs = ["loggerhub_operator", "loggerhub_process", "loggerhub_maintain", "loggerhub_search"];
        for (method, path, body, allowed) in [
            ("GET", "/", "", [true, true, false, false]),
            ("POST", "/_bulk", &create[..], [false, true, true, false]),
            ("POST", "/_bulk", delete, [true, false, true, false]),
            ("POST", "/_bulk", &elsewhere[..], [false; 4]),
            ("POST", "/lh-t-a/_search", "{}", [true, false, true, true]),
            ("POST", "/lh-own-a-000001/_search", "{}", [true, false, true, false]),
            ("POST", "/lh-t-a,others/_search", "{}", [false; 4]),
            ("POST", "/others/_search", "{}", [false; 4]),
            ("POST", "/_search", "{}", [false; 4]),
            ("POST", "/*/_search", "{}", [false; 4]),
            ("POST", "/_all/_search", "{}", [false; 4]),
            ("PUT", "/lh-own-a-000002", r#"{"aliases":{}}"#, [true, false, true, false]),
            ("PUT", "/others", "", [false; 4]),
            ("DELETE", "/lh-own-a-000001", "", [true, false, true, false]),
            ("DELETE", "/others", "", [false; 4]),
            ("DELETE", "/*", "", [false; 4]),
            ("GET", "/_alias/lh-t-a", "", [true, false, false, false]),
            ("GET", "/lh-own-a-000001/_alias", "", [true, false, true, false]),
            ("POST", "/_aliases", r#"{"actions":[{"add":{"index":"lh-own-a-000001"}}]}"#, [true, false, true, false]),
            ("POST", "/_aliases", r#"{"actions":[{"add":{"index":"others"}}]}"#, [false; 4]),
            ("POST", "/_aliases", r#"{"actions":[{"remove":{"index":"lh-own-a-000001"}}]}"#, [false; 4]),
            ("GET", "/_cat/indices/lh-own-a-*", "", [false, false, true, false]),
            ("PUT", "/_cluster/settings", "{}", [true, false, false, false]),
            ("PUT", "/_index_template/loggerhub-logs", "{}", [true, false, false, false]),
            ("DELETE", "/_index_template/loggerhub-logs", "", [false; 4]),
            ("POST", "/lh-own-a-000001/_delete_by_query", "{}", [true, false, false, false]),
            ("POST", "/others/_delete_by_query", "{}", [false; 4]),
            ("PUT", "/_snapshot/stolen", "{}", [false; 4]),
            ("POST", "/_reindex", "{}", [false; 4]),
            ("GET", "/_cat/indices", "", [false; 4]),
            ("PUT", "/_plugins/_security/api/roles/loggerhub_search", "{}", [false; 4]),
        ] {
            let needs = needs(method, path, body.as_bytes());
            for (program, allowed) in programs.iter().zip(allowed) {
                let role = Role::shipped(program).unwrap();
                let allows = needs.as_ref().is_some_and(|(_, needs)| needs.iter().all(|need| role.allows(need)));
                assert_eq!(allows, allowed, "{program}: {method} {path} {body}");
            }
        }
    }
}
