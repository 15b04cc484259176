//! What one tenant can try with another's receipts, cursors, batches and names of fields.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dataplane::tenancy::Receipt;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::http::Door;

use crate::house::{House, now};

#[tokio::test]
async fn a_receipt_is_its_tenants_and_cant_be_made_up() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let door = Door::at(&search.url, &search.url)?;
    let batch_id = dataplane::event::new_batch_id();
    let receipt = |of: &crate::house::Seat, batch_id| {
        let receipt = Receipt { tenant: of.tenant.name().clone(), batch_id, accepted_at: now(), events: 3 };
        house.registry.peppers().sign(&receipt)
    };
    let ask = async |key: &str, receipt: &str| {
        let request = door.with_key(key).request(Method::GET, &format!("/api/batches/{batch_id}?receipt={receipt}"));
        let response = request.send().await?;
        let (status, answer) = (response.status().as_u16(), response.json::<Value>().await?);
        let told = answer["error"]["code"].as_str().or(answer["state"].as_str()).unwrap_or_default().to_owned();
        anyhow::Ok((status, told))
    };
    let good = receipt(own, batch_id);
    let (queued, invalid) = ((200, "queued".to_owned()), (400, "invalid_receipt".to_owned()));
    assert_eq!(ask(&own.key, &good).await?, queued);

    let bytes = URL_SAFE_NO_PAD.decode(&good)?;
    let named =
        bytes.windows(own.tenant.name().as_str().len()).position(|at| at == own.tenant.name().as_str().as_bytes());
    let named = named.expect("the tenant's name is in it");
    let renamed = {
        let mut bytes = bytes.clone();
        let name = other.tenant.name().as_str().as_bytes();
        bytes[named..named + name.len()].copy_from_slice(name);
        URL_SAFE_NO_PAD.encode(bytes)
    };
    for (name, key, receipt) in [
        ("shown by another tenant", &other.key, good.clone()),
        ("another tenant's", &own.key, receipt(other, batch_id)),
        ("of another batch", &own.key, receipt(own, dataplane::event::new_batch_id())),
        ("with the other's name, shown by it", &other.key, renamed.clone()),
        ("with the other's name, shown by the first", &own.key, renamed),
        ("without its end", &own.key, good[..good.len() - 4].to_owned()),
        ("twice", &own.key, format!("{good}{good}")),
        ("nothing", &own.key, String::new()),
    ] {
        assert_eq!(ask(key, &receipt).await?, invalid, "{name}");
    }
    // One bit in each byte, and every bit of the tag.
    let bits = (0..bytes.len()).map(|at| at * 8 + at % 8).chain((bytes.len() - 16) * 8..bytes.len() * 8);
    for bit in bits {
        let mut forged = bytes.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(ask(&own.key, &URL_SAFE_NO_PAD.encode(forged)).await?, invalid, "bit {bit}");
    }
    house.retire().await
}

#[tokio::test]
async fn a_cursor_is_of_one_route_and_its_filters_and_shows_nobody_elses() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let lines = |whose: &str| ["a", "b", "c"].map(|n| format!("{{\"message\":\"{whose} {n}\"}}")).to_vec();
    let broken = vec!["broken".to_owned(), "in pieces".to_owned()];
    for (seat, whose) in [(own, "mine"), (other, "theirs")] {
        let stored = house.store(seat, &[lines(whose), broken.clone()].concat()).await?;
        house.index(seat, &stored).await?;
    }
    let door = Door::at(&search.url, &search.url)?;
    let ask = async |key: &str, path: &str| {
        let response = door.with_key(key).request(Method::GET, path).send().await?;
        anyhow::Ok((response.status().as_u16(), response.json::<Value>().await?))
    };
    let lists = [
        "/api/logs?limit=1",
        "/api/logs?limit=1&level=info",
        "/api/logs?limit=1&text=mine",
        "/api/search?limit=1&q=mine",
        "/api/search?limit=1&q=mine&level=info",
        "/api/dead-letters?limit=1",
        "/api/dead-letters?limit=1&code=invalid_json",
    ];
    for given in lists {
        let (status, page) = ask(&own.key, given).await?;
        let cursor = page["next_cursor"].as_str().unwrap_or_else(|| panic!("{given}: {status} {page}"));
        for list in lists {
            let (status, page) = ask(&own.key, &format!("{list}&cursor={cursor}")).await?;
            if list == given {
                assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(1)), "{list}: {page}");
            } else {
                assert_eq!((status, &page["error"]["code"]), (400, &json!("invalid_cursor")), "{given} at {list}");
            }
            // A cursor is a place in time: it opens nothing that its bearer may not read.
            let (_, page) = ask(&other.key, &format!("{list}&cursor={cursor}")).await?;
            assert!(!page.to_string().contains("mine"), "{given} at {list}: {page}");
        }
        let (status, page) = ask(&own.key, &format!("{given}&cursor=AQAGCiQYICJAAAAAAAAAAAAAAAAAAAAAB_AlqGU")).await?;
        assert_eq!((status, &page["error"]["code"]), (400, &json!("invalid_cursor")), "of the form before: {given}");
    }
    house.retire().await
}

