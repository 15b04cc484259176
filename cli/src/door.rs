//! The API of a tenant: the gateway at its address, or one of its pods by a connection that the
//! API server forwards, as `kubectl port-forward` does, without a port on this machine.

use std::time::Duration;

use anyhow::{Context, anyhow};
use api::Refusal;
use api::letter::Redrive;
use api::queue::LaneStatus;
use bytes::Bytes;
use crds::TenantName;
use crds::apikey::ApiKey;
use crds::tenant::Scope;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::args::{ApiArgs, Global};
use crate::credentials;
use crate::kubernetes::Kubernetes;

mod way;

pub use way::Stream;
use way::{CONNECT, GATEWAY, INGEST, Way};

/// Longest wait for an answer: longer than any route may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest wait for the beginning of an answer without a bound, and for more of it: stores may be asked several times.
const BEGINNING: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(120);
/// Who asks.
const AGENT: &str = concat!("kubectl-loggerhub/", env!("CARGO_PKG_VERSION"));
/// Most bytes of an answer: 500 dead letters or events in lists are far below it, and one event
/// alone is at most some MiB.
const LARGEST_ANSWER: usize = 64 << 20;

/// An answer of the API.
pub struct Answer<T> {
    /// What it says.
    pub value: T,
    /// As it came: a field that a later version adds is printed too, and a number keeps its digits.
    pub json: stages::Value,
}

/// An answer as it comes.
pub struct Download {
    body: Incoming,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Download {
    /// Some more bytes; `None` at the end.
    pub async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = timeout(SILENCE, self.body.frame()).await;
            match frame.with_context(|| format!("nothing came for {} s", SILENCE.as_secs()))?.transpose()? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The API as one tenant uses it.
pub struct Door {
    way: Way,
    tenant: TenantName,
    key: ApiKey,
}

impl Door {
    /// Finds the way and the key. With both given, Kubernetes is not asked.
    pub async fn open(global: &Global, api: &ApiArgs, tenant: &TenantName, scope: Scope) -> anyhow::Result<Self> {
        let key = match credentials::given(api)? {
            Some(key) => key,
            None => {
                let kubernetes = Kubernetes::connect(global).await?;
                credentials::from_secret(&kubernetes, tenant, scope, api.key.as_deref()).await?
            }
        };
        let way = match &api.url {
            Some(url) => Way::at_url(url)?,
            None => Way::at_pod(&Kubernetes::connect(global).await?, GATEWAY).await?,
        };
        Ok(Self { way, tenant: tenant.clone(), key })
    }

    /// One request; whatever is not a success is an error with its code and message.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Redrive>,
    ) -> anyhow::Result<Answer<T>> {
        let asked = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let body = body.map(serde_json::to_string).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(self.way.path(path))
            .header(AUTHORIZATION, self.bearer()?)
            // The key says which tenant is meant; one of another tenant's is refused.
            .header("x-scope-orgid", self.tenant.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        exchange(&self.way, request).await.and_then(|body| Answer::read(&body)).context(asked)
    }

    /// An answer that has no bound, as it comes.
    pub async fn download(&self, path: &str) -> anyhow::Result<Download> {
        let request = Request::get(self.way.path(path))
            .header(AUTHORIZATION, self.bearer()?)
            .header("x-scope-orgid", self.tenant.as_str())
            .header(USER_AGENT, AGENT)
            .header(HOST, self.way.host())
            .body(Full::<Bytes>::default())?;
        let stream = TokioIo::new(self.way.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let answered = timeout(BEGINNING, sender.send_request(request)).await;
        let download = answered.with_context(|| format!("no answer within {} s", BEGINNING.as_secs()))?;
        let (head, body) = download?.into_parts();
        if head.status.is_success() {
            return Ok(Download { body, connection });
        }
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
        connection.abort();
        Err(said(head.status, body.to_bytes()).err().unwrap_or_else(|| anyhow!("{}", head.status)))
    }

    /// Opens a WebSocket.
    pub async fn socket(&self, path: &str) -> anyhow::Result<WebSocketStream<Box<dyn Stream>>> {
        let mut request = format!("ws://{}{}", self.way.host(), self.way.path(path)).into_client_request()?;
        request.headers_mut().insert(AUTHORIZATION, self.bearer()?);
        request.headers_mut().insert("x-scope-orgid", HeaderValue::from_str(self.tenant.as_str())?);
        let opened = timeout(CONNECT, client_async(request, self.way.connect().await?)).await;
        match opened.context("the live tail was not opened in time")? {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(refused)) => {
                let (head, body) = refused.into_parts();
                Err(said(head.status, body.unwrap_or_default().into())
                    .err()
                    .unwrap_or_else(|| anyhow!("{}", head.status)))
            }
            Err(error) => Err(error).context("open the live tail"),
        }
    }

    fn bearer(&self) -> anyhow::Result<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.key))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// What a pod of ingest says of the queue's lanes.
pub async fn queue_status(kubernetes: &Kubernetes) -> anyhow::Result<Vec<LaneStatus>> {
    let way = Way::at_pod(kubernetes, INGEST).await?;
    let request = Request::get(way.path("/queue/status")).body(Full::default())?;
    let answer = exchange(&way, request).await.and_then(|body| Answer::read(&body)).context("GET /queue/status")?;
    Ok(answer.value)
}

/// One request on a connection of its own.
async fn exchange(way: &Way, mut request: Request<Full<Bytes>>) -> anyhow::Result<Bytes> {
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    request.headers_mut().insert(HOST, HeaderValue::from_str(&way.host())?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(way.connect().await?)).await?;
    let connection = tokio::spawn(connection);
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
        said(head.status, body.to_bytes())
    };
    let answered = timeout(ANSWER, exchange).await;
    connection.abort();
    answered.with_context(|| format!("no answer within {} s", ANSWER.as_secs())).flatten()
}

