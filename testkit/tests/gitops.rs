//! Argo CD's health of our kinds: the Lua that we ship, run on the situations that docs/gitops.md lists.

#![allow(clippy::unwrap_used, reason = "a test fails where what it stands on does")]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use testkit::helm;

const KINDS: [&str; 2] = ["Tenant", "LogPipeline"];

#[test]
fn both_kinds_have_the_same_health() {
    let [tenant, pipeline] = KINDS.map(script);
    assert!(tenant.contains("return {status = "), "{tenant}");
    assert_eq!(tenant, pipeline);
}

#[test]
fn each_situation_has_its_health() {
    let unseen = json!({"metadata": {"generation": 2}});
    let deleted = object(2, [("Ready", "False", "Draining"), ("Reconciling", "True", "Draining")]);
    let deleted = with(deleted, "deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    let paused = [("Ready", "True", "Provisioned"), ("Reconciling", "False", "Paused"), ("Stalled", "False", "x")];
    for (situation, object, health) in [
        ("not seen yet", unseen, "Progressing: the operator has not seen this version yet"),
        (
            "an older version was seen",
            object(1, ready("True", "False", "Provisioned")),
            "Progressing: the operator has not seen this version yet",
        ),
        ("being put in place", object(2, ready("False", "False", "Provisioning")), "Progressing: of Ready"),
        ("in place", object(2, ready("True", "False", "Provisioned")), "Healthy: of Ready"),
        ("wrong in itself", object(2, ready("False", "True", "UnknownPlan")), "Degraded: of Stalled"),
        ("suspended tenant", object(2, ready("True", "False", "Suspended")), "Suspended: of Ready"),
        ("suspended pipeline", object(2, ready("False", "False", "Suspended")), "Suspended: of Ready"),
        ("paused", object(2, paused), "Suspended: of Reconciling"),
        ("being deleted", deleted, "Progressing: of Ready"),
    ] {
        assert_eq!(health_of(&object), health, "{situation}");
    }
}

/// The usual three conditions, with one reason.
fn ready(
    ready: &'static str,
    stalled: &'static str,
    reason: &'static str,
) -> [(&'static str, &'static str, &'static str); 3] {
    let reconciling = if (ready, stalled) == ("False", "False") && reason != "Suspended" { "True" } else { "False" };
    [("Ready", ready, reason), ("Reconciling", reconciling, reason), ("Stalled", stalled, reason)]
}

/// An object of generation 2, of which `seen` was seen.
fn object<const N: usize>(seen: i64, conditions: [(&str, &str, &str); N]) -> Value {
    let conditions = conditions.iter().map(|(type_, status, reason)| {
        json!({"type": type_, "status": status, "reason": reason, "message": format!("of {type_}")})
    });
    let conditions: Vec<_> = conditions.collect();
    json!({"metadata": {"generation": 2}, "status": {"observedGeneration": seen, "conditions": conditions}})
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    object["metadata"][field] = value;
    object
}

/// Runs the script as Argo CD does: with the object in `obj`, for a table with status and message.
fn health_of(object: &Value) -> String {
    let program = format!(
        "obj = {}\nlocal function health()\n{}\nend\nlocal hs = health()\nio.write(hs.status, ': ', hs.message)",
        lua(object),
        script(KINDS[0])
    );
    let output = Command::new("lua5.1").args(["-e", &program]).output();
    let output = output.expect("lua5.1, of the Debian package of that name");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn script(kind: &str) -> String {
    let text = fs::read_to_string(helm::root().join("manifests/gitops/argocd-cm.yaml")).unwrap();
    let patch: Value = serde_saphyr::from_str(&text).unwrap();
    patch["data"][format!("resource.customizations.health.loggerhub.io_{kind}")].as_str().expect(kind).to_owned()
}

/// A JSON value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("[{name:?}] = {}", lua(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        // Numbers, booleans and plain ASCII texts are written alike.
        plain => plain.to_string(),
    }
}
