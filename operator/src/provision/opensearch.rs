//! OpenSearch: the one index template, the index that a series is written to, and each tenant's
//! filtered, routed alias on every index of its series.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opensearch::OpenSearch;
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use opensearch::http::request::JsonBody;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crds::TenantName;
use crds::names::{INDEX_TEMPLATE, index_name};

use crate::fail_points::{Point, reach};
use crate::provision::{DesiredTenant, Error, Outcome, Owner, Retired};

mod auto_create;
mod template;

pub use template::Shape;

/// Documents that one delete-by-query takes: some seconds of work, well below the client's timeout.
const DELETE_BATCH: u64 = 20_000;
/// Such batches in one `retire`: a minute or so, then the caller shows progress and comes again.
const DELETE_ROUNDS: usize = 10;
/// Time between two looks at what all tenants share: with a thousand of them each resync would look a
/// thousand times.
const SHARED_LOOK_EVERY: Duration = Duration::from_secs(60);

/// OpenSearch, and what the installation says about its indices.
#[derive(Clone)]
pub struct Search {
    client: OpenSearch,
    installation: String,
    shape: Shape,
    /// When what all tenants share was last seen to be right.
    shared_looked_at: Arc<Mutex<Option<Instant>>>,
}

/// An answer: its status and its JSON.
struct Answer {
    status: u16,
    body: Value,
}

impl Search {
    /// `shape` is that of the indices that are made from now on.
    pub fn new(client: OpenSearch, installation: impl Into<String>, shape: Shape) -> Self {
        Self { client, installation: installation.into(), shape, shared_looked_at: Arc::default() }
    }

    /// The next [`ensure`](Self::ensure) looks at everything, also at what was looked at a moment ago.
    pub async fn look_anew(&self) {
        *self.shared_looked_at.lock().await = None;
    }

    /// Ensures template, write index and alias. Without `write_number` (PostgreSQL is down) no
    /// index is made, and what is there gets its alias.
    pub async fn ensure(
        &self,
        desired: &DesiredTenant,
        series: &str,
        write_number: Option<i64>,
    ) -> Result<Outcome, Error> {
        let mut outcome = self.ensure_shared(desired.adopt).await?;
        let mut indices = self.indices(series).await?;
        if let Some(index) = write_number.map(|number| index_name(series, number))
            && !indices.contains(&index)
        {
            // It takes its mapping from the template, which may be gone with the index.
            self.look_anew().await;
            outcome = outcome.and(self.ensure_shared(desired.adopt).await?).and(self.create_index(&index).await?);
            reach(Point::IndexMade);
            indices.push(index);
        }
        let aliased = self.ensure_alias(desired, &indices).await?;
        reach(Point::AliasAdded);
        Ok(outcome.and(aliased))
    }

    /// Removes the tenant's documents and alias; its own indices entirely. Only where the alias or
    /// the index is ours by name and filter.
    pub async fn retire(&self, owner: &Owner) -> Result<Retired, Error> {
        let tenant = &owner.tenant;
        let own = self.indices(&tenant.dedicated_series()).await?;
        let aliased = self.aliases(tenant).await?;
        let shared: Vec<&str> = aliased
            .iter()
            .map(|(index, _)| index.as_str())
            .filter(|index| !own.iter().any(|own| own == index))
            .collect();
        for (index, alias) in &aliased {
            if *alias != alias_of(tenant) {
                return Err(foreign_alias(tenant, index));
            }
        }
        if !shared.is_empty() && self.delete_documents(tenant, &shared).await? == Retired::More {
            return Ok(Retired::More);
        }
        reach(Point::DocumentsRemoved);
        if !aliased.is_empty() {
            let path = format!("/{}/_alias/{}", joined(aliased.iter().map(|(index, _)| index)), tenant.index_alias());
            self.call(Method::Delete, &path, &[], None, "remove the tenant's alias", &[404]).await?;
        }
        reach(Point::AliasRemoved);
        for index in own {
            self.call(Method::Delete, &format!("/{index}"), &[], None, "delete an index of the tenant", &[404]).await?;
        }
        reach(Point::SearchRetired);
        Ok(Retired::Done)
    }

