//! Who reaches whom: the chart's NetworkPolicies, as the cluster's network enforces them, and the stores' firewall.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams};
use serde_json::{Value, json};
use testkit::environment::variable;
use testkit::eventually;

use crate::stage::{SOON, Stage};

/// Image of busybox alone, which `make up` makes for the pods' namespaces: nothing is pulled.
const BUSYBOX: &str = "loggerhub.local/pause:1";
/// Ports of the stores, theirs with TLS too, and of OpenSearch among its own nodes.
const STORES: [u16; 10] = [5432, 6379, 6380, 6479, 6480, 9000, 9200, 9300, 9443, 9643];
/// Ports of the stores as this installation names them.
const STORES_IN_USE: [u16; 5] = [5432, 6379, 6380, 9000, 9200];
/// Looks at each address again and again, and says which of them it reached.
const LOOK: &str = r#"while true; do
    for to; do
        if busybox nc -w 3 "${to%:*}" "${to#*:}" -e /bin/busybox true 2>/dev/null; then echo "$to open"; else echo "$to shut"; fi
    done
    echo done
    busybox sleep 1
done"#;

/// Addresses, and whether each is reached.
type Reached = BTreeMap<String, bool>;

#[tokio::test]
async fn a_pod_of_a_tenants_reaches_the_two_doors_and_nothing_else_of_ours() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let tenant = stage.tenant("network").await?;
    let mut expected = Reached::new();
    for pod in ours(&stage).await? {
        let component = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/component"));
        let component = component.context("a pod without a component")?.as_str();
        let address = address(&pod)?;
        expected.insert(format!("{address}:8080"), ["gateway", "ingest"].contains(&component));
        expected.insert(format!("{address}:9090"), false);
    }
    for service in ["loggerhub-gateway", "loggerhub-default-ingest"] {
        let service = stage.cluster.ours::<Service>().get(service).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service without an address")?;
        expected.insert(format!("{address}:80"), true);
    }
    let node = node()?;
    expected.extend(STORES.map(|port| (format!("{node}:{port}"), false)));
    // Of the cluster's own: names and the API server.
    expected.extend([(format!("{node}:53"), true), (format!("{node}:6443"), true)]);

    let probe = Probe::start(&stage, &tenant.name, json!({}), expected.keys()).await?;
    // Pods of ours may come and go meanwhile, so not the addresses of those that went.
    let first = eventually("the pod has looked once", SOON, || probe.round(Round::First)).await?;
    let there: Vec<String> = ours(&stage).await?.iter().map(address).collect::<anyhow::Result<_>>()?;
    let stays = |to: &str| there.iter().any(|pod| to.starts_with(&format!("{pod}:")));
    let wrong: Vec<_> = first
        .iter()
        .filter(|(to, open)| expected[*to] != **open)
        .filter(|(to, open)| **open || !to.starts_with("10.244.") || stays(to))
        .collect();
    ensure!(wrong.is_empty(), "these addresses are reached, or not, and should be otherwise: {wrong:?}");
    probe.end().await?;
    stage.clear(&tenant).await
}

#[tokio::test]
async fn a_pod_of_ours_goes_to_the_stores_and_to_nobody_else() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let node = node()?;
    let mut expected: Reached = STORES_IN_USE.map(|port| (format!("{node}:{port}"), true)).into();
    // The API server, which is the operator's alone; the kubelet; OpenSearch's port for its own nodes.
    expected.extend([6443, 10250, 9300].map(|port| (format!("{node}:{port}"), false)));
    let labels = json!({
        "app.kubernetes.io/name": "loggerhub",
        "app.kubernetes.io/instance": "loggerhub",
        "app.kubernetes.io/component": "probe",
    });
    let probe = Probe::start(&stage, &stage.cluster.namespace, labels, expected.keys()).await?;
    // A policy is enforced some moments after a pod has its address.
    eventually("the policies are enforced", SOON, || async {
        let reached = probe.round(Round::Last).await?;
        ensure!(reached == expected, "{reached:?}, not {expected:?}");
        Ok(())
    })
    .await?;
    probe.end().await
}

/// Pods of the release that run.
async fn ours(stage: &Stage) -> anyhow::Result<Vec<Pod>> {
    let labels = ListParams::default().labels("app.kubernetes.io/name=loggerhub").fields("status.phase=Running");
    let mut pods = stage.cluster.ours::<Pod>().list(&labels).await?.items;
    pods.retain(|pod| {
        let probe = pod.metadata.name.as_deref().is_some_and(|name| name.starts_with("probe-"));
        pod.metadata.deletion_timestamp.is_none() && !probe
    });
    Ok(pods)
}

fn address(pod: &Pod) -> anyhow::Result<String> {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("a pod without an address")
}

/// Where this machine's stores are, as pods see them.
fn node() -> anyhow::Result<String> {
    let url = variable("OPENSEARCH_URL")?;
    let host = url.strip_prefix("http://").and_then(|rest| rest.split(':').next());
    Ok(host.context("OPENSEARCH_URL is no http://HOST:PORT")?.to_owned())
}

/// A pod that looks which addresses it reaches.
struct Probe {
    pods: Api<Pod>,
    name: String,
}

#[derive(Clone, Copy)]
enum Round {
    First,
    Last,
}

impl Probe {
    async fn start(
        stage: &Stage,
        namespace: &str,
        labels: Value,
        addresses: impl Iterator<Item = &String>,
    ) -> anyhow::Result<Self> {
        let name = testkit::unique("probe");
        let command: Vec<&str> = ["/bin/busybox", "sh", "-c", LOOK, "look"].into();
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "probe",
                    "image": BUSYBOX,
                    "imagePullPolicy": "Never",
                    "command": command,
                    "args": addresses.collect::<Vec<_>>(),
                    "env": [{"name": "PATH", "value": "/bin"}],
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        let pods = Api::<Pod>::namespaced(stage.cluster.client.clone(), namespace);
        // The namespace's account may be some moments younger than the namespace.
        let pod: Pod = serde_json::from_value(pod)?;
        eventually("the pod is taken", SOON, || async { stage.cluster.apply(&pods, &pod).await }).await?;
        Ok(Self { pods, name })
    }

    /// What it reached in its first or its last round.
    async fn round(&self, which: Round) -> anyhow::Result<Reached> {
        let log = self.pods.logs(&self.name, &LogParams::default()).await?;
        let mut rounds: Vec<&str> = log.split("done\n").collect();
        // What follows the last mark is not over.
        rounds.pop();
        let round = match which {
            Round::First => rounds.first(),
            Round::Last => rounds.last(),
        };
        let lines = round.context("it has not looked yet")?.lines();
        let reached: Option<Reached> =
            lines.map(|line| line.rsplit_once(' ').map(|(to, said)| (to.to_owned(), said == "open"))).collect();
        reached.with_context(|| format!("the pod says: {log}"))
    }

    async fn end(&self) -> anyhow::Result<()> {
        self.pods.delete(&self.name, &DeleteParams::default()).await?;
        eventually("the probe is gone", Duration::from_secs(60), || async {
            ensure!(self.pods.get_opt(&self.name).await?.is_none(), "it is still there");
            Ok(())
        })
        .await
    }
}
