//! The installation's plans: what a Tenant of each may do. They are followed while the operator runs, and brought to
//! ingest.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::quota::{InvalidQuotas, Quotas};
use crds::registry::IngestQuotas;
use serde::Deserialize;

pub mod follow;
pub mod project;

/// What a Tenant of this plan may do.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// How much it may send. What is absent is not limited.
    #[serde(default)]
    pub quotas: Quotas,
}

/// The installation's plans by name. Cheap to clone.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Plans(Arc<BTreeMap<String, Plan>>);

/// Why a Tenant has no quotas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQuotas {
    /// There is no such plan.
    #[error("spec.plan `{plan}` is not a plan of this installation: use one of {known}")]
    UnknownPlan {
        /// The plan that was named.
        plan: String,
        /// Those that there are.
        known: String,
    },
    /// The Tenant's own quotas can't be had.
    #[error("spec.quotas.{0}")]
    Invalid(#[source] InvalidQuotas),
}

impl Plans {
    /// Names of all plans.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Checks that there is a plan, and that each one's quotas can be had.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.0.is_empty(), "plans: name at least one");
        for (name, plan) in self.0.iter() {
            plan.quotas.limits().map_err(|error| anyhow::anyhow!("plans.{name}.quotas.{error}"))?;
        }
        Ok(())
    }

    /// The limits of a Tenant of `plan` that asks for `own`.
    pub fn quotas(&self, plan: &str, own: Option<&Quotas>) -> Result<IngestQuotas, NoQuotas> {
        let Some(of) = self.0.get(plan) else {
            return Err(NoQuotas::UnknownPlan { plan: plan.to_owned(), known: self.names().join(", ") });
        };
        Quotas::effective(&of.quotas, own).map_err(NoQuotas::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(yaml: &str) -> Plans {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn a_plan_gives_quotas_and_an_unknown_one_is_named_with_those_that_there_are() {
        let plans = plans("standard: {}\nsmall: {quotas: {ingestEventsPerSecond: 100}}\n");
        assert!(plans.quotas("standard", None).unwrap().is_unlimited());
        assert_eq!(
            plans.quotas("small", None).unwrap().events.map(|rate| (rate.per_second, rate.burst)),
            Some((100, 1000))
        );
        let unknown = plans.quotas("gold", None).unwrap_err().to_string();
        assert_eq!(unknown, "spec.plan `gold` is not a plan of this installation: use one of small, standard");
        let own = Quotas { ingest_burst_bytes: Some("1k".parse().unwrap()), ..Quotas::default() };
        let invalid = plans.quotas("small", Some(&own)).unwrap_err().to_string();
        assert_eq!(invalid, "spec.quotas.ingestBurstBytes needs ingestBytesPerSecond");
    }

    #[test]
    fn plans_that_cannot_be_are_refused_by_name() {
        assert!(plans("{}").check().is_err());
        assert!(plans("{standard: {}}").check().is_ok());
        let error = plans("{a: {quotas: {ingestBytesPerSecond: fast}}}").check().unwrap_err().to_string();
        assert!(error.starts_with("plans.a.quotas.ingestBytesPerSecond: `fast`"), "{error}");
    }
}
