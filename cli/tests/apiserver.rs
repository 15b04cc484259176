//! The program itself against a real API server: what it reads and changes there, what it says when
//! it may not, and how it finds the key for an API that the test plays.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::process::{Output, Stdio};
use std::time::Duration;

use crds::tenant::KeySource;
use crds::{LogPipeline, Tenant};
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, CustomResourceExt, ResourceExt};
use operator::settings::OPERATOR_CLASS_LABEL;
use serde_json::{Value, json};
use testkit::environment::variable;
use testkit::{Cluster, eventually, unique};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

const SOON: Duration = Duration::from_secs(60);
const KEY: &str = "lh_abcdefghijkl_0123456789012345678901234567890123456789012";

/// A Tenant with a key, and a namespace of its name. No operator acts on them: the test plays it.
struct House {
    cluster: Cluster,
    name: String,
}

impl House {
    async fn new() -> Self {
        let mut cluster = Cluster::connect().await.unwrap();
        let name = unique("cli");
        cluster.namespace = name.clone();
        cluster.ensure_namespace(&name).await.unwrap();
        let crds = Api::<CustomResourceDefinition>::all(cluster.client.clone());
        for crd in [Tenant::crd(), LogPipeline::crd()] {
            if crds.get_opt(&crd.name_any()).await.unwrap().is_none() {
                cluster.apply(&crds, &crd).await.unwrap();
            }
        }
        let spec = json!({
            "namespaces": [name],
            "apiKeys": [{"name": "main", "scopes": ["Query"], "secretRef": {"name": "main", "namespace": name}}],
        });
        let mut tenant = Tenant::new(&name, serde_json::from_value(spec).unwrap());
        // An operator that is installed here leaves it alone.
        tenant.labels_mut().insert(OPERATOR_CLASS_LABEL.to_owned(), name.clone());
        eventually("the Tenant is taken", SOON, || async { cluster.apply(&cluster.tenants(), &tenant).await })
            .await
            .unwrap();
        Self { cluster, name }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-loggerhub"));
        command.args(["--namespace", &self.name]).args(line.replace("TENANT", &self.name).split(' '));
        for name in ["LOGGERHUB_URL", "LOGGERHUB_API_KEY", "HTTPS_PROXY", "https_proxy"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> (i32, String, String) {
        ended(self.command(line).output().await.unwrap())
    }

    async fn secret(&self) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "main"},
            "stringData": {"apiKey": KEY}});
        let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret).unwrap();
        self.cluster.apply(&self.cluster.ours(), &secret).await.unwrap();
    }

    /// Says in status that these keys are issued, once spec asks for so many.
    async fn act(&self, wanted: usize) {
        let tenants = self.cluster.tenants();
        let tenant = eventually("spec.apiKeys is changed", SOON, || async {
            let tenant = tenants.get(&self.name).await?;
            anyhow::ensure!(tenant.spec.api_keys.len() == wanted, "{:?}", tenant.spec.api_keys);
            Ok(tenant)
        })
        .await
        .unwrap();
        let issued = |key: &crds::tenant::ApiKeySpec| {
            json!({
                "name": key.name, "keyId": "k1", "issuedAt": "2026-01-01T00:00:00Z", "lastUsedAt": "2026-01-02T03:00:00Z",
                "previous": {"keyId": "k0", "expiresAt": "2099-01-01T00:00:00Z", "lastUsedAt": "2026-01-01T00:00:00Z"},
            })
        };
        let keys: Vec<_> = tenant.spec.api_keys.iter().map(issued).collect();
        let patch = Patch::Merge(json!({"status": {"apiKeys": keys}}));
        tenants.patch_status(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn clear(self) {
        self.cluster.delete_tenant(&self.name, SOON).await.unwrap();
        self.cluster.delete_namespace(&self.name).await.unwrap();
    }
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_lanes_are_listed_as_columns_and_as_json() {
    let house = House::new().await;
    let (code, table, _) = house.run("tenants").await;
    assert_eq!(code, 0);
    assert!(table.starts_with("NAME "), "{table}");
    assert!(table.lines().any(|line| line.starts_with(&house.name) && line.contains("Unknown")), "{table}");
    let (_, listed, _) = house.run("tenants -o json").await;
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let ours = listed.iter().find(|tenant| tenant["name"] == house.name).unwrap();
    assert_eq!((&ours["plan"], &ours["keys"]), (&json!("standard"), &json!(1)));
    let (code, words, _) = house.run(&format!("complete-words -- tail {}", &house.name[..7])).await;
    assert_eq!(code, 0);
    assert!(words.contains(&format!("{}\n", house.name)) && words.ends_with(":4\n"), "{words}");

    let (code, nothing, said) = house.run("backlog").await;
    // There is no ingest here that could be asked.
    let (unasked, none) = said.split_once('\n').unwrap();
    assert!(unasked.starts_with("what waits for pipelines that are not there is not shown: "), "{said}");
    assert!((code, nothing.as_str()) == (0, "") && none.starts_with("no LogPipelines: "), "{said}");
    let mut lane = LogPipeline::new("default", Default::default());
    lane.labels_mut().insert(OPERATOR_CLASS_LABEL.to_owned(), house.name.clone());
    house.cluster.apply(&house.cluster.pipelines(), &lane).await.unwrap();
    let (_, lanes, _) = house.run("backlog").await;
    assert!(lanes.lines().nth(1).is_some_and(|line| line.starts_with("default")), "{lanes}");
    let (code, nothing, said) = house.run("canary").await;
    assert!((code, nothing.as_str()) == (0, "") && said.contains("spec.canary"), "{said}");
    lane.spec.canary = serde_json::from_value(json!({"keySecret": "canary-key"})).unwrap();
    house.cluster.apply(&house.cluster.pipelines(), &lane).await.unwrap();
    let (_, canaries, _) = house.run("canary -o json").await;
    let canaries: Value = serde_json::from_str(&canaries).unwrap();
    let expected = json!([{"pipeline": "default", "healthy": "Unknown", "reason": "", "message": ""}]);
    assert_eq!(canaries, expected, "no operator has asked it");
    house.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_issued_and_revoked_in_the_spec_by_a_manager_of_its_own() {
    let house = House::new().await;
    let issue = house.command("keys issue TENANT ship --scope Ingest --secret TENANT/ship").spawn().unwrap();
    house.act(2).await;
    let (code, _, said) = ended(issue.wait_with_output().await.unwrap());
    assert_eq!((code, said.contains("key ship (k1)")), (0, true), "{said}");
    let tenant = house.cluster.tenants().get(&house.name).await.unwrap();
    let managers: Vec<_> = tenant.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
    assert!(managers.contains(&"kubectl-loggerhub".to_owned()), "{managers:?}");
    let (_, keys, _) = house.run("keys list TENANT").await;
    assert!(keys.contains(&format!("ship   Ingest   {}/ship", house.name)), "{keys}");
    assert!(
        keys.lines().nth(1).is_some_and(|line| line.contains("k0, ends in ") && line.contains(", used ")),
        "{keys}"
    );
    let (_, listed, _) = house.run("keys list TENANT -o json").await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let ship = &listed[1];
    assert_eq!((&ship["lastUsedAt"], &ship["previous"]["keyId"]), (&json!(1_767_322_800), &json!("k0")), "{ship}");

    let issue = house.command("keys issue TENANT mine --scope Query --secret TENANT/mine --existing").spawn().unwrap();
    house.act(3).await;
    let (code, _, said) = ended(issue.wait_with_output().await.unwrap());
    assert_eq!(code, 0, "{said}");
    let tenant = house.cluster.tenants().get(&house.name).await.unwrap();
    assert_eq!(tenant.spec.api_keys[2].source, KeySource::Existing);
    let (code, _, said) = house.run("keys issue TENANT mine --scope Query --secret TENANT/mine").await;
    assert!(code == 1 && said.contains("another source"), "{said}");
    let revoke = house.command("keys revoke TENANT mine").spawn().unwrap();
    house.act(2).await;
    assert_eq!(ended(revoke.wait_with_output().await.unwrap()).0, 0);

    let revoke = house.command("keys revoke TENANT ship").spawn().unwrap();
    house.act(1).await;
    let (code, _, said) = ended(revoke.wait_with_output().await.unwrap());
    assert_eq!(code, 0, "{said}");
    let (code, _, said) = house.run("keys revoke TENANT ship").await;
    assert_eq!((code, said.as_str()), (1, "error: there is no key ship\n"));
    let (code, _, said) = house.run("keys issue TENANT ship --scope Query --secret elsewhere/ship").await;
    assert!(code == 1 && said.contains("must be listed in spec.namespaces"), "{said}");
    house.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_which_permission_is_missing() {
    let house = House::new().await;
    let kubeconfig = std::fs::read_to_string(variable("KUBECONFIG").unwrap()).unwrap();
    let mut kubeconfig: Value = serde_saphyr::from_str(&kubeconfig).unwrap();
    for user in kubeconfig["users"].as_array_mut().unwrap() {
        user["user"]["as"] = json!("jo");
    }
    let path = std::env::temp_dir().join(format!("{}.json", house.name));
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    for (line, expected) in [
        ("tenants", "you lack the permission to list tenants.loggerhub.io; "),
        ("search TENANT --url http://127.0.0.1:1", "you lack the permission to get tenants.loggerhub.io"),
        ("backlog", "you lack the permission to list logpipelines.loggerhub.io ("),
    ] {
        let (code, _, said) = house.run(&format!("{line} --kubeconfig {}", path.display())).await;
        assert!(code == 1 && said.contains(expected) && said.contains("User \"jo\" cannot"), "{line}: {said}");
    }
    std::fs::remove_file(&path).unwrap();
    house.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_uses_the_key_of_the_tenants_secret_and_shows_refusals() {
    let house = House::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (code, _, said) = house.run(&format!("search TENANT --url {url}")).await;
    assert!(code == 1 && said.contains("there is no Secret"), "{said}");
    house.secret().await;
    let item = json!({"id": "019b76da-a800-7000-8000-000000000001", "timestamp": "2026-01-01T00:00:00Z",
        "accepted_at": "2026-01-01T00:00:00Z", "tenant": "acme", "service": "shop", "application": null, "level": "INFO",
        "message": "hello", "language": null, "batch_id": "019b76da-a800-7000-8000-000000000000", "raw_path": null,
        "indexed": true, "flags": []});
    let page = json!({"items": [item], "next_cursor": null, "source": "index", "complete": true});
    let refusal = json!({"error": {"code": "invalid_query", "message": "at 3", "repairs": ["meant"]}});
    let server = tokio::spawn(async move {
        let mut heads = Vec::new();
        for (status, body) in [("200 OK", &page), ("400 Bad Request", &refusal)] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            heads.push(String::from_utf8_lossy(&head[..read]).to_lowercase());
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
        heads
    });
    let (code, table, said) = house.run(&format!("search TENANT hello --url {url}")).await;
    assert_eq!(code, 0, "{said}");
    assert!(table.contains("2026-01-01T00:00:00Z   INFO    shop      hello"), "{table}");
    let (code, _, said) = house.run(&format!("search TENANT hello --url {url}")).await;
    assert_eq!((code, said.contains("invalid_query: at 3; did you mean: meant")), (1, true), "{said}");
    let heads = server.await.unwrap();
    assert!(heads[0].starts_with("get /api/search?limit=50&q=hello http/1.1"), "{}", heads[0]);
    assert!(heads[0].contains(&format!("authorization: bearer {}", KEY.to_lowercase())), "{}", heads[0]);
    assert!(heads[0].contains(&format!("x-scope-orgid: {}", house.name)), "{}", heads[0]);
    house.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_goes_on_when_its_connection_ends() {
    let house = House::new().await;
    house.secret().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        for (id, message) in [(1, "one"), (2, "two")] {
            let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
            let event = json!({"type": "event", "event": {"id": uuid::Uuid::from_u128(id), "message": message}});
            for frame in [json!({"type": "ready"}), event] {
                socket.send(Message::text(frame.to_string())).await.unwrap();
            }
            socket.close(None).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        }
    });
    let mut tail = house.command(&format!("tail TENANT -o json --url {url}")).spawn().unwrap();
    tokio::time::timeout(SOON, server).await.unwrap().unwrap();
    // Nobody answers any more, and the program goes on trying: that is enough seen.
    tail.start_kill().unwrap();
    let seen = String::from_utf8(tail.wait_with_output().await.unwrap().stdout).unwrap();
    let line = |id, message: &str| format!("{}\n", json!({"id": uuid::Uuid::from_u128(id), "message": message}));
    assert_eq!(seen, line(1, "one") + &line(2, "two"));
    house.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_can_not_start_leaves_no_job() {
    let house = House::new().await;
    let maintain = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "loggerhub-maintain",
        "labels": {"app.kubernetes.io/name": "loggerhub", "app.kubernetes.io/component": "maintain"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"nodeSelector": {"no": "such"}, "containers": [{"name": "maintain", "image": "none"}]}}}});
    let maintain: k8s_openapi::api::apps::v1::Deployment = serde_json::from_value(maintain).unwrap();
    house.cluster.apply(&house.cluster.ours(), &maintain).await.unwrap();
    let jobs = house.cluster.ours::<Job>();
    let verify = house.command("verify TENANT --from 7d --timeout 5s").spawn().unwrap();
    let job = eventually("there is a Job", SOON, || async {
        let found = jobs.list(&Default::default()).await?.items.into_iter().next();
        found.ok_or_else(|| anyhow::anyhow!("none"))
    })
    .await
    .unwrap();
    let container = job.spec.unwrap().template.spec.unwrap().containers.remove(0);
    assert_eq!(container.args.unwrap()[..4], ["verify", "--tenant", &house.name, "--from"]);
    let (code, _, said) = ended(verify.wait_with_output().await.unwrap());
    assert!(code == 2 && said.contains("it took longer than 5 s"), "{code} {said}");
    eventually("the Job is gone", SOON, || async {
        let left = jobs.list(&Default::default()).await?.items;
        anyhow::ensure!(left.iter().all(|job| job.metadata.deletion_timestamp.is_some()), "it is there");
        Ok(())
    })
    .await
    .unwrap();
    house.clear().await;
}
