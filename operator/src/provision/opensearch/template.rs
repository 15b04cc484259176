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

/// The template as it should be.
pub(super) fn template(installation: &str, replicas: u32) -> Value {
    let text = json!({"type": "match_only_text", "analyzer": "lh_text"});
    let word = json!({"type": "keyword", "ignore_above": 256});
    json!({
        "index_patterns": INDEX_PATTERNS,
        "priority": 500,
        "_meta": {"installation": installation, "managed-by": "loggerhub-operator"},
        "template": {
            // One shard: a pool's tenants are routed to one anyway, and a series rolls over by size.
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

    #[test]
    fn a_template_is_written_only_where_it_differs_and_is_ours() {
        let wanted = template("prod", 1);
        let mut shown = wanted.clone();
        shown["template"]["mappings"]["properties"]["id"]["index"] = json!("false");
        assert_eq!(compare(None, &wanted, false), Comparison::Absent);
        assert_eq!(compare(Some(&shown), &wanted, false), Comparison::Same);
        assert_eq!(compare(Some(&template("prod", 0)), &wanted, false), Comparison::Differs);
        assert_eq!(compare(Some(&template("test", 1)), &wanted, false), Comparison::Same);
        assert_eq!(compare(Some(&template("test", 0)), &wanted, false), Comparison::Differs);
        let mut foreign = template("test", 0);
        foreign["_meta"] = json!({"owner": "somebody"});
        assert!(matches!(compare(Some(&foreign), &wanted, false), Comparison::Foreign(_)));
        assert_eq!(compare(Some(&foreign), &wanted, true), Comparison::Differs);
    }
}
