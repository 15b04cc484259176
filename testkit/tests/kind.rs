//! `LOGGERHUB_CLUSTER=kind`: what `make up` and `make down` ask of kind, the container engine, kubectl and Helm.
//! These are stand-ins that write down what they are asked: neither kind nor an engine runs where we test.

#![allow(clippy::unwrap_used, reason = "a test fails where what it stands on does")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use testkit::{helm, unique};

/// Writes down what it is asked. Of kind it knows which clusters there are, of an engine which it builds.
const STAND_IN: &str = r#"#!/bin/bash
name=$(basename "$0")
[ "$*" = info ] || echo "$name $*" >>"$HOUSE/asked"
case "$name $1 $2" in
    *' info ') [ ! -e "$HOUSE/$name-sleeps" ] ;;
    'kind get clusters') cat "$HOUSE/clusters" ;;
    'kind create cluster') echo "$4" >>"$HOUSE/clusters" ;;
    'kind delete cluster') : >"$HOUSE/clusters" ;;
    *' build --target') echo "sha256:0123456789abcdef-$3" >"$5" ;;
    *' save -o') touch "$3" ;;
    *' tag '*) ;;
    'kubectl '*)
        [ -t 0 ] || cat >/dev/null
        [ "$KUBECONFIG" = "$LOGGERHUB_CACHE/instances/kindly/kind.kubeconfig" ]
        ;;
    'helm upgrade --install') cp "$8" "$HOUSE/values.yaml" ;;
esac
"#;
/// What else the scripts run.
const TOOLS: &str = "awk base64 basename bash cat cp cut date dirname env flock grep head id mkdir mv rm sed seq setsid \
                     sh sleep stat tail touch tput tr";

const HERE: [&str; 4] = ["kind", "docker", "kubectl", "helm"];
const CLUSTER: &str = "loggerhub-kindly";

/// A folder for what one test makes, with the stand-ins in front of its PATH and little else on it.
struct House(PathBuf);

impl House {
    fn new(stand_ins: &[&str]) -> Self {
        let house = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("kind"));
        let bin = house.join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(house.join("clusters"), "").unwrap();
        fs::write(house.join("asked"), "").unwrap();
        for name in stand_ins {
            fs::write(bin.join(name), STAND_IN).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for tool in TOOLS.split_whitespace() {
            let found = ["/usr/bin", "/bin"].map(|folder| PathBuf::from(folder).join(tool));
            symlink(found.iter().find(|path| path.exists()).unwrap(), bin.join(tool)).unwrap();
        }
        Self(house)
    }

    /// Runs `dev/up` or `dev/down`; what was asked meanwhile.
    fn run(&self, command: &str) -> (Output, String) {
        fs::write(self.0.join("asked"), "").unwrap();
        let output = Command::new(helm::root().join("dev").join(command))
            .env_clear()
            .env("PATH", self.0.join("bin"))
            .env("HOME", &self.0)
            .env("HOUSE", &self.0)
            .env("LOGGERHUB_CACHE", self.0.join("cache"))
            .env("LOGGERHUB_INSTANCE", "kindly")
            .env("LOGGERHUB_CLUSTER", "kind")
            .output()
            .unwrap();
        (output, fs::read_to_string(self.0.join("asked")).unwrap())
    }

    /// The same, where it has to go well.
    fn asks(&self, command: &str) -> String {
        let (output, asked) = self.run(command);
        assert!(output.status.success(), "{}\n{asked}", text(&output));
        asked
    }
}

impl Drop for House {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether `asked` has these in this order.
fn assert_in_order(asked: &str, wanted: &[&str]) {
    let mut rest = asked;
    for one in wanted {
        rest = rest.split_once(one).unwrap_or_else(|| panic!("no `{one}`, or not after those before it:\n{asked}")).1;
    }
}

#[test]
fn up_makes_a_cluster_with_images_and_stores_and_down_deletes_it() {
    let house = House::new(&HERE);
    let asked = house.asks("up");
    let image = "loggerhub.local/loggerhub:0123456789ab";
    assert_in_order(
        &asked,
        &["docker build --target loggerhub ", &format!("docker tag 0123456789abcdef-loggerhub {image}")],
    );
    let load = format!("kind load docker-image {image} --name {CLUSTER}");
    assert_in_order(&asked, &[&format!("kind create cluster --name {CLUSTER} "), &load, "helm upgrade --install"]);
    let ready = "kubectl -n loggerhub rollout status statefulset,";
    assert_in_order(
        &asked,
        &["/manifests/evaluation/stores\n", ready, "helm upgrade --install", "/manifests/samples\n"],
    );

    let values: Value = serde_saphyr::from_str(&fs::read_to_string(house.0.join("values.yaml")).unwrap()).unwrap();
    assert_eq!(values["image"]["tag"], "0123456789ab");
    assert_eq!(values["operator"]["image"]["repository"], "loggerhub.local/loggerhub-operator");
    assert_eq!(values["stores"]["postgres"]["host"], "evaluation-postgres");

    let again = house.asks("up");
    assert!(!again.contains("create cluster"), "{again}");
    assert_in_order(&again, &[&format!("kind export kubeconfig --name {CLUSTER} "), "helm upgrade --install"]);

    let down = house.asks("down");
    assert!(down.contains(&format!("kind delete cluster --name {CLUSTER} ")) && !down.contains("helm"), "{down}");
}

#[test]
fn a_cluster_that_somebody_else_made_is_used_and_stays() {
    let house = House::new(&HERE);
    fs::write(house.0.join("clusters"), format!("other\n{CLUSTER}\n")).unwrap();
    let up = house.asks("up");
    assert!(!up.contains("create cluster"), "{up}");
    let down = house.asks("down");
    assert!(down.contains("helm uninstall loggerhub -n loggerhub") && !down.contains("kind delete"), "{down}");
}

#[test]
fn podmans_images_go_through_an_archive() {
    let house = House::new(&["kind", "docker", "podman", "kubectl", "helm"]);
    fs::write(house.0.join("docker-sleeps"), "").unwrap();
    let asked = house.asks("up");
    assert!(!asked.contains("docker "), "{asked}");
    assert_in_order(
        &asked,
        &["podman build --target loggerhub-operator ", "podman save -o ", "kind load image-archive "],
    );
}

#[test]
fn what_is_missing_is_named_before_anything_is_made() {
    let house = House::new(&["docker"]);
    fs::write(house.0.join("docker-sleeps"), "").unwrap();
    let (output, asked) = house.run("up");
    let said = text(&output);
    assert!(!output.status.success() && asked.is_empty(), "{said}\n{asked}");
    for missing in ["kind", "kubectl", "helm", "a container engine that answers"] {
        assert!(said.contains(&format!("- {missing}\n")), "{missing} is not named: {said}");
    }
}
