//! Alerts, dashboard and runbooks: they speak of metrics that the programs export and of pages that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::helm;

use super::{find, rendered};

const RULES: &[&str] = &["metrics.rules.enabled=true", "metrics.rules.runbookUrl=https://example.com/pages/"];

#[tokio::test]
async fn every_alert_has_a_page_and_every_page_an_alert() {
    let objects = rendered(RULES).await;
    let alerts: BTreeSet<_> = alerts(find(&objects, "PrometheusRule", "loggerhub")).collect();
    for (name, severity, url) in &alerts {
        assert_eq!(url, &format!("https://example.com/pages/{name}.md"));
        assert!(["critical", "warning"].contains(&severity.as_str()), "{name}: {severity}");
        let page = fs::read_to_string(runbooks().join(format!("{name}.md"))).expect(name);
        for part in [format!("# {name}\n"), "**Look".to_owned(), "**Do**".to_owned()] {
            assert!(page.contains(&part), "{name}.md lacks `{part}`");
        }
    }
    let pages = fs::read_dir(runbooks()).unwrap().map(|page| page.unwrap().path());
    let pages: BTreeSet<_> = pages.map(|page| page.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let expected = alerts.into_iter().map(|(name, ..)| name).chain(["README".to_owned()]).collect();
    assert_eq!(pages, expected);
}

#[tokio::test]
async fn alerts_ask_for_metrics_of_this_release_that_the_programs_export() {
    let objects = rendered(RULES).await;
    let rule = find(&objects, "PrometheusRule", "loggerhub");
    let expressions: Vec<_> = texts(rule, "expr").collect();
    assert!(expressions.len() > 10, "{expressions:?}");
    assert_exported(&expressions);
    for expression in expressions {
        let selectors = expression.matches('{').count();
        assert_eq!(expression.matches("{namespace=\"loggerhub\"").count(), selectors, "{expression}");
    }
}

#[tokio::test]
async fn the_dashboard_shows_metrics_that_the_programs_export() {
    let objects = rendered(&["metrics.dashboard.enabled=true"]).await;
    let map = find(&objects, "ConfigMap", "loggerhub-dashboard");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value = serde_json::from_str(map["data"]["loggerhub.json"].as_str().unwrap()).unwrap();
    let expressions: Vec<_> = texts(&dashboard, "expr").collect();
    assert!(expressions.len() > 20, "{expressions:?}");
    assert_exported(&expressions);
}

#[test]
fn names_are_found_in_each_way_of_registering() {
    let direct = "registry.register(\n    \"loggerhub_x_seconds\",\n";
    let prefixed = "let r = r.sub_registry_with_prefix(\"loggerhub_y\");\nr.register(\"events\", \"Help\", e);";
    let listed = "for (name, help, c) in [\n(\"passes\", \"Help\", &c),\n] { r.register(format!(\"loggerhub_z_{name}\"), help, c) }";
    for (source, name) in
        [(direct, "loggerhub_x_seconds"), (prefixed, "loggerhub_y_events"), (listed, "loggerhub_z_passes")]
    {
        assert_eq!(registered_in(source), [name]);
    }
    assert_eq!(used_in("sum(rate(loggerhub_y_events_total{a=\"loggerhub\"}[5m]))"), ["loggerhub_y_events_total"]);
}

/// Fails for a name that is exported by nobody: a counter is registered without its `_total`, a
/// histogram without `_bucket`, `_sum` and `_count`.
fn assert_exported(expressions: &[&str]) {
    let mut registered = Vec::new();
    for room in ["runtime", "dataplane", "operator"] {
        sources(&helm::root().join(room).join("src"), &mut |source| registered.extend(registered_in(source)));
    }
    assert!(registered.len() > 30, "{registered:?}");
    for name in expressions.iter().flat_map(|expression| used_in(expression)) {
        let base = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(registered.iter().any(|one| one == base.unwrap_or(name)), "nobody exports {name}");
    }
}

/// Words of an expression that are names of ours or of controller-runtime's.
fn used_in(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = ["loggerhub_", "controller_runtime_", "leader_election_"];
    words.filter(|word| ours.iter().any(|prefix| word.starts_with(prefix))).collect()
}

/// Names that a source file registers: as they stand, behind a sub-registry's prefix, or from a
/// list of `("name", "Help", …)` by `format!("prefix_{name}")`.
fn registered_in(source: &str) -> Vec<String> {
    if !source.contains(".register(") {
        return Vec::new();
    }
    let quoted =
        |text: &str| text.trim_start().strip_prefix('"').and_then(|text| Some(text.split_once('"')?.0.to_owned()));
    let after = |marker| source.split(marker).skip(1).filter_map(quoted);
    let prefix = after("sub_registry_with_prefix(").next().map(|prefix| prefix + "_").unwrap_or_default();
    let mut names: Vec<_> = after(".register(").map(|name| prefix.clone() + &name).collect();
    let formats = after(".register(format!(").filter_map(|format| format.strip_suffix("{name}").map(str::to_owned));
    if let Some(prefix) = formats.last() {
        let listed = source.lines().filter_map(|line| quoted(line.trim_start().strip_prefix('(')?));
        names.extend(listed.map(|name| prefix.clone() + &name));
    }
    names
}

fn sources(folder: &Path, each: &mut impl FnMut(&str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&fs::read_to_string(path).unwrap());
        }
    }
}

/// Name, severity and runbook of each alert.
fn alerts(rule: &Value) -> impl Iterator<Item = (String, String, String)> {
    let rules = rule["spec"]["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rules.map(move |rule| {
        (text(&rule["alert"]), text(&rule["labels"]["severity"]), text(&rule["annotations"]["runbook_url"]))
    })
}

/// Every text under this key, however deep.
fn texts<'a>(value: &'a Value, key: &'static str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    match value {
        Value::Object(members) => Box::new(
            members
                .get(key)
                .and_then(Value::as_str)
                .into_iter()
                .chain(members.values().flat_map(move |v| texts(v, key))),
        ),
        Value::Array(items) => Box::new(items.iter().flat_map(move |item| texts(item, key))),
        _ => Box::new(std::iter::empty()),
    }
}

fn runbooks() -> PathBuf {
    helm::root().join("docs/runbooks")
}
