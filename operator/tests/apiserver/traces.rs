//! The operator's reconciliations as traces.

use serde_json::json;
use testkit::collector::Collector;
use testkit::{eventually, unique};

use crate::operator_under_test::{Ground, SOON};
use crate::program::start_with;

#[tokio::test(flavor = "multi_thread")]
async fn every_reconciliation_is_a_span() {
    let collector = Collector::start().await.unwrap();
    let ground = Ground::new().await;
    let operator = start_with(&ground, &[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())]);
    let name = unique("traced");
    ground.tenant(&name, json!({})).await;
    let expected =
        [("reconcile tenant", "tenant.name", name.as_str()), ("reconcile pipeline", "pipeline.name", "default")];
    eventually("spans of a Tenant and of a LogPipeline are sent", 3 * SOON, || async {
        let spans = collector.spans();
        for (span, attribute, value) in expected {
            let found = spans
                .iter()
                .find(|one| one.name == span && one.attributes.get(attribute).is_some_and(|name| name == value));
            let found = found.ok_or_else(|| anyhow::anyhow!("no `{span}` of {value}: {spans:?}"))?;
            anyhow::ensure!(
                found.service == "loggerhub-operator" && found.attributes.contains_key("result"),
                "{found:?}"
            );
        }
        Ok(())
    })
    .await
    .unwrap();
    ground.clear().await;
    operator.stop().await.unwrap();
}