/// The body of an answer, or why it was refused.
fn said(status: StatusCode, body: Bytes) -> anyhow::Result<Bytes> {
    if status.is_success() {
        return Ok(body);
    }
    match Refusal::read(&body) {
        Some(Refusal { error }) => {
            let meant = error.repairs.first().map(|query| format!("; did you mean: {query}")).unwrap_or_default();
            Err(anyhow!("{}: {}{meant}", error.code, error.message))
        }
        None => Err(anyhow!("{status}, and no answer of LoggerHub's: is this the gateway's address?")),
    }
}

impl<T: DeserializeOwned> Answer<T> {
    fn read(body: &[u8]) -> anyhow::Result<Self> {
        let json = serde_json::from_slice(body).context("the answer is no JSON: is this the gateway's address?")?;
        let value = serde_json::from_slice(body).context("the answer is not one that this version knows")?;
        Ok(Self { value, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Code;
    use api::letter::Marked;

    #[test]
    fn a_refusal_is_its_code_and_message() {
        let refused = serde_json::to_string(&Refusal::new(Code::ScopeMissing, "the key lacks Query")).unwrap();
        for (status, body, expected) in [
            (202, r#"{"marked":1,"more":false}"#, r#"{"marked":1,"more":false}"#),
            (200, "{}", "the answer is not one that this version knows"),
            (200, "<html>", "the answer is no JSON: is this the gateway's address?"),
            (403, refused.as_str(), "scope_missing: the key lacks Query"),
            (404, "<html>", "404 Not Found, and no answer of LoggerHub's: is this the gateway's address?"),
        ] {
            let body = said(StatusCode::from_u16(status).unwrap(), Bytes::copy_from_slice(body.as_bytes()));
            let answered = body.and_then(|body| Answer::<Marked>::read(&body));
            let text = answered.map_or_else(|error| error.to_string(), |answer| answer.json.to_string());
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_number_is_printed_with_all_its_digits_and_an_unknown_field_too() {
        let sent = r#"{"marked":1,"more":false,"new":12345678901234567890123}"#;
        assert_eq!(Answer::<Marked>::read(sent.as_bytes()).unwrap().json.to_string(), sent);
    }
}
