//! `docs/reference.md`: the fields of both kinds, their annotations, and their conditions with their reasons.
//!
//! Fields come from the CRDs' schemas, reasons from their type. `crdgen` writes the page; a test says when it is stale.

use kube::CustomResourceExt;
use schemars::schema_for;
use serde_json::Value;

use crate::condition::{Reason, types};
use crate::{
    ADOPT_ANNOTATION, CONFIRM_DELETE_ANNOTATION, CONFIRM_RETENTION_ANNOTATION, FORCE_FINALIZE_ANNOTATION,
    PAUSED_ANNOTATION, RECONCILE_REQUESTED_AT_ANNOTATION, ROTATE_KEYS_ANNOTATION,
};

const INTRODUCTION: &str = "# Reference of Tenant and LogPipeline

Every field, annotation, condition and reason of the two kinds, in `loggerhub.io/v1alpha1`. This page is generated from
the code by `make generate`; `kubectl explain tenant.spec` shows the same fields. [tenants.md](tenants.md) and
[pipelines.md](pipelines.md) explain how to use them.

A *quantity* is a whole number, or one with `k`, `M`, `G`, `T`, `Ki`, `Mi`, `Gi` or `Ti`: `5k`, `10Mi`.
";

/// Annotations that a user sets: name, kind, value, effect.
const ANNOTATIONS: [[&str; 4]; 7] = [
    [
        PAUSED_ANNOTATION,
        "both",
        "`true`",
        "the operator leaves the object alone until the annotation is removed. Deleting still works",
    ],
    [
        RECONCILE_REQUESTED_AT_ANNOTATION,
        "both",
        "any new value, such as the time",
        "the operator reconciles the object now; `status.lastHandledReconcileAt` repeats the value",
    ],
    [
        ROTATE_KEYS_ANNOTATION,
        "Tenant",
        "`<key names or *>@<request ID>`",
        "new keys are generated; each ID is carried out once per key, and `status.lastHandledKeyRotation` repeats it \
         ([keys.md](keys.md#rotate))",
    ],
    [
        CONFIRM_RETENTION_ANNOTATION,
        "Tenant",
        "the new `totalDays`",
        "confirms that fewer `totalDays` remove older data ([gitops.md](gitops.md#retention-that-shrinks))",
    ],
    [
        CONFIRM_DELETE_ANNOTATION,
        "both",
        "the object's name",
        "confirms that deleting a Tenant with `deletionPolicy: Delete` removes its data, or that a LogPipeline is deleted \
         although Tenants use it or events wait for it",
    ],
    [
        FORCE_FINALIZE_ANNOTATION,
        "Tenant",
        "`true`",
        "a Tenant under deletion is let go at once; its keys are revoked, and whatever the stores hold stays there",
    ],
    [
        ADOPT_ANNOTATION,
        "Tenant",
        "`true`",
        "the operator takes over what another installation owns under this name, and puts keys into existing Secrets that \
         are empty ([security.md](security.md#secrets-of-the-cluster))",
    ],
];

/// Conditions: type, kind, meaning of `True`.
const CONDITIONS: [[&str; 3]; 12] = [
    [types::READY, "both", "everything that the spec asks for is in place"],
    [types::RECONCILING, "both", "the operator is still working on it, or retries by itself"],
    [types::STALLED, "both", "nothing more happens until somebody changes something"],
    [types::DATABASE_READY, "Tenant", "registry row, schema, role and tables are in PostgreSQL"],
    [types::OBJECT_STORE_READY, "Tenant", "bucket or prefix, lifecycle rule and owner tag are in the object store"],
    [types::SEARCH_READY, "Tenant", "template, index and alias are in OpenSearch"],
    [types::CREDENTIALS_READY, "Tenant", "keys are issued, in their Secrets, and known to ingest"],
    [
        types::PIPELINE_READY,
        "Tenant",
        "the pipeline that it names exists, and none of its events wait for one that doesn't",
    ],
    [types::RETENTION_APPLIED, "Tenant", "events are kept for as long as the spec says, and no longer"],
    [types::ACCEPTED, "LogPipeline", "the spec is valid, its stages can run, and its tests pass"],
    [types::SCALING_ACTIVE, "LogPipeline", "the operator can read the backlog and sets the number of processors"],
    [
        types::CANARY_HEALTHY,
        "LogPipeline",
        "the canary's last event was accepted, listed, found and shown live in time",
    ],
];

/// The page.
pub fn page() -> String {
    let kinds = [("Tenant", crate::Tenant::crd()), ("LogPipeline", crate::LogPipeline::crd())];
    let mut page = INTRODUCTION.to_owned();
    for (kind, crd) in kinds {
        let crd = serde_json::to_value(crd).unwrap_or_default();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        page += &format!("\n## {kind}\n\n{}\n", text(&schema["description"]));
        for (part, head) in [("spec", &["Field", "Type", "Default", ""][..]), ("status", &["Field", "Type", ""])] {
            let mut rows = Vec::new();
            fields(part, &schema["properties"][part], &mut rows);
            if part == "status" {
                // Nobody sets these.
                rows.iter_mut().for_each(|row| _ = row.remove(2));
            }
            page += &format!("\n### {kind}: {part}\n\n{}", table(head, &rows));
        }
    }
    page +=
        &format!("\n## Annotations\n\n{}", table(&["Annotation", "On", "Value", "Effect"], &ANNOTATIONS.map(named)));
    page += &format!("\n## Conditions\n\n{}", table(&["Condition", "Of", "`True` means"], &CONDITIONS.map(named)));
    page + &format!("\n## Reasons\n\n{}", table(&["Reason", ""], &reasons()))
}

