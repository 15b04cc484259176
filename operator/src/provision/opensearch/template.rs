//! The one index template: settings and the fixed mapping of every index that holds events.

use serde_json::{Map, Value, json};

use crds::names::INDEX_PATTERNS;

/// How a template that is there compares with the wanted one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// There is none.
    Absent,
    /// Nothing to do.
    Same,
    /// Ours, and not as it should be.
    Differs,
    /// Not written by a LoggerHub operator, and different from ours.
    Foreign(String),
}

/// How the indices that are made from now on are divided among nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Shards of an index.
    pub shards: u32,
    /// How many of them hold one tenant's events: 1, or fewer than there are.
    pub shards_per_tenant: u32,
    /// Copies of each shard besides the first.
    pub replicas: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { shards: 1, shards_per_tenant: 1, replicas: 0 }
    }
}

impl Shape {
    /// Whether OpenSearch makes such indices.
    pub fn is_possible(self) -> bool {
        self.shards >= 1 && (self.shards_per_tenant == 1 || (2..self.shards).contains(&self.shards_per_tenant))
    }
}

/// The template as it should be.
pub(super) fn template(installation: &str, shape: Shape) -> Value {
    let mut template = one_shard(installation, shape.replicas);
    template["template"]["settings"]["index"]["number_of_shards"] = json!(shape.shards.to_string());
    if shape.shards_per_tenant > 1 {
        // Events are routed by their tenant: to this many shards beside one another. OpenSearch wants to be sure that
        // none comes without, and counts in shards only where an index can't be split later: by default it counts in the
        // thousand that it could be split into, and a tenant's neighbours lie in the same shard.
        let settings = &mut template["template"]["settings"]["index"];
        settings["routing_partition_size"] = json!(shape.shards_per_tenant.to_string());
        settings["number_of_routing_shards"] = json!(shape.shards.to_string());
        template["template"]["mappings"]["_routing"] = json!({"required": "true"});
    }
    template
}

fn one_shard(installation: &str, replicas: u32) -> Value {
    let text = json!({"type": "match_only_text", "analyzer": "lh_text"});
    let word = json!({"type": "keyword", "ignore_above": 256});
    json!({
        "index_patterns": INDEX_PATTERNS,
        "priority": 500,
        "_meta": {"installation": installation, "managed-by": "loggerhub-operator"},
        "template": {
            "settings": {"index": {
                "number_of_shards": "1",
                "number_of_replicas": replicas.to_string(),
                "refresh_interval": "500ms",
                // A refresh would wait up to 10 s for merges of what it has just written.
                "merge_on_flush": {"enabled": "false"},
                // Events come in the order of time and are never deleted one by one. Merging only neighbours
                // keeps segments apart by time, and 32 at once writes each event half as often as the default,
                // which is a tenth of what a document costs (docs/benchmarks.md).
                "merge": {"policy": "log_byte_size", "log_byte_size_policy": {"merge_factor": "32"}},
                "translog": {"durability": "request"},
                // The standard tokenizer keeps `java.lang.NullPointerException` and `user_id` as one
                // word: a search for a part of them would find nothing.
                "analysis": {
                    "char_filter": {"lh_split": {
                        "type": "mapping",
                        "mappings": [". => \\u0020", "_ => \\u0020", ": => \\u0020", "' => \\u0020"],
                    }},
                    "analyzer": {"lh_text": {
                        "type": "custom",
                        "char_filter": ["lh_split"],
                        "tokenizer": "standard",
                        "filter": ["lowercase"],
                    }},
                },
            }},
            // Unknown fields are kept in `_source` and never become fields: no tenant can make a
            // pool's mapping grow.
            "mappings": {"dynamic": "false", "properties": {
                "tenant": {"type": "keyword"},
                // For the order of equal times; never searched for.
                "id": {"type": "keyword", "index": false},
                // The only form that we write, and a tenth cheaper to read for the whole document
                // than the default, which tries ISO 8601 in all its forms.
                "@timestamp": {"type": "date_nanos", "format": "rfc3339_lenient"},
                "accepted_at": {"type": "date", "format": "rfc3339_lenient"},
                "service": word,
                "application": word,
                "level": word,
                "language": word,
                "message": text,
                "full_log": text,
                // Kept, and searched by their leaves: `metadata.user.id=42`.
                "metadata": {"type": "object", "enabled": "false"},
                "attributes": {"type": "object", "enabled": "false"},
                "leaves": {"type": "keyword", "doc_values": "false"},
                "index_error": {"type": "keyword", "ignore_above": 256},
            }},
        },
    })
}