    /// Whether OpenSearch answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call(Method::Get, "/", &[], None, "ask for its version", &[]).await.map(drop)
    }

    /// Ensures what all tenants share. Whoever comes while somebody looks waits for that look.
    async fn ensure_shared(&self, adopt: bool) -> Result<Outcome, Error> {
        let mut looked_at = self.shared_looked_at.lock().await;
        if looked_at.is_some_and(|at| at.elapsed() < SHARED_LOOK_EVERY) {
            return Ok(Outcome::Unchanged);
        }
        let outcome = self.ensure_template(adopt).await?.and(self.forbid_auto_create().await?);
        *looked_at = Some(Instant::now());
        Ok(outcome)
    }

    async fn ensure_template(&self, adopt: bool) -> Result<Outcome, Error> {
        let path = format!("/_index_template/{INDEX_TEMPLATE}");
        let wanted = template::template(&self.installation, self.shape);
        let found = self.call(Method::Get, &path, &[], None, "read the index template", &[404]).await?;
        let found = found.body.pointer("/index_templates/0/index_template");
        let outcome = match template::compare(found, &wanted, adopt) {
            template::Comparison::Same => return Ok(Outcome::Unchanged),
            template::Comparison::Foreign(says) => {
                return Err(Error::OwnershipConflict { thing: format!("index template `{INDEX_TEMPLATE}`"), says });
            }
            template::Comparison::Absent => Outcome::Created,
            template::Comparison::Differs => Outcome::Updated,
        };
        self.call(Method::Put, &path, &[], Some(wanted), "write the index template", &[]).await?;
        Ok(outcome)
    }

    /// Sees to it that only we make indices of ours. A login that may not change the cluster's
    /// settings is told, and goes on: somebody else has to set it then.
    async fn forbid_auto_create(&self) -> Result<Outcome, Error> {
        const SETTING: &str = "action.auto_create_index";
        let doing = "forbid indices that a write makes";
        let query = [("include_defaults", "true"), ("filter_path", "*.action.auto_create_index")];
        let found = self.call(Method::Get, "/_cluster/settings", &query, None, doing, &[403]).await?;
        let current = |level: &str| found.body.pointer(&format!("/{level}/action/auto_create_index"))?.as_str();
        // A transient setting wins over a persistent one.
        let level = if current("transient").is_some() { "transient" } else { "persistent" };
        let current = current(level).or(current("persistent")).or(current("defaults"));
        let Some(wanted) = auto_create::wanted(current).filter(|_| found.status == 200) else {
            return Ok(Outcome::Unchanged);
        };
        let body = json!({level: {SETTING: wanted}});
        let answer = self.call(Method::Put, "/_cluster/settings", &[], Some(body), doing, &[403]).await?;
        if answer.status == 403 {
            tracing::warn!("OpenSearch does not let us change its settings: set {SETTING} to {wanted}");
            return Ok(Outcome::Unchanged);
        }
        Ok(Outcome::Updated)
    }

    /// The concrete indices of a series, in the order of their numbers.
    async fn indices(&self, series: &str) -> Result<Vec<String>, Error> {
        let path = format!("/{series}-*/_settings/index.uuid");
        let query = [("allow_no_indices", "true"), ("flat_settings", "true")];
        let answer = self.call(Method::Get, &path, &query, None, "list the indices of a series", &[404]).await?;
        let mut indices = Vec::new();
        if let (200, Some(found)) = (answer.status, answer.body.as_object()) {
            indices.extend(found.keys().filter(|index| is_of_series(index, series)).cloned());
        }
        indices.sort();
        Ok(indices)
    }

    async fn create_index(&self, index: &str) -> Result<Outcome, Error> {
        let path = format!("/{index}");
        let query = [("timeout", "10s")];
        let answer = self.call(Method::Put, &path, &query, None, "create an index", &[400]).await?;
        // Another tenant of the pool may have been faster.
        let exists = answer.body.pointer("/error/type") == Some(&json!("resource_already_exists_exception"));
        match answer.status {
            400 if exists => Ok(Outcome::Unchanged),
            400 => Err(refused("create an index", &answer)),
            _ => Ok(Outcome::Created),
        }
    }

    async fn ensure_alias(&self, desired: &DesiredTenant, indices: &[String]) -> Result<Outcome, Error> {
        let tenant = desired.name();
        let aliased = self.aliases(tenant).await?;
        for (index, alias) in &aliased {
            if *alias != alias_of(tenant) && !desired.adopt {
                return Err(foreign_alias(tenant, index));
            }
        }
        let right = |index: &String| aliased.iter().any(|(name, alias)| name == index && *alias == alias_of(tenant));
        let wrong = aliased.iter().filter(|(_, alias)| *alias != alias_of(tenant)).map(|(index, _)| index);
        let missing: Vec<&String> = indices.iter().filter(|index| !right(index)).chain(wrong).collect();
        if missing.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        let add = |index: &&String| {
            let mut action = alias_of(tenant);
            action["index"] = json!(index);
            action["alias"] = json!(tenant.index_alias());
            json!({ "add": action })
        };
        let body = json!({"actions": missing.iter().map(add).collect::<Vec<_>>()});
        self.call(Method::Post, "/_aliases", &[], Some(body), "add the tenant's alias", &[]).await?;
        Ok(if aliased.is_empty() { Outcome::Created } else { Outcome::Updated })
    }

    /// Each index that carries the tenant's alias, with the alias's definition.
    async fn aliases(&self, tenant: &TenantName) -> Result<Vec<(String, Value)>, Error> {
        let alias = tenant.index_alias();
        let path = format!("/_alias/{alias}");
        let answer = self.call(Method::Get, &path, &[], None, "read the tenant's alias", &[404]).await?;
        let Some(found) = answer.body.as_object().filter(|_| answer.status == 200) else {
            return Ok(Vec::new());
        };
        let definition =
            |on: &Value| on.pointer("/aliases").and_then(|aliases| aliases.get(&alias)).cloned().map(normalized_alias);
        Ok(found.iter().filter_map(|(index, on)| Some((index.clone(), definition(on)?))).collect())
    }

    async fn delete_documents(&self, tenant: &TenantName, indices: &[&str]) -> Result<Retired, Error> {
        let path = format!("/{}/_delete_by_query", joined(indices));
        let max_docs = DELETE_BATCH.to_string();
        let query = [("conflicts", "proceed"), ("refresh", "true"), ("max_docs", &max_docs), ("timeout", "20s")];
        let body = json!({"query": {"term": {"tenant": tenant}}});
        for _ in 0..DELETE_ROUNDS {
            let answer = self
                .call(Method::Post, &path, &query, Some(body.clone()), "delete the tenant's documents", &[404])
                .await?;
            if answer.body.get("total").and_then(Value::as_u64).unwrap_or(0) == 0 {
                return Ok(Retired::Done);
            }
        }
        Ok(Retired::More)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
        doing: &'static str,
        also: &[u16],
    ) -> Result<Answer, Error> {
        let failed = |source| Error::Search { doing, source };
        let body = body.map(JsonBody::new);
        let response = self
            .client
            .send(method, path, HeaderMap::new(), Some(query), body, None::<Duration>)
            .await
            .map_err(failed)?;
        let status = response.status_code().as_u16();
        let text = response.text().await.map_err(failed)?;
        let answer = Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) };
        if (200..300).contains(&status) || also.contains(&status) { Ok(answer) } else { Err(refused(doing, &answer)) }
    }
}