#[tokio::test]
async fn another_tenants_letters_can_be_neither_tried_again_nor_purged() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let stored = house.store(own, &["broken".to_owned(), "in pieces".to_owned()]).await?;
    let (letter, batch) = (stored.batch.dead_letters[0].id, stored.batch.batch_id);
    let door = Door::at(&search.url, &search.url)?;
    let theirs = door.with_key(&other.admin);
    let redrive = "/api/dead-letters/redrive";
    for (method, path, body) in [
        (Method::POST, redrive.to_owned(), Some(json!({"ids": [letter]}))),
        (Method::POST, redrive.to_owned(), Some(json!({"filter": {"batch": batch}}))),
        (Method::POST, redrive.to_owned(), Some(json!({"filter": {"code": "invalid_json"}}))),
        (Method::POST, redrive.to_owned(), Some(json!({"all": true}))),
        (Method::POST, format!("/api/dead-letters/{letter}/redrive"), None),
        (Method::DELETE, format!("/api/dead-letters/{letter}"), None),
        (Method::DELETE, format!("/api/dead-letters?batch={batch}"), None),
        (Method::DELETE, "/api/dead-letters?code=invalid_json".to_owned(), None),
        (Method::DELETE, "/api/dead-letters?all=true".to_owned(), None),
    ] {
        let request = theirs.request(method.clone(), &path);
        let request = if let Some(body) = &body { request.json(body) } else { request };
        let response = request.send().await?;
        let (status, answer) = (response.status().as_u16(), response.json::<Value>().await?);
        let nothing = answer["marked"] == 0 || answer["purged"] == 0 || answer["error"]["code"] == "not_found";
        assert!(nothing, "{method} {path} {body:?}: {status} {answer}");
    }
    let kept = door.with_key(&own.key).dead_letters("").await?.items;
    assert!(kept.len() == 2 && kept.iter().all(|letter| letter.redrive_requested_at.is_none()), "{kept:?}");
    house.retire().await
}

#[tokio::test]
async fn a_field_named_like_one_of_ours_is_an_attribute() -> anyhow::Result<()> {
    let house = House::new().await?;
    let (with, without) = (house.search().await?, house.search_without_index().await?);
    let [own, other, _] = &house.seats[..] else { panic!("three tenants") };
    let theirs = house.store(other, &["{\"message\":\"theirs\"}".to_owned()]).await?;
    let (name, event, batch) = (other.tenant.name(), theirs.first_event(), theirs.batch.batch_id);
    let forged = json!({
        "id": event, "_id": event, "event_id": event, "batch_id": batch, "batch": batch,
        "_index": theirs.index_name, "_routing": name, "routing": name, "_source": {"tenant": name}, "_op_type": "index",
        "tenant": name, "tenant_id": name, "index_error": "forged", "indexed": false,
        "accepted_at": "1999-01-01T00:00:00Z", "stored_at": "1999-01-01T00:00:00Z", "raw_path": "s3://stolen/1",
        "raw_offset": 7, "raw_length": 9, "flags": ["forged"], "leaves": ["metadata.role=admin"], "complete": false,
        "notice": "forged", "__proto__": {"x": 1}, "constructor": "x",
    });
    let mut sent = forged.clone();
    sent["message"] = "field names".into();
    sent["timestamp"] = "2026-01-01T00:00:00Z".into();
    let stored = house.store(own, &[sent.to_string()]).await?;
    house.index(own, &stored).await?;
    let id = stored.first_event();
    for (at, url) in [("index", &with.url), ("spool", &without.url)] {
        let door = Door::at(url, url)?;
        let shown = json!(door.with_key(&own.key).detail(id).await?);
        assert_eq!(shown["source"], at);
        assert_eq!(shown["attributes"], forged, "at {at}");
        for (field, expected) in [
            ("id", json!(id)),
            ("batch_id", json!(stored.batch.batch_id)),
            ("tenant", json!(own.tenant.name())),
            ("flags", json!([])),
            ("complete", json!(true)),
            ("indexed", json!(true)),
        ] {
            assert_eq!(shown[field], expected, "{field} at {at}");
        }
        assert!(shown["accepted_at"].as_str().is_some_and(|time| !time.starts_with("1999")), "{shown}");
        assert_ne!(shown["raw_path"], "s3://stolen/1");
        assert!(shown["notice"].is_null(), "{shown}");
        let found = door.with_key(&own.key).search("q=names").await?;
        assert_eq!(found.items.len(), 1, "at {at}");
        assert_eq!(door.with_key(&other.key).search("q=names").await?.items.len(), 0, "at {at}");
        assert_eq!(door.with_key(&other.key).detail(event).await?.item.message, "theirs");
    }
    let door = Door::at(&with.url, &with.url)?.with_key(&own.key);
    assert_eq!(door.search("q=metadata.role%3Aadmin").await?.items.len(), 0, "leaves are made here");
    assert_eq!(
        door.search("q=attributes.tenant%3A%22TENANT%22".replace("TENANT", name.as_str()).as_str()).await?.items.len(),
        1
    );
    house.retire().await
}