/// Compares what is there with what is wanted. The template's name and its indices' names are the
/// same for every installation on these servers, so one template serves them all, and any of them
/// keeps it; one that no LoggerHub wrote is not touched.
pub(super) fn compare(found: Option<&Value>, wanted: &Value, adopt: bool) -> Comparison {
    let Some(found) = found else { return Comparison::Absent };
    let part = |from: &Value, at: &str| from.pointer(at).map(normalized).unwrap_or(Value::Null);
    let same = ["/index_patterns", "/priority", "/template/settings", "/template/mappings"]
        .iter()
        .all(|at| part(found, at) == part(wanted, at));
    let manager = |from: &Value| from.pointer("/_meta/managed-by").cloned();
    if same {
        return Comparison::Same;
    }
    if adopt || manager(found) == manager(wanted) {
        return Comparison::Differs;
    }
    Comparison::Foreign("it was not written by a LoggerHub operator".to_owned())
}

/// Numbers and booleans as text, as OpenSearch is free to show them.
fn normalized(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut out = Map::new();
            for (name, value) in fields {
                out.insert(name.clone(), normalized(value));
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.iter().map(normalized).collect()),
        Value::Number(number) => Value::String(number.to_string()),
        Value::Bool(flag) => Value::String(flag.to_string()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_COPY: Shape = Shape { shards: 1, shards_per_tenant: 1, replicas: 1 };

    #[test]
    fn a_template_is_written_only_where_it_differs_and_is_ours() {
        let wanted = template("prod", ONE_COPY);
        let mut shown = wanted.clone();
        shown["template"]["mappings"]["properties"]["id"]["index"] = json!("false");
        assert_eq!(compare(None, &wanted, false), Comparison::Absent);
        assert_eq!(compare(Some(&shown), &wanted, false), Comparison::Same);
        assert_eq!(compare(Some(&template("prod", Shape::default())), &wanted, false), Comparison::Differs);
        assert_eq!(compare(Some(&template("test", ONE_COPY)), &wanted, false), Comparison::Same);
        assert_eq!(compare(Some(&template("test", Shape::default())), &wanted, false), Comparison::Differs);
        let mut foreign = template("test", Shape::default());
        foreign["_meta"] = json!({"owner": "somebody"});
        assert!(matches!(compare(Some(&foreign), &wanted, false), Comparison::Foreign(_)));
        assert_eq!(compare(Some(&foreign), &wanted, true), Comparison::Differs);
    }

    #[test]
    fn a_tenants_events_lie_on_some_of_the_shards() {
        let settings = |shape| template("prod", shape)["template"]["settings"]["index"].clone();
        let four = Shape { shards: 4, ..ONE_COPY };
        assert_eq!(
            (&settings(four)["number_of_shards"], settings(four).get("routing_partition_size")),
            (&json!("4"), None)
        );
        let two_each = Shape { shards_per_tenant: 2, ..four };
        assert_eq!(settings(two_each)["routing_partition_size"], "2");
        assert_eq!(settings(two_each)["number_of_routing_shards"], "4");
        assert_eq!(template("prod", two_each).pointer("/template/mappings/_routing/required"), Some(&json!("true")));
        for (shards, shards_per_tenant, possible) in
            [(1, 1, true), (4, 1, true), (4, 3, true), (4, 4, false), (1, 2, false), (0, 1, false), (4, 0, false)]
        {
            let shape = Shape { shards, shards_per_tenant, replicas: 0 };
            assert_eq!(shape.is_possible(), possible, "{shape:?}");
        }
    }
}
