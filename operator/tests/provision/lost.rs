//! A registry that Redis loses while it answers all the time.

use std::time::Duration;

use crds::names::{REGISTRY_CHANGES, REGISTRY_EPOCH, REGISTRY_TENANTS};
use operator::health::{self, StoresUp};
use operator::metrics::OperatorMetrics;
use operator::provision::postgres::TenantRow;
use operator::provision::{DesiredTenant, Registry, Stores, registry_entry};
use runtime::settings::TlsSettings;
use runtime::stores::Redis;
use testkit::chaos::redis_server::RedisServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::stores::{stores, tenant};

/// Longest until a loss is noticed: some looks.
const SOON: Duration = Duration::from_secs(60);

async fn project(registry: &Registry, desired: &DesiredTenant) {
    let row = TenantRow {
        index_series: desired.name().dedicated_series(),
        archive: desired.archive.clone(),
        total_days: desired.retention.total_days,
        beside_retained: false,
        neighbours_days: 0,
    };
    registry.upsert(&registry_entry(desired, &row, &[])).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_lost_wakes_the_tenants() {
    for lost in [
        &["FLUSHALL"][..],
        &["DEL", REGISTRY_EPOCH],
        &["DEL", REGISTRY_TENANTS],
        &["DEL", REGISTRY_TENANTS, REGISTRY_CHANGES],
    ] {
        let folder = std::env::temp_dir().join(testkit::unique("lost-registry"));
        let server = RedisServer::start(&folder, false).await.unwrap();
        let redis = Redis::queue(&server.settings(), &TlsSettings::default()).unwrap();
        let registry = Registry::new(redis.connection().unwrap());
        let (kept, changed) = (tenant(), tenant());
        project(&registry, &kept).await;
        project(&registry, &changed).await;
        let (publish, mut up) = watch::channel(StoresUp::default());
        let stop = CancellationToken::new();
        let metrics = OperatorMetrics::register(&runtime::metrics::Metrics::default());
        let stores = Stores { registry: registry.clone(), ..stores().await.stores };
        tokio::spawn(health::run(stores, metrics, publish, stop.clone()));
        let all_up = |now: &StoresUp| now.redis && now.postgres && now.object_store && now.search;
        let before = *tokio::time::timeout(SOON, up.wait_for(all_up)).await.unwrap().unwrap();

        server.command::<redis::Value>(lost).await.unwrap();
        if lost == ["FLUSHALL"] {
            // Begun anew before anybody looks.
            project(&registry, &changed).await;
        }
        let woken = tokio::time::timeout(SOON, up.wait_for(|now| now.recovered_since(before))).await;
        woken.unwrap_or_else(|_| panic!("{lost:?}: not noticed")).unwrap();
        stop.cancel();
        std::fs::remove_dir_all(&folder).ok();
    }
}