fn refused(doing: &'static str, answer: &Answer) -> Error {
    let reason = answer.body.pointer("/error/reason").unwrap_or(&answer.body);
    let text = reason.as_str().map_or_else(|| reason.to_string(), str::to_owned);
    Error::SearchAnswer { doing, status: answer.status, answer: text.chars().take(300).collect() }
}

fn foreign_alias(tenant: &TenantName, index: &str) -> Error {
    let thing = format!("OpenSearch alias `{}` on index `{index}`", tenant.index_alias());
    Error::OwnershipConflict { thing, says: "its filter is not exactly this tenant".to_owned() }
}

/// What the tenant's alias is: it shows the tenant's documents only, and reads the shards that hold them.
fn alias_of(tenant: &TenantName) -> Value {
    json!({"filter": {"term": {"tenant": tenant}}, "routing": tenant})
}

/// An alias as OpenSearch shows it, in the form of [`alias_of`].
fn normalized_alias(shown: Value) -> Value {
    let routing = shown.get("index_routing").filter(|routing| Some(*routing) == shown.get("search_routing")).cloned();
    // The term may be shown in its long form.
    let term = shown.pointer("/filter/term/tenant").map(|term| term.get("value").unwrap_or(term).clone());
    let filters = shown.pointer("/filter").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    match (term, filters) {
        (Some(term), 1) => json!({"filter": {"term": {"tenant": term}}, "routing": routing}),
        _ => json!({"filter": shown.get("filter"), "routing": routing}),
    }
}

/// `series-000001`, but not an index of another series whose name begins alike.
fn is_of_series(index: &str, series: &str) -> bool {
    let number = index.strip_prefix(series).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| number.len() >= 6 && number.bytes().all(|digit| digit.is_ascii_digit()))
}

fn joined<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for name in names {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name.as_ref());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_its_own_indices_only() {
        for (index, of) in [
            ("lh-own-acme-000001", true),
            ("lh-own-acme-1000000", true),
            ("lh-own-acme-corp-000001", false),
            ("lh-own-acme-000001-000001", false),
            ("lh-own-acme-1", false),
            ("lh-own-acme", false),
        ] {
            assert_eq!(is_of_series(index, "lh-own-acme"), of, "{index}");
        }
    }

    #[test]
    fn an_alias_is_ours_if_its_filter_and_routing_are_exactly_the_tenant() {
        let acme: TenantName = "acme".parse().unwrap();
        let shown = |filter: Value, routing: &str| {
            normalized_alias(json!({"filter": filter, "index_routing": routing, "search_routing": routing}))
        };
        assert_eq!(shown(json!({"term": {"tenant": "acme"}}), "acme"), alias_of(&acme));
        assert_eq!(shown(json!({"term": {"tenant": {"value": "acme", "boost": 1.0}}}), "acme"), alias_of(&acme));
        for foreign in [
            shown(json!({"term": {"tenant": "globex"}}), "acme"),
            shown(json!({"match_all": {}}), "acme"),
            shown(json!({"term": {"tenant": "acme"}}), "globex"),
            normalized_alias(json!({})),
        ] {
            assert_ne!(foreign, alias_of(&acme));
        }
    }
}
