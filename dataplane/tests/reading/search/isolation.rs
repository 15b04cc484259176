//! Every route, asked by everybody.

use api::routes::{self, Role, Route};
use crds::tenant::Scope;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::http::Door;

use crate::house::{House, Stored, with_wrong_secret};

/// What is stored for a route to be asked about: an event, and a line that can't be one.
const LINES: [&str; 2] = [r#"{"message":"the treasure of the first"}"#, "the treasure in pieces"];

fn method(route: &Route) -> Method {
    route.method.as_str().parse().expect("a method")
}

/// The route as a request for what `stored` holds.
fn request(door: &Door, route: &Route, stored: &Stored) -> RequestBuilder {
    let (event, batch) = (stored.first_event().to_string(), stored.batch.batch_id.to_string());
    let letter = stored.batch.dead_letters[0].id.to_string();
    let (path, body) = match (&method(route), route.path) {
        (&Method::GET, "/api/logs") => (route.path.to_owned(), None),
        (&Method::GET, "/api/search") => (format!("{}?q=treasure", route.path), None),
        (&Method::GET, "/api/usage" | "/api/me" | "/api/export") => (route.path.to_owned(), None),
        (&Method::GET, "/api/query" | "/api/histogram" | "/api/facets" | "/api/fields") => {
            (format!("{}?q=treasure", route.path), None)
        }
        (&Method::GET, "/api/fields/{name}/values") => (route.path.replace("{name}", "level"), None),
        (&Method::GET, "/api/complete") => (format!("{}?q=level:", route.path), None),
        (&Method::GET, "/api/explain") => (format!("{}?q=x", route.path), None),
        (&Method::GET, "/api/logs/{id}" | "/api/logs/{id}/context") => (route.path.replace("{id}", &event), None),
        (&Method::GET, "/api/batches/{id}") => (route.path.replace("{id}", &batch), None),
        (&Method::GET, "/api/dead-letters") => (route.path.to_owned(), None),
        (&Method::DELETE, "/api/dead-letters") => (format!("{}?batch={batch}", route.path), None),
        (_, "/api/dead-letters/{id}" | "/api/dead-letters/{id}/redrive") => (route.path.replace("{id}", &letter), None),
        (_, "/api/dead-letters/redrive") => (route.path.to_owned(), Some(json!({"ids": [letter]}))),
        other => panic!("say how {other:?} asks for what is stored"),
    };
    let request = door.request(method(route), &path);
    if let Some(body) = body { request.json(&body) } else { request }
}

/// An answer, or of an export the line that says what it had.
fn last_line(body: &str) -> serde_json::Result<Value> {
    serde_json::from_str(body.lines().last().unwrap_or_default())
}

#[tokio::test]
async fn on_every_route_a_key_sees_its_own_tenant_and_nothing_else() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, ingest_only] = &house.seats[..] else { panic!("three tenants") };
    let door = Door::at(&search.url, &search.url)?;
    for route in routes::of(Role::Search) {
        let stored = house.store(own, &LINES.map(str::to_owned)).await?;
        house.index(own, &stored).await?;
        let what = route.to_string();
        let manages = route.scope == Some(Scope::Admin);
        let (mine, theirs) = if manages { (&own.admin, &other.admin) } else { (&own.key, &other.key) };
        let lacking = if manages { [&own.key, &ingest_only.key] } else { [&own.admin, &ingest_only.key] };
        let wrong = with_wrong_secret(mine);
        let as_key = |key: &str| request(&door.with_key(key), route, &stored);

        for (request, refusal) in [
            (request(&door, route, &stored), (401, "missing_api_key")),
            (as_key(&wrong), (401, "invalid_api_key")),
            (as_key("nonsense"), (401, "invalid_api_key")),
            (as_key(lacking[0]), (403, "scope_missing")),
            (as_key(lacking[1]), (403, "scope_missing")),
            (as_key(mine).header("x-scope-orgid", other.tenant.name().as_str()), (403, "tenant_mismatch")),
            (door.with_key(mine).request(Method::PATCH, route.path), (405, "method_not_allowed")),
        ] {
            assert_eq!(Door::refusal(request).await?, (refusal.0, refusal.1.to_owned()), "{what}");
        }
        if route.path.contains("{id}") {
            for none in ["1", "' or 1=1", "%ff%fe", "%00"] {
                let request = door.with_key(mine).request(method(route), &route.path.replace("{id}", none));
                assert_eq!(Door::refusal(request).await?, (404, "not_found".to_owned()), "{what}: {none}");
            }
        }

        if matches!(route.path, routes::EXPLAIN | routes::ME) {
            // They ask no store.
            continue;
        }
        if route.path == routes::USAGE {
            // It tells of no event.
            let told: Value = as_key(theirs).send().await?.error_for_status()?.json().await?;
            assert_eq!(told["tenant"], json!(other.tenant.name().as_str()), "{told}");
            continue;
        }

        let response = as_key(theirs).send().await?;
        let (status, body) = (response.status().as_u16(), response.text().await?);
        let answer = last_line(&body)?;
        let is_empty = |list: &str| answer[list].as_array().is_some_and(Vec::is_empty);
        let nothing = is_empty("items")
            || is_empty("fields")
            || answer["total"] == json!(0)
            || answer["export"]["events"] == json!(0)
            || answer["marked"] == json!(0)
            || answer["purged"] == json!(0);
        assert!(status == 404 || (matches!(status, 200 | 202) && nothing), "{what}: {status} {body}");
        for secret in ["treasure", &stored.first_event().to_string(), &stored.batch.dead_letters[0].id.to_string()] {
            assert!(!body.contains(secret), "{what}: {body}");
        }

        let response = as_key(mine).send().await?;
        let (status, body) = (response.status().as_u16(), response.text().await?);
        let answer = last_line(&body)?;
        let has_some = |list: &str| answer[list].as_array().is_some_and(|list| !list.is_empty());
        let found = body.contains(&stored.batch.batch_id.to_string())
            || answer["total"].as_u64().is_some_and(|total| total > 0)
            || has_some("fields")
            || (route.path == routes::COMPLETE && has_some("items"))
            || answer["marked"] == json!(1)
            || answer["purged"] == json!(1);
        assert!(matches!(status, 200 | 202) && found, "{what}: {status} {body}");
    }
    house.retire().await
}
