//! `tenants`: the Tenants and how they are.

use crds::Tenant;
use crds::condition::types::READY;
use kube::ResourceExt;
use kube::api::ListParams;
use serde::Serialize;

use crate::args::Global;
use crate::kubernetes::{Doing, Kubernetes, condition};
use crate::output::{self, Row};

#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct TenantRow {
    name: String,
    ready: String,
    reason: String,
    plan: String,
    pipeline: String,
    keys: usize,
    suspended: bool,
    message: String,
    /// Seconds since 1970.
    created_at: Option<i64>,
}

/// Prints them.
pub async fn list(global: &Global) -> anyhow::Result<()> {
    let kubernetes = Kubernetes::connect(global).await?;
    let tenants = kubernetes.tenants().list(&ListParams::default()).await;
    let tenants = tenants.doing("list", "tenants.loggerhub.io", "")?;
    output::list(global.output, &tenants.iter().map(row).collect::<Vec<_>>())
}

fn row(tenant: &Tenant) -> TenantRow {
    let conditions = tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let (ready, reason, message) = condition(conditions, READY);
    TenantRow {
        name: tenant.name_any(),
        ready,
        reason,
        plan: tenant.spec.plan.clone(),
        pipeline: tenant.spec.pipeline_ref.name.clone(),
        keys: tenant.spec.api_keys.len(),
        suspended: tenant.spec.suspend,
        message,
        created_at: tenant.creation_timestamp().map(|time| time.0.as_second()),
    }
}

impl Row for TenantRow {
    const HEADER: &'static [&'static str] = &["NAME", "READY", "REASON", "PLAN", "PIPELINE", "KEYS", "AGE", "MESSAGE"];
    const NONE: &'static str = "no Tenants: apply one";

    fn cells(&self, now: i64) -> Vec<String> {
        let age = self.created_at.map(|at| output::age(now - at)).unwrap_or_default();
        // A message that says that all is well would only make the line long.
        let message = if self.ready == "True" { "" } else { &self.message };
        let [name, ready, reason] = [&self.name, &self.ready, &self.reason].map(Clone::clone);
        let (plan, pipeline) = (self.plan.clone(), self.pipeline.clone());
        vec![name, ready, reason, plan, pipeline, self.keys.to_string(), age, message.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_how_the_tenant_is() {
        let tenant = |status: serde_json::Value| -> Tenant {
            serde_json::from_value(json!({
                "apiVersion": "loggerhub.io/v1alpha1", "kind": "Tenant",
                "metadata": {"name": "acme", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"namespaces": ["acme"], "apiKeys": [
                    {"name": "main", "scopes": ["Query"], "secretRef": {"name": "k", "namespace": "acme"}},
                ]},
                "status": status,
            }))
            .unwrap()
        };
        let ready = |status: &str, message: &str| {
            json!({"conditions": [{"type": "Ready", "status": status, "reason": "Provisioned", "message": message,
                "lastTransitionTime": "2026-01-01T00:00:01Z"}]})
        };
        let now = 1_767_225_600 + 180;
        let cells = |status| row(&tenant(status)).cells(now).join("|");
        assert_eq!(cells(ready("True", "all there")), "acme|True|Provisioned|standard|default|1|3m|");
        assert_eq!(cells(ready("False", "no index")), "acme|False|Provisioned|standard|default|1|3m|no index");
        assert_eq!(cells(json!({})), "acme|Unknown||standard|default|1|3m|");
    }
}
