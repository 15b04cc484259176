//! Ingest quotas: what a plan or a Tenant says of them, and the limits that this comes to.

use std::borrow::Cow;
use std::str::FromStr;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::registry::{IngestQuotas, Rate};

/// Largest limit: far above any machine, and exact where Redis computes in doubles.
pub const MAX_QUANTITY: u64 = 1_000_000_000_000_000;

/// Seconds of its rate that a limit without a burst saves up: a shipper that flushes every few
/// seconds, or comes back after a pause, is not refused for it.
pub const DEFAULT_BURST_SECONDS: u64 = 10;

/// How much a tenant may send, over all ingest replicas. What is absent is not limited.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.ingestBurstBytes) || has(self.ingestBytesPerSecond)").message("ingestBurstBytes needs ingestBytesPerSecond: a burst is what may come at once, and the rate is how it is earned again"),
    validation = Rule::new("!has(self.ingestBurstEvents) || has(self.ingestEventsPerSecond)").message("ingestBurstEvents needs ingestEventsPerSecond: a burst is what may come at once, and the rate is how it is earned again")
)]
pub struct Quotas {
    /// Bytes of events, decompressed, accepted per second, such as 10Mi. Above it ingest returns 429 quota_exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_bytes_per_second: Option<Quantity>,
    /// Bytes that may come at once after a pause. If not set, ten seconds of the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_burst_bytes: Option<Quantity>,
    /// Events accepted per second, such as 5000 or 5k.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_events_per_second: Option<Quantity>,
    /// Events that may come at once after a pause. If not set, ten seconds of the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_burst_events: Option<Quantity>,
}

/// A whole number of at least 1, with an optional suffix as in Kubernetes' quantities: k, M, G, T or
/// Ki, Mi, Gi, Ti.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(untagged)]
pub enum Quantity {
    /// As a number.
    Number(u64),
    /// As text.
    Text(String),
}

/// A quantity that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a quantity: use a whole number from 1 to {MAX_QUANTITY}, or one with k, M, G, T, Ki, Mi, Gi or Ti"
)]
pub struct InvalidQuantity {
    text: String,
}

/// Why quotas can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuotas {
    /// A field holds no quantity.
    #[error("{field}: {source}")]
    Quantity {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: InvalidQuantity,
    },
    /// A burst without a rate.
    #[error("{burst} needs {rate}")]
    BurstAlone {
        /// The field that is there.
        burst: &'static str,
        /// The field that is not.
        rate: &'static str,
    },
}

const FACTORS: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

impl Quantity {
    /// The number that it stands for.
    pub fn value(&self) -> Result<u64, InvalidQuantity> {
        let (text, value) = match self {
            Self::Number(number) => (number.to_string(), Some(*number)),
            Self::Text(text) => {
                let parsed = FACTORS.iter().find_map(|(suffix, factor)| {
                    let digits = text.strip_suffix(suffix)?;
                    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
                    plain.then(|| digits.parse::<u64>().ok()?.checked_mul(*factor))
                });
                (text.clone(), parsed.flatten())
            }
        };
        value.filter(|value| (1..=MAX_QUANTITY).contains(value)).ok_or(InvalidQuantity { text })
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let quantity = Self::Text(text.to_owned());
        quantity.value()?;
        Ok(quantity)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": "^[1-9][0-9]{0,14}(k|M|G|T|Ki|Mi|Gi|Ti)?$",
            // A pattern is for text alone.
            "minimum": 1,
            "maximum": MAX_QUANTITY,
        })
    }
}

impl Quotas {
    /// The limits that these quotas come to for a tenant of `plan`: a dimension (bytes or events) that
    /// the tenant's own quotas name takes the place of the plan's.
    pub fn effective(plan: &Self, own: Option<&Self>) -> Result<IngestQuotas, InvalidQuotas> {
        let plan = plan.limits()?;
        let own = own.map(Self::limits).transpose()?.unwrap_or_default();
        Ok(IngestQuotas { bytes: own.bytes.or(plan.bytes), events: own.events.or(plan.events) })
    }

