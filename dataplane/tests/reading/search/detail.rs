//! One event as a whole, wherever it is, and how far its batch has come.

use std::fmt::Debug;

use api::event::{Event, Item, Source};
use aws_sdk_s3::primitives::ByteStream;
use dataplane::tenancy::Receipt;
use serde_json::{Value, json};
use testkit::http::Door;
use uuid::Uuid;

use crate::house::{House, Seat, Stored, now};

pub(super) fn lines() -> Vec<String> {
    let long = format!("{} end", "long ".repeat(200));
    vec![
        format!(r#"{{"message":"{long}","metadata":{{"n":1}},"host":"web-1"}}"#),
        "{\"message\":\"short\"}".to_owned(),
        format!(r#"{{"message":"second","full_log":"{long}","trace":[1,2]}}"#),
    ]
}

/// Moves a batch's raw lines into an object of several frames, as maintain does.
pub(super) async fn archive(house: &House, seat: &Seat, stored: &Stored) -> anyhow::Result<()> {
    let raw = zstd::decode_all(&stored.payload[..])?;
    let (mut object, mut raw_starts, mut starts) = (b"head".to_vec(), vec![0], vec![4]);
    for frame in raw.chunks(700) {
        object.extend(zstd::encode_all(frame, 1)?);
        raw_starts.push(raw_starts[raw_starts.len() - 1] + frame.len() as i64);
        starts.push(object.len() as i64);
    }
    object.extend(b"foot");
    let location = &seat.tenant.registered().archive;
    let key = format!("{}logs/test.lhz", location.prefix);
    let bytes = object.len() as i64;
    let put = house.stores.s3()?.put_object().bucket(&location.bucket).key(&key).body(ByteStream::from(object));
    put.send().await?;
    let schema = seat.tenant.name().database_schema();
    let insert = format!(
        "WITH made AS (INSERT INTO {schema}.objects \
         (key, bytes, raw_bytes, events, min_accepted, max_accepted, raw_starts, starts) \
         VALUES ($1, $2, $3, 3, now(), now(), $4, $5) RETURNING object_id) \
         UPDATE {schema}.batches SET object_id = made.object_id, spool_id = NULL, archived_at = now() FROM made"
    );
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let insert = sqlx::query(&insert).bind(key).bind(bytes).bind(raw.len() as i64);
    insert.bind(raw_starts).bind(starts).execute(&admin).await?;
    sqlx::query(&format!("DELETE FROM {schema}.spool")).execute(&admin).await?;
    Ok(())
}

/// What must be the same wherever an event is read from.
fn content(event: Event) -> impl PartialEq + Debug {
    let Item { id, timestamp, message, level, service, batch_id, .. } = event.item;
    (id, timestamp, message, event.full_log, event.metadata, event.attributes, level, service, batch_id)
}

#[tokio::test]
async fn an_event_is_the_same_from_the_spool_the_index_and_the_archive() -> anyhow::Result<()> {
    let house = House::new().await?;
    let (with, without) = (house.search().await?, house.search_without_index().await?);
    let own = &house.seats[0];
    let with = Door::at(&with.url, &with.url)?.with_key(&own.key);
    let without = Door::at(&without.url, &without.url)?.with_key(&own.key);
    let stored = house.store(own, &lines()).await?;
    let ids: Vec<Uuid> = stored.batch.events.iter().map(|event| event.id).collect();

    let mut from_spool = Vec::new();
    for id in &ids {
        let event = with.detail(*id).await?;
        assert_eq!((event.source, event.complete, event.item.indexed), (Source::Spool, true, false));
        assert!(event.item.raw_path.as_deref().is_some_and(|path| path.starts_with("spool:")), "{event:?}");
        from_spool.push(content(event));
    }
    assert_eq!(json!(with.detail(ids[0]).await?.metadata), json!({"n": 1}));
    assert_eq!(json!(with.detail(ids[0]).await?.attributes), json!({"host": "web-1"}));
    assert!(with.detail(ids[0]).await?.full_log.is_some_and(|text| text.ends_with(" end")));

    house.index(own, &stored).await?;
    for (id, spooled) in ids.iter().zip(&from_spool) {
        let event = with.detail(*id).await?;
        assert_eq!((event.source, event.item.indexed), (Source::Index, true));
        assert_eq!(&content(event), spooled);
        assert_eq!(without.detail(*id).await?.source, Source::Spool);
    }

    archive(&house, own, &stored).await?;
    for (id, spooled) in ids.iter().zip(&from_spool) {
        assert_eq!(with.detail(*id).await?.source, Source::Index);
        let event = without.detail(*id).await?;
        assert_eq!((event.source, event.complete), (Source::Archive, true), "{event:?}");
        let path = event.item.raw_path.clone().unwrap_or_default();
        assert!(path.starts_with("s3://") && path.contains("logs/test.lhz#"), "{path}");
        assert_eq!(&content(event), spooled);
    }

    let location = &own.tenant.registered().archive;
    let key = format!("{}logs/test.lhz", location.prefix);
    house.stores.s3()?.delete_object().bucket(&location.bucket).key(key).send().await?;
    let event = without.detail(ids[1]).await?;
    assert_eq!((event.source, event.complete, event.item.message.as_str()), (Source::Catalog, false, "short"));
    house.retire().await
}

#[tokio::test]
async fn a_batch_is_queued_stored_indexed_archived() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, ingest_only] = &house.seats[..] else { panic!("three tenants") };
    let door = Door::at(&search.url, &search.url)?;
    let state = async |door: &Door, id: Uuid, receipt: &str| {
        let response = door.request(reqwest::Method::GET, &format!("/api/batches/{id}{receipt}")).send().await?;
        let body: Value = response.json().await?;
        Ok::<Value, anyhow::Error>(if body["error"].is_null() { body } else { body["error"]["code"].clone() })
    };

    let waiting = Uuid::now_v7();
    let receipt = Receipt { tenant: own.tenant.name().clone(), batch_id: waiting, accepted_at: now(), events: 3 };
    let receipt = format!("?receipt={}", house.registry.peppers().sign(&receipt));
    let (mine, theirs) = (door.with_key(&own.key), door.with_key(&other.key));
    let queued = state(&mine, waiting, &receipt).await?;
    assert_eq!((&queued["state"], &queued["events"]), (&json!("queued"), &json!(3)), "{queued}");
    assert_eq!(state(&mine, waiting, "").await?, "not_found");
    assert_eq!(state(&mine, Uuid::now_v7(), &receipt).await?, "invalid_receipt", "another batch's");
    assert_eq!(state(&mine, waiting, "?receipt=forged").await?, "invalid_receipt");
    assert_eq!(state(&theirs, waiting, &receipt).await?, "invalid_receipt", "another tenant's");
    let sender = door.with_key(&ingest_only.key);
    assert_eq!(state(&sender, waiting, &receipt).await?, "invalid_receipt", "nor for who may only send");
    let sent = Receipt { tenant: ingest_only.tenant.name().clone(), batch_id: waiting, accepted_at: now(), events: 3 };
    let sent = format!("?receipt={}", house.registry.peppers().sign(&sent));
    assert_eq!(state(&sender, waiting, &sent).await?["state"], "queued", "its own it may follow");
    assert_eq!(state(&sender, waiting, "").await?, "scope_missing");
    let long_ago = now() - 400 * 24 * 3_600_000_000;
    let old = Receipt { tenant: own.tenant.name().clone(), batch_id: waiting, accepted_at: long_ago, events: 3 };
    let old = format!("?receipt={}", house.registry.peppers().sign(&old));
    assert_eq!(state(&mine, waiting, &old).await?, "expired");

    let stored = house.store(own, &lines()).await?;
    let id = stored.batch.batch_id;
    let answer = state(&mine, id, "").await?;
    assert_eq!(
        (&answer["state"], &answer["events"], &answer["dead_letters"]),
        (&json!("stored"), &json!(3), &json!(0))
    );
    assert_eq!(state(&theirs, id, "").await?, "not_found");
    house.index(own, &stored).await?;
    assert_eq!(state(&mine, id, "").await?["state"], "indexed");
    archive(&house, own, &stored).await?;
    let answer = state(&mine, id, "").await?;
    assert_eq!(answer["state"], "archived");
    assert!(answer["archived_at"].is_string() && answer["indexed_at"].is_string(), "{answer}");
    assert_eq!((&answer["resends"], &answer["first_batch_id"]), (&json!([]), &Value::Null), "{answer}");

    // A schema of the version before knows of no resends, and tells of the batch all the same.
    let schema = own.tenant.name().database_schema();
    let admin = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let older = format!("ALTER TABLE {schema}.batches DROP COLUMN first_batch_id");
    sqlx::query(&older).execute(&admin).await?;
    assert_eq!(state(&mine, id, "").await?["state"], "archived");
    house.retire().await
}
