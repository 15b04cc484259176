//! The object store as somebody who may do what a policy says and nothing else: a session of the stores' own
//! login, narrowed by the policy. The server judges each call by it, as it would a user's whom the policy is
//! attached to.

use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use runtime::settings::credential;
use secrecy::ExposeSecret;
use url::form_urlencoded;

use crate::Stores;

/// The policies that are shipped, by program and layout of the buckets.
pub mod shipped {
    /// The operator's, a bucket for each tenant.
    pub const OPERATOR: &str = include_str!("../../charts/loggerhub/files/access/s3-operator.per-tenant.json");
    /// The operator's, one bucket.
    pub const OPERATOR_SHARED: &str = include_str!("../../charts/loggerhub/files/access/s3-operator.shared.json");
    /// `maintain`'s, a bucket for each tenant.
    pub const MAINTAIN: &str = include_str!("../../charts/loggerhub/files/access/s3-maintain.per-tenant.json");
    /// `maintain`'s, one bucket.
    pub const MAINTAIN_SHARED: &str = include_str!("../../charts/loggerhub/files/access/s3-maintain.shared.json");
    /// `search`'s, a bucket for each tenant.
    pub const SEARCH: &str = include_str!("../../charts/loggerhub/files/access/s3-search.per-tenant.json");
    /// `search`'s, one bucket.
    pub const SEARCH_SHARED: &str = include_str!("../../charts/loggerhub/files/access/s3-search.shared.json");
}

impl Stores {
    /// A client that may do what a shipped policy says of buckets of this prefix, or of the shared bucket of this name.
    pub async fn s3_by(&self, policy: &str, bucket: &str) -> anyhow::Result<aws_sdk_s3::Client> {
        let policy = policy.replace("BUCKET_PREFIX", bucket).replace("SHARED_BUCKET", bucket);
        let session = self.session(&policy).await?;
        let config = self.s3()?.config().to_builder().credentials_provider(session).build();
        Ok(aws_sdk_s3::Client::from_conf(config))
    }

    /// Asks the server's security token service for a session that this policy narrows.
    async fn session(&self, policy: &str) -> anyhow::Result<Credentials> {
        let id = credential(&self.s3.s3_credentials, "accessKeyId")?;
        let secret = credential(&self.s3.s3_credentials, "secretAccessKey")?;
        let own = Credentials::new(id.expose_secret(), secret.expose_secret(), None, None, "tests").into();
        let url = format!("{}/", self.s3.endpoint.trim_end_matches('/'));
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("Action", "AssumeRole"), ("Version", "2011-06-15"), ("DurationSeconds", "3600")])
            .append_pair("Policy", policy)
            .finish();
        let form = ("content-type", "application/x-www-form-urlencoded");
        let params = v4::SigningParams::builder()
            .identity(&own)
            .region(&self.s3.region)
            .name("sts")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let request = SignableRequest::new("POST", &url, [form].into_iter(), SignableBody::Bytes(body.as_bytes()))?;
        let (instructions, _) = sign(request, &params)?.into_parts();
        let mut request = reqwest::Client::new().post(&url).header(form.0, form.1);
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await.context("ask for a session")?;
        let (status, answer) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "no session by this policy: {status}: {answer}");
        let of = |name: &str| between(&answer, name).with_context(|| format!("the session has no {name}"));
        Ok(Credentials::new(
            of("AccessKeyId")?,
            of("SecretAccessKey")?,
            Some(of("SessionToken")?.to_owned()),
            None,
            "session",
        ))
    }
}

/// Checks that the server refused a call for lack of a right.
pub fn denied<T, E: ProvideErrorMetadata>(what: &str, outcome: Result<T, SdkError<E>>) -> anyhow::Result<()> {
    let Err(error) = outcome else { bail!("{what}: it worked") };
    ensure!(error.code() == Some("AccessDenied"), "{what}: {:?}: {:?}", error.code(), error.message());
    Ok(())
}

/// Checks that nobody sees a bucket whose name does not begin so. MinIO lists those that one may list; others refuse.
pub async fn sees_only(client: &aws_sdk_s3::Client, prefix: &str) -> anyhow::Result<()> {
    let buckets = match client.list_buckets().send().await {
        Ok(listed) => listed.buckets.unwrap_or_default(),
        refused => return denied("list all buckets", refused),
    };
    let others: Vec<_> =
        buckets.iter().filter_map(|bucket| bucket.name()).filter(|name| !name.starts_with(prefix)).collect();
    ensure!(others.is_empty(), "{others:?}");
    Ok(())
}

/// The text of the first element of this name.
fn between<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}
