//! Generated files that are committed are what would be generated now. `make generate` writes them.

use std::fs;
use std::process::Command;

use kube::CustomResourceExt;
use testkit::helm;

fn assert_fresh(path: &str, fresh: &str) {
    let committed = fs::read_to_string(helm::root().join(path)).unwrap_or_default();
    let line = committed.lines().zip(fresh.lines()).position(|(old, new)| old != new);
    let line = line.unwrap_or_else(|| committed.lines().count().min(fresh.lines().count()));
    assert!(committed == fresh, "{path} is stale from line {}: make generate", line + 1);
}

#[test]
fn the_crds_and_the_charts_copies_are_those_of_the_types() {
    for (name, crd) in [("tenants", crds::Tenant::crd()), ("logpipelines", crds::LogPipeline::crd())] {
        let fresh = serde_saphyr::to_string(&crd).unwrap();
        assert_fresh(&format!("crds/{name}.yaml"), &fresh);
        assert_fresh(&format!("charts/loggerhub/files/crds/{name}.yaml"), &fresh);
        // Argo CD and `kubectl apply` keep a copy in an annotation of at most 262,144 bytes.
        assert!(fresh.len() < 200_000, "crds/{name}.yaml has {} bytes", fresh.len());
    }
}

#[test]
fn the_reference_is_of_the_types() {
    assert_fresh("docs/reference.md", &crds::reference::page());
}

#[tokio::test]
async fn the_rendered_chart_is_the_charts() {
    assert_fresh("manifests/loggerhub.yaml", &helm::template(&[]).await.unwrap());
}

#[test]
fn what_is_made_from_the_words_of_the_api_is_of_them() {
    assert_fresh("api/openapi.json", &api::openapi::text());
    assert_fresh("api/types.ts", &api::typescript::text());
    let page = fs::read_to_string(helm::root().join("docs/api.md")).unwrap();
    assert_fresh("docs/api.md", &api::page::with_tables(&page).unwrap());
}

#[test]
fn the_table_in_the_charts_readme_is_of_its_values() {
    let path = "charts/loggerhub/README.md";
    let table = Command::new("awk")
        .args(["-f", "dev/lib/values-table.awk", "charts/loggerhub/values.yaml"])
        .current_dir(helm::root())
        .output()
        .unwrap();
    assert!(table.status.success(), "{}", String::from_utf8_lossy(&table.stderr));
    let readme = fs::read_to_string(helm::root().join(path)).unwrap();
    let (text, _) = readme.split_once("\n## Values\n").expect("a heading Values");
    assert_fresh(path, &format!("{text}\n## Values\n\n{}", String::from_utf8_lossy(&table.stdout)));
}
