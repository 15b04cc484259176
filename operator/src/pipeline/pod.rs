//! The pod that a role of a pipeline's runs in: restricted, with the settings of the chart and of the pipeline.

use std::collections::BTreeMap;

use crds::names::registry_keys_config_map;
use crds::pipeline::Resources;
use crds::{LogPipeline, LogPipelineSpec, PipelineName};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, Lifecycle,
    LifecycleHandler, LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, SleepAction, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::availability;
use super::role::Role;
use crate::settings::{CaBundle, Settings};

/// Port of what tenants ask, which ingest has.
const HTTP: (&str, i32) = ("http", 8080);
/// Port of health, readiness and metrics, which every role has and no Service shows.
const ADMIN: (&str, i32) = ("admin", 9090);
/// The user that pods run as.
const USER: i64 = 65532;
/// Where Secrets are mounted.
const SECRETS: &str = "/etc/loggerhub/secrets";
/// Where the public keys of the registry are mounted.
const REGISTRY_KEYS: &str = "/etc/loggerhub/registry-keys";

/// A Secret that a pod mounts, and the variable that names its folder.
pub(super) struct Mount {
    folder: &'static str,
    variable: &'static str,
    secret: String,
}

/// The pod; `own` are the role's variables.
pub(super) fn pod(
    settings: &Settings,
    pipeline: &LogPipeline,
    name: &PipelineName,
    role: Role,
    resources: &Resources,
    own: Vec<EnvVar>,
    mounts: &[Mount],
) -> PodSpec {
    let dataplane = &settings.dataplane;
    let mut volumes: Vec<Volume> = mounts.iter().map(secret_volume).collect();
    let mut volume_mounts: Vec<VolumeMount> =
        mounts.iter().map(|mount| read_only(mount.folder, format!("{SECRETS}/{}", mount.folder))).collect();
    if role.reads_registry() {
        volumes.push(registry_keys_volume(settings));
        volume_mounts.push(read_only("registry-keys", REGISTRY_KEYS.to_owned()));
    }
    if let Some(bundle) = &dataplane.ca_bundle {
        volumes.push(ca_volume(bundle));
        volume_mounts.push(read_only("ca", "/etc/loggerhub/ca".to_owned()));
    }
    let container = Container {
        name: role.component().to_owned(),
        image: Some(dataplane.image.clone()),
        image_pull_policy: dataplane.image_pull_policy.clone(),
        command: Some(vec!["loggerhub".to_owned(), role.command().to_owned()]),
        env: Some(environment(settings, pipeline, name, role, own, mounts)),
        ports: Some(if role == Role::Ingest { vec![port(HTTP), port(ADMIN)] } else { vec![port(ADMIN)] }),
        // The process is alive unless it hangs for half a minute; it is ready when its stores are.
        liveness_probe: Some(probe("/health", 10, 3)),
        readiness_probe: Some(probe("/ready", 5, 2)),
        startup_probe: Some(probe("/health", 2, 30)),
        resources: Some(ResourceRequirements {
            requests: quantities(&resources.requests),
            limits: quantities(&resources.limits),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(volume_mounts),
        lifecycle: (role == Role::Ingest).then(after_the_last_new_connection),
        ..Container::default()
    };
    PodSpec {
        service_account_name: Some(dataplane.service_account_name.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // 3 s until no Service sends here any more, 20 s to finish what is held, and some to spare.
        termination_grace_period_seconds: Some(30),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: some(
            dataplane.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect(),
        ),
        node_selector: Some(dataplane.node_selector.clone()).filter(|selector| !selector.is_empty()),
        tolerations: some(dataplane.tolerations.clone()),
        topology_spread_constraints: some(availability::spread(settings, name, role)),
        containers: vec![container],
        volumes: some(volumes),
        ..PodSpec::default()
    }
}

/// A stop that comes when no Service sends new connections here any more. A connection that is sent to a
/// pod that is gone is not refused: it hangs until its client gives up.
fn after_the_last_new_connection() -> Lifecycle {
    let sleep = SleepAction { seconds: 3 };
    Lifecycle {
        pre_stop: Some(LifecycleHandler { sleep: Some(sleep), ..LifecycleHandler::default() }),
        ..Lifecycle::default()
    }
}

/// The chart's addresses, then what is ours: of two variables of one name, ours is meant.
fn environment(
    settings: &Settings,
    pipeline: &LogPipeline,
    name: &PipelineName,
    role: Role,
    own: Vec<EnvVar>,
    mounts: &[Mount],
) -> Vec<EnvVar> {
    let mut ours = vec![
        variable("LOGGERHUB_PIPELINE", name.to_string()),
        variable("LOGGERHUB_PIPELINE_GENERATION", pipeline.metadata.generation.unwrap_or(1).to_string()),
        EnvVar {
            name: "LOGGERHUB_CONSUMER".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.name".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        },
    ];
    ours.extend(own);
    ours.extend(mounts.iter().map(|mount| variable(mount.variable, format!("{SECRETS}/{}", mount.folder))));
    if role.reads_registry() {
        ours.push(variable("LOGGERHUB_REGISTRY_KEYS", REGISTRY_KEYS.to_owned()));
    }
    if settings.dataplane.ca_bundle.is_some() {
        ours.push(variable("LOGGERHUB_CA_BUNDLE", "/etc/loggerhub/ca/ca.crt".to_owned()));
    }
    let given = settings.dataplane.env.iter().filter(|given| ours.iter().all(|own| own.name != given.name));
    given.map(|given| variable(&given.name, given.value.clone())).chain(ours.clone()).collect()
}

/// A mount, if there is a Secret for it.
pub(super) fn mount(folder: &'static str, variable: &'static str, secret: Option<String>) -> Option<Mount> {
    secret.map(|secret| Mount { folder, variable, secret })
}

fn secret_volume(mount: &Mount) -> Volume {
    Volume {
        name: mount.folder.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(mount.secret.clone()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The public keys; the operator writes them once every entry is signed, and the kubelet mounts them then.
fn registry_keys_volume(settings: &Settings) -> Volume {
    let config_map = ConfigMapVolumeSource {
        name: registry_keys_config_map(&settings.release),
        optional: Some(true),
        ..ConfigMapVolumeSource::default()
    };
    Volume { name: "registry-keys".to_owned(), config_map: Some(config_map), ..Volume::default() }
}

fn ca_volume(bundle: &CaBundle) -> Volume {
    let mut volume = Volume { name: "ca".to_owned(), ..Volume::default() };
    match bundle {
        CaBundle::ConfigMap(name) => {
            volume.config_map = Some(ConfigMapVolumeSource { name: name.clone(), ..ConfigMapVolumeSource::default() });
        }
        CaBundle::Secret(name) => {
            let secret = SecretVolumeSource { secret_name: Some(name.clone()), ..SecretVolumeSource::default() };
            volume.secret = Some(secret);
        }
    }
    volume
}

fn read_only(name: &str, mount_path: String) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path, read_only: Some(true), ..VolumeMount::default() }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN.0.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn port((name, number): (&str, i32)) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// An environment variable.
pub(super) fn variable(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() }
}

/// The stages as a processor takes them from its environment; nothing if there are none.
pub(super) fn stages(spec: &LogPipelineSpec) -> Option<EnvVar> {
    if spec.stages.is_empty() {
        return None;
    }
    let json = serde_json::to_string(&spec.stages).ok()?;
    // A kubelet takes `$(NAME)` and `$$` in a variable for something else.
    Some(variable("LOGGERHUB_STAGES", json.replace('$', "\\u0024")))
}

fn quantities(given: &BTreeMap<String, String>) -> Option<BTreeMap<String, Quantity>> {
    let quantities: BTreeMap<String, Quantity> =
        given.iter().map(|(name, value)| (name.clone(), Quantity(value.clone()))).collect();
    Some(quantities).filter(|quantities| !quantities.is_empty())
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items).filter(|items| !items.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_variable_holds_nothing_that_a_kubelet_would_change() {
        let stages =
            json!([{"name": "a", "match": {"fields": [{"name": "path", "matches": "^/x$(HOME)$$"}]}, "drop": {}}]);
        let spec: LogPipelineSpec = serde_json::from_value(json!({"stages": stages})).unwrap();
        let variable = super::stages(&spec).unwrap().value.unwrap();
        assert!(!variable.contains('$'), "{variable}");
        assert_eq!(serde_json::from_str::<Vec<::stages::Stage>>(&variable).unwrap(), spec.stages);
        assert_eq!(super::stages(&LogPipelineSpec::default()), None);
    }
}