/// A row whose first column is a name.
fn named<const N: usize>(row: [&str; N]) -> Vec<String> {
    row.iter().enumerate().map(|(at, cell)| if at == 0 { format!("`{cell}`") } else { (*cell).to_owned() }).collect()
}

fn reasons() -> Vec<Vec<String>> {
    let schema = schema_for!(Reason).to_value();
    let reasons = schema["oneOf"].as_array().into_iter().flatten();
    reasons.map(|one| vec![format!("`{}`", text(&one["const"])), text(&one["description"])]).collect()
}

/// A row for each field below `schema`, outer ones first.
fn fields(path: &str, schema: &Value, rows: &mut Vec<Vec<String>>) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let default = match (&field["default"], required.contains(&name.as_str())) {
            (_, true) => "required".to_owned(),
            (Value::Null, _) => "–".to_owned(),
            (Value::Object(_), _) => "as below".to_owned(),
            (default, _) => format!("`{}`", default.as_str().map_or_else(|| default.to_string(), str::to_owned)),
        };
        rows.push(vec![format!("`{path}`"), type_of(field), default, described(field)]);
        // A condition is Kubernetes' own type.
        if name != "conditions" {
            match field["items"].is_object() {
                true => fields(&format!("{path}[]"), &field["items"], rows),
                false => fields(&path, field, rows),
            }
        }
    }
}

/// A field's type with its bounds, in words.
fn type_of(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<String> = values.iter().filter_map(Value::as_str).map(|one| format!("`{one}`")).collect();
        return values.join(", ");
    }
    if field["x-kubernetes-int-or-string"] == true {
        return "quantity".to_owned();
    }
    let number = |name: &str| field[name].as_f64().map(|number| format!("{number:.0}"));
    let range = |least: &str, most: &str, of: &str| match (number(least), number(most)) {
        (Some(least), Some(most)) => format!(", {least} to {most}{of}"),
        (Some(least), None) => format!(", at least {least}{of}"),
        (None, Some(most)) => format!(", at most {most}{of}"),
        (None, None) => String::new(),
    };
    match field["type"].as_str().unwrap_or_default() {
        "array" => format!("list of {}{}", plural(&field["items"]), range("minItems", "maxItems", " items")),
        "object" if field["additionalProperties"].is_object() => {
            format!("map of strings{}", range("minProperties", "maxProperties", " entries"))
        }
        "string" if field["format"] == "date-time" => "time".to_owned(),
        "string" => format!("string{}", range("minLength", "maxLength", " characters")),
        "integer" => format!("integer{}", range("minimum", "maximum", "")),
        other => other.to_owned(),
    }
}

/// What a list holds.
fn plural(items: &Value) -> String {
    match type_of(items).split(',').next().unwrap_or_default() {
        _ if items["enum"].is_array() => type_of(items),
        one => format!("{one}s"),
    }
}

/// A field's description, and the rules that it is checked by.
fn described(field: &Value) -> String {
    let rules = [field, &field["items"]].into_iter().flat_map(|of| of["x-kubernetes-validations"].as_array());
    let rules = rules.flatten().map(|rule| format!("*{}.*", text(&rule["message"])));
    [text(&field["description"])].into_iter().chain(rules).filter(|said| !said.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A text as it may stand in a table.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    // In code a browser shows `<` as it is.
    let parts = text.split('`').enumerate();
    let escaped = parts.map(|(at, part)| if at % 2 == 0 { part.replace('<', "&lt;") } else { part.to_owned() });
    escaped.collect::<Vec<_>>().join("`").replace('|', "\\|")
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |");
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    [line(head.to_vec()), rule].into_iter().chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts in quotes of constants whose line holds `marker`.
    fn constants<'a>(source: &'a str, marker: &'a str) -> impl Iterator<Item = &'a str> {
        source.lines().filter(move |line| line.contains(marker)).filter_map(|line| line.split('"').nth(1))
    }

    #[test]
    fn the_page_names_every_annotation_condition_and_reason() {
        let page = page();
        // One that the operator keeps for itself.
        let annotations = constants(include_str!("lib.rs"), "_ANNOTATION: &str")
            .filter(|one| *one != crate::ACCEPTED_SPEC_ANNOTATION);
        let conditions = constants(include_str!("condition.rs"), "    pub const ");
        let names: Vec<&str> = annotations.chain(conditions).collect();
        assert_eq!(names.len(), ANNOTATIONS.len() + CONDITIONS.len(), "{names:?}");
        for name in names {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
        for name in ["SecretAccessDenied", "CanaryUnavailable"] {
            assert!(page.contains(&format!("| `{name}` | ")), "{name}");
        }
    }

    #[test]
    fn a_field_is_shown_with_its_type_bounds_default_and_rules() {
        let page = page();
        for row in [
            "| `spec.retention.totalDays` | integer, 1 to 3650 | `30` | ",
            "| `spec.apiKeys[].scopes` | list of `Ingest`, `Query`, `Admin`, 1 to 3 items | required | ",
            "| `spec.quotas.ingestBytesPerSecond` | quantity | – | ",
            "| `status.apiKeys[].issuedAt` | time | ",
            "| `spec.stages[].match.services` | list of strings, 1 to 32 items | – | ",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
        assert!(page.contains("*hotDays must not exceed totalDays.*"));
        assert!(page.lines().all(|line| !line.starts_with('|') || line.ends_with('|')));
    }
}
