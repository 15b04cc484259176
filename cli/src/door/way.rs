//! The way to a role: the gateway's address, or one of a role's pods through the API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use url::Url;

use crate::kubernetes::{Doing, Kubernetes};

/// Longest wait for a connection.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// A role that is asked, and the port that answers: its name, and its number where a container has none of that name.
#[derive(Clone, Copy)]
pub(super) struct Role {
    component: &'static str,
    port: (&'static str, u16),
}

/// Tenants' routes.
pub(super) const GATEWAY: Role = Role { component: "gateway", port: ("http", 8080) };
/// What waits in the queue.
pub(super) const INGEST: Role = Role { component: "ingest", port: ("admin", 9090) };

/// A connection, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where connections lead.
#[allow(clippy::large_enum_variant, reason = "there is one, made once")]
pub(super) enum Way {
    Url(Url),
    Pod { pods: Api<Pod>, name: String, port: u16 },
}

impl Way {
    /// The gateway's address, as it was given.
    pub(super) fn at_url(url: &str) -> anyhow::Result<Self> {
        let url = Url::parse(url).context("the address of the gateway is not a URL")?;
        ensure!(matches!(url.scheme(), "http" | "https"), "the URL of the gateway begins with http:// or https://");
        ensure!(url.username().is_empty() && url.password().is_none(), "the URL of the gateway holds no credentials");
        Ok(Self::Url(url))
    }

    /// The first ready pod of a role.
    pub(super) async fn at_pod(kubernetes: &Kubernetes, role: Role) -> anyhow::Result<Self> {
        let (pods, component) = (kubernetes.ours::<Pod>(), role.component);
        let labels = format!("app.kubernetes.io/name=loggerhub,app.kubernetes.io/component={component}");
        let found =
            pods.list(&ListParams::default().labels(&labels)).await.doing("list", "pods", &kubernetes.namespace)?;
        let pod = found.iter().find(|pod| is_ready(pod)).with_context(|| {
            format!(
                "no pod of the {component} is ready in namespace {} ({} not ready): is LoggerHub installed there? \
                 See --namespace and --url",
                kubernetes.namespace,
                found.items.len()
            )
        })?;
        Ok(Self::Pod { name: pod.name_any(), port: port_of(pod, role.port), pods })
    }

    /// The path of a request.
    pub(super) fn path(&self, path: &str) -> String {
        match self {
            Self::Url(url) => format!("{}{path}", url.path().trim_end_matches('/')),
            Self::Pod { .. } => path.to_owned(),
        }
    }

    /// The host that a request names.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Url(url) => match (url.host_str().unwrap_or_default(), url.port()) {
                (host, Some(port)) => format!("{host}:{port}"),
                (host, None) => host.to_owned(),
            },
            Self::Pod { .. } => "localhost".to_owned(),
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        let (connecting, to) = match self {
            Self::Url(url) => (timeout(CONNECT, by_url(url)).await, url.to_string()),
            Self::Pod { pods, name, port } => {
                (timeout(CONNECT, by_pod(pods, name, *port)).await, format!("pod {name}"))
            }
        };
        connecting.context("it took too long").flatten().with_context(|| format!("connect to {to}"))
    }
}

async fn by_url(url: &Url) -> anyhow::Result<Box<dyn Stream>> {
    let host = url.host_str().context("no host")?;
    let port = url.port_or_known_default().context("no port")?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    if url.scheme() == "http" {
        return Ok(Box::new(stream));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

async fn by_pod(pods: &Api<Pod>, name: &str, port: u16) -> anyhow::Result<Box<dyn Stream>> {
    // Kubernetes asks for `create` since 1.35, and for `get` before.
    let mut forwarded = pods.portforward(name, &[port]).await.doing("get and create", "pods/portforward", name)?;
    let stream = forwarded.take_stream(port);
    Ok(Box::new(stream.context("the pod's port was not forwarded")?))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn port_of(pod: &Pod, (name, otherwise): (&str, u16)) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.find(|port| port.name.as_deref() == Some(name));
    named.and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_pod_is_used_when_it_is_ready_and_stays() {
        let pod = |ready: &str, deleted: Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "g", "deletionTimestamp": deleted},
                "spec": {"containers": [{"name": "gateway", "ports": [
                    {"name": "metrics", "containerPort": 9090}, {"name": "http", "containerPort": 8081},
                ]}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        assert!(is_ready(&pod("True", Value::Null)));
        assert!(!is_ready(&pod("False", Value::Null)));
        assert!(!is_ready(&pod("True", json!("2026-01-01T00:00:00Z"))));
        assert!(!is_ready(&Pod::default()));
        assert_eq!(port_of(&pod("True", Value::Null), GATEWAY.port), 8081);
        assert_eq!(port_of(&Pod::default(), GATEWAY.port), 8080);
    }

    #[test]
    fn a_url_is_one_of_http_without_credentials() {
        assert!(Way::at_url("https://logs.example.com/base").is_ok());
        for bad in ["logs.example.com", "ftp://logs", "https://user:word@logs"] {
            assert!(Way::at_url(bad).is_err(), "{bad}");
        }
    }
}
