//! What a tenant has used, and whose key asks.

use api::usage::{Amount, Me, Usage};

use crate::house::{House, Served, now};

#[tokio::test]
async fn usage_is_what_a_replay_of_the_lines_counts_and_each_tenant_sees_its_own() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    let [own, other, ..] = &house.seats[..] else { panic!("two tenants") };
    let line = |service: &str, n: usize| format!(r#"{{"service":"{service}","message":"message {n}"}}"#);
    let mut sent = Vec::new();
    for (minutes, lines) in [(0, 3), (1, 5), (30, 7)] {
        let lines: Vec<String> = (0..lines).map(|n| line(if n % 2 == 0 { "api" } else { "=web" }, n)).collect();
        house.store_accepted_at(own, &lines, now() - minutes * 60_000_000).await?;
        sent.push((minutes, lines));
    }
    let since = dataplane::event::rfc3339(now() - 20 * 60_000_000);
    let recent = |minutes: &i64| *minutes < 20;
    let amount = |lines: &mut dyn Iterator<Item = &String>| {
        lines.fold(Amount::default(), |sum, line| Amount {
            events: sum.events + 1,
            bytes: sum.bytes + line.len() as i64,
        })
    };
    let expected = amount(&mut sent.iter().filter(|(minutes, _)| recent(minutes)).flat_map(|(_, lines)| lines));

    let all = amount(&mut sent.iter().flat_map(|(_, lines)| lines));

    let by_day: Usage = get(&search, &own.key, "/api/usage").await?;
    assert_eq!((by_day.total, by_day.complete), (all, true), "{by_day:?}");
    assert!(by_day.rows.is_sorted_by_key(|row| row.value.clone()) && (1..=2).contains(&by_day.rows.len()));
    let by_key: Usage = get(&search, &own.key, &format!("/api/usage?by=key&from={since}")).await?;
    assert_eq!((by_key.total, by_key.rows.len(), by_key.rows[0].value.as_str()), (expected, 1, "testkey"));
    let by_service: Usage = get(&search, &own.key, &format!("/api/usage?by=service&from={since}")).await?;
    let of = |service: &str| {
        let lines = sent.iter().filter(|(minutes, _)| recent(minutes)).flat_map(|(_, lines)| lines);
        amount(&mut lines.filter(|line| line.contains(service)))
    };
    let told: Vec<_> = by_service.rows.iter().map(|row| (row.value.as_str(), row.amount)).collect();
    assert_eq!(told, [("api", of("\"api\"")), ("=web", of("\"=web\""))]);
    assert!(by_service.complete && by_day.complete, "{by_service:?}");

    let csv = send(&search, &own.key, &format!("/api/usage?by=service&format=csv&from={since}")).await?;
    assert_eq!(csv.headers()["content-type"], "text/csv; charset=utf-8");
    let csv = csv.text().await?;
    assert!(
        csv.contains("\n'=web,,") && csv.ends_with(&format!("total,,{},{}\n", expected.events, expected.bytes)),
        "{csv}"
    );

    let others: Usage = get(&search, &other.key, "/api/usage").await?;
    assert_eq!((others.total, others.rows.len()), (Amount::default(), 0));
    let long: Usage = get(&search, &own.key, "/api/usage?from=2020-01-01T00:00:00Z").await?;
    assert_eq!((long.total, long.complete), (all, false), "what is older is not known: {long:?}");
    house.retire().await
}

#[tokio::test]
async fn a_key_is_told_whose_it_is_and_what_it_may_do() -> anyhow::Result<()> {
    let house = House::new().await?;
    let search = house.search().await?;
    for seat in &house.seats[..2] {
        let me: Me = get(&search, &seat.key, "/api/me").await?;
        assert_eq!(
            (me.tenant.as_str(), me.total_days),
            (seat.tenant.name().as_str(), seat.tenant.registered().total_days)
        );
        let secret = seat.key.rsplit('_').next().unwrap();
        assert!(seat.key.contains(&me.key.id) && !serde_json::to_string(&me)?.contains(secret), "{me:?}");
    }
    assert_eq!(send(&search, "lh_none_none", "/api/me").await?.status(), 401);
    house.retire().await
}

async fn send(search: &Served, key: &str, path: &str) -> anyhow::Result<reqwest::Response> {
    Ok(reqwest::Client::new().get(format!("{}{path}", search.url)).bearer_auth(key).send().await?)
}

async fn get<T: serde::de::DeserializeOwned>(search: &Served, key: &str, path: &str) -> anyhow::Result<T> {
    let text = send(search, key, path).await?.text().await?;
    serde_json::from_str(&text).map_err(|error| anyhow::anyhow!("{error}: {text}"))
}
