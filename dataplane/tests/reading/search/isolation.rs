//! Every route, asked by everybody.

use dataplane::search::ROUTES;
use reqwest::Method;
use serde_json::Value;
use testkit::http::Door;

use crate::house::{House, Stored};

/// The route as a request for what `stored` holds.
fn request_path(route: &str, stored: &Stored) -> String {
    match route {
        "/api/logs" => route.to_owned(),
        "/api/search" => format!("{route}?q=treasure"),
        "/api/logs/{id}" => route.replace("{id}", &stored.first_event().to_string()),
        "/api/batches/{id}" => route.replace("{id}", &stored.batch.batch_id.to_string()),
        other => panic!("say how {other} asks for a stored event"),
    }
}

#[tokio::test]
async fn on_every_route_a_key_sees_its_own_tenant_and_nothing_else() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, ingest_only] = &house.seats[..] else { panic!("three tenants") };
    let stored = house.store(own, &[r#"{"message":"the treasure of the first"}"#.to_owned()]).await?;
    house.index(own, &stored).await?;

    let door = Door::at(&search.url, &search.url)?;
    let wrong = format!("{}x", &own.key[..own.key.len() - 1]);
    for route in ROUTES {
        let path = request_path(route, &stored);
        let asked_with = async |key: &str| {
            let response = door.with_key(key).request(Method::GET, &path).send().await?;
            Ok::<(u16, String), anyhow::Error>((response.status().as_u16(), response.text().await?))
        };
        let id = stored.first_event().to_string();

        let (status, body) = asked_with(&own.key).await?;
        assert!(status == 200 && body.contains(&stored.batch.batch_id.to_string()), "{path}: {status} {body}");
        let (status, body) = asked_with(&other.key).await?;
        let nothing = serde_json::from_str::<Value>(&body)?["items"].as_array().is_some_and(Vec::is_empty);
        assert!(status == 404 || (status == 200 && nothing), "{path}: {status} {body}");
        assert!(!body.contains("treasure") && !body.contains(&id), "{path}: {body}");

        let refused = async |request| Door::refusal(request).await;
        let named =
            door.with_key(&own.key).request(Method::GET, &path).header("x-scope-orgid", other.tenant.name().as_str());
        for (request, code) in [
            (door.request(Method::GET, &path), (401, "missing_api_key")),
            (door.with_key(&wrong).request(Method::GET, &path), (401, "invalid_api_key")),
            (door.with_key("nonsense").request(Method::GET, &path), (401, "invalid_api_key")),
            (door.with_key(&ingest_only.key).request(Method::GET, &path), (403, "scope_missing")),
            (named, (403, "tenant_mismatch")),
            (door.with_key(&own.key).request(Method::POST, &path), (405, "method_not_allowed")),
        ] {
            assert_eq!(refused(request).await?, (code.0, code.1.to_owned()), "{path}");
        }
    }
    house.retire().await
}