    /// The limits that these quotas alone come to.
    pub fn limits(&self) -> Result<IngestQuotas, InvalidQuotas> {
        Ok(IngestQuotas {
            bytes: rate(
                ("ingestBytesPerSecond", self.ingest_bytes_per_second.as_ref()),
                ("ingestBurstBytes", self.ingest_burst_bytes.as_ref()),
            )?,
            events: rate(
                ("ingestEventsPerSecond", self.ingest_events_per_second.as_ref()),
                ("ingestBurstEvents", self.ingest_burst_events.as_ref()),
            )?,
        })
    }
}

type Field<'a> = (&'static str, Option<&'a Quantity>);

fn rate(rate: Field<'_>, burst: Field<'_>) -> Result<Option<Rate>, InvalidQuotas> {
    let value = |(field, quantity): Field<'_>| {
        let value = quantity.map(Quantity::value).transpose();
        value.map_err(|source| InvalidQuotas::Quantity { field, source })
    };
    match (value(rate)?, value(burst)?) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(InvalidQuotas::BurstAlone { burst: burst.0, rate: rate.0 }),
        (Some(per_second), burst) => {
            let burst = burst.unwrap_or_else(|| per_second.saturating_mul(DEFAULT_BURST_SECONDS).min(MAX_QUANTITY));
            Ok(Some(Rate { per_second, burst }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(json: serde_json::Value) -> Quotas {
        serde_json::from_value(json).unwrap()
    }

    fn limits(bytes: Option<(u64, u64)>, events: Option<(u64, u64)>) -> IngestQuotas {
        let rate = |(per_second, burst)| Rate { per_second, burst };
        IngestQuotas { bytes: bytes.map(rate), events: events.map(rate) }
    }

    #[test]
    fn a_quantity_is_a_number_with_an_optional_suffix() {
        for (text, expected) in [
            ("1", Some(1)),
            ("5k", Some(5_000)),
            ("10Mi", Some(10 << 20)),
            ("1Ti", Some(1 << 40)),
            ("1000T", Some(MAX_QUANTITY)),
            ("1001T", None),
            ("99999999999999999999", None),
            ("99999999999999Ti", None),
            ("0", None),
            ("", None),
            ("k", None),
            ("+1", None),
            ("-1", None),
            ("1.5k", None),
            ("1 k", None),
            ("1K", None),
        ] {
            assert_eq!(Quantity::Text(text.into()).value().ok(), expected, "{text}");
        }
        assert_eq!(Quantity::Number(7).value(), Ok(7));
        assert!(Quantity::Number(0).value().is_err());
    }

    #[test]
    fn a_tenants_own_quotas_replace_a_plans_dimension_by_dimension() {
        use serde_json::json;
        let plan = json!({"ingestBytesPerSecond": "1k", "ingestEventsPerSecond": 10, "ingestBurstEvents": 50});
        for (own, expected) in [
            (json!({}), limits(Some((1_000, 10_000)), Some((10, 50)))),
            (json!({"ingestBytesPerSecond": "2k"}), limits(Some((2_000, 20_000)), Some((10, 50)))),
            (json!({"ingestEventsPerSecond": 20}), limits(Some((1_000, 10_000)), Some((20, 200)))),
            (
                json!({"ingestEventsPerSecond": 1, "ingestBurstEvents": "1k", "ingestBytesPerSecond": 1}),
                limits(Some((1, 10)), Some((1, 1_000))),
            ),
        ] {
            let effective = Quotas::effective(&quotas(plan.clone()), Some(&quotas(own.clone())));
            assert_eq!(effective, Ok(expected), "{own}");
        }
        assert_eq!(Quotas::effective(&Quotas::default(), None), Ok(limits(None, None)), "nothing is no limit");
    }

    #[test]
    fn what_is_wrong_is_named() {
        use serde_json::json;
        for (wrong, says) in [
            (json!({"ingestBurstBytes": 1}), "ingestBurstBytes needs ingestBytesPerSecond"),
            (json!({"ingestEventsPerSecond": "many"}), "ingestEventsPerSecond: `many` is not a quantity"),
        ] {
            let error = quotas(wrong).limits().unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
