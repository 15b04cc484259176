//! What must be there before any Tenant: the peppers, the data plane's PostgreSQL credentials,
//! databases, roles and migrations. Tried again until it is; a store that is down is waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rand::RngExt;
use rand::distr::Alphanumeric;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crds::apikey::Pepper;
use crds::names::{DATA_ROLE, MAINTAIN_ROLE, SEARCH_ROLE};

use crate::backoff::Backoff;
use crate::health::StoresUp;
use crate::provision::{self, Claim, Failure, Postgres, RolePasswords};
use crate::settings::Settings;

/// Length of what we generate: 43 of 62 characters hold 256 bits.
const SECRET_LENGTH: usize = 43;
/// Fewest bytes of a pepper: 256 bits.
const PEPPER_BYTES: usize = 32;

/// Why the platform is not set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A platform Secret can't be read or made.
    #[error("Secret `{name}`")]
    Secret {
        /// The Secret.
        name: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// A platform Secret lacks what it must hold.
    #[error("Secret `{name}`: {lacks}")]
    Content {
        /// The Secret.
        name: String,
        /// What it lacks.
        lacks: String,
    },
    /// The ConfigMap of public keys can't be read or written.
    #[error("ConfigMap `{name}`")]
    ConfigMap {
        /// The ConfigMap.
        name: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// A key that the registry is signed with is none.
    #[error("the keys that sign the registry")]
    Signing(#[from] crds::signature::BadKey),
    /// The registry can't be signed.
    #[error("sign the registry")]
    Registry(#[source] provision::Error),
    /// It can't be told which cluster this is.
    #[error("look which cluster this is: the UID of namespace `kube-system`")]
    Cluster(#[source] Box<kube::Error>),
    /// PostgreSQL can't be set up.
    #[error("set up the databases")]
    Databases(#[from] provision::Error),
}

/// Sets the platform up, now and whenever PostgreSQL comes back or a resync is due. Hands out the
/// peppers as soon as they are there, before the databases are.
pub async fn run(
    client: Client,
    settings: Settings,
    postgres: Postgres,
    peppers: watch::Sender<Vec<Pepper>>,
    mut health: watch::Receiver<StoresUp>,
    (claim, displaced): (Claim, CancellationToken),
    shutdown: CancellationToken,
) {
    let backoff = Backoff::default();
    loop {
        let wait = match set_up(&client, &settings, &postgres, &peppers, &claim).await {
            Ok(()) => {
                backoff.succeeded("platform");
                Duration::from_secs(settings.resync_seconds)
            }
            Err(Error::Databases(error)) if error.failure() == Failure::Conflict => {
                tracing::error!("{}", runtime::logging::chain(&error));
                displaced.cancel();
                return;
            }
            Err(error) => {
                tracing::warn!("the platform is not set up yet: {}", runtime::logging::chain(&error));
                backoff.failed("platform").min(Duration::from_secs(30))
            }
        };
        let before = health.borrow_and_update().postgres;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = recovered(&mut health, before) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Ends when PostgreSQL answers after it did not.
async fn recovered(health: &mut watch::Receiver<StoresUp>, mut before: bool) {
    while health.changed().await.is_ok() {
        let now = health.borrow_and_update().postgres;
        if now && !before {
            return;
        }
        before = now;
    }
    std::future::pending().await
}

async fn set_up(
    client: &Client,
    settings: &Settings,
    postgres: &Postgres,
    peppers: &watch::Sender<Vec<Pepper>>,
    claim: &Claim,
) -> Result<(), Error> {
    let secrets = Api::<Secret>::namespaced(client.clone(), &settings.namespace);
    let names = &settings.secrets;
    if names.peppers.create && !exists(&secrets, &names.peppers.name).await? {
        // A new pepper beside living stores would be the end of every key.
        let keys = postgres.live_keys(&settings.installation).await?;
        if keys > 0 {
            let lacks = format!(
                "it does not exist, and {keys} keys of installation `{}` were made under the peppers that it held: \
                 restore it from your backup. Only if it is lost, make one with `p1`: all keys are issued anew",
                settings.installation
            );
            return Err(Error::Content { name: names.peppers.name.clone(), lacks });
        }
    }
    let found = ensure_secret(&secrets, settings, &names.peppers.name, names.peppers.create, &[("p1", None)]).await?;
    let read = read_peppers(&names.peppers.name, &found)?;
    peppers.send_if_modified(|known| {
        let same =
            known.len() == read.len() && known.iter().zip(&read).all(|(a, b)| a.id == b.id && a.bytes == b.bytes);
        *known = read;
        !same
    });
    let login = |role: &'static str| [("username", Some(role)), ("password", None)];
    let data = ensure_secret(&secrets, settings, &names.postgres_data, true, &login(DATA_ROLE)).await?;
    let maintain = ensure_secret(&secrets, settings, &names.postgres_maintain, true, &login(MAINTAIN_ROLE)).await?;
    let search = ensure_secret(&secrets, settings, &names.postgres_search, true, &login(SEARCH_ROLE)).await?;
    let passwords = RolePasswords {
        data: password(&names.postgres_data, &data)?,
        maintain: password(&names.postgres_maintain, &maintain)?,
        search: password(&names.postgres_search, &search)?,
    };
    postgres.bootstrap_for(claim, &passwords).await?;
    postgres.ensure_plans(&settings.plans.names()).await?;
    Ok(())
}

/// Binds the installation to this cluster, or says who stands in the way. Makes nothing.
pub async fn claim(client: &Client, settings: &Settings, postgres: &Postgres) -> Result<Claim, Error> {
    let claim = wished(client, settings).await?;
    let secrets = Api::<Secret>::namespaced(client.clone(), &settings.namespace);
    let mut passwords = Vec::new();
    let names = &settings.secrets;
    for (role, name) in [
        (DATA_ROLE, &names.postgres_data),
        (MAINTAIN_ROLE, &names.postgres_maintain),
        (SEARCH_ROLE, &names.postgres_search),
    ] {
        let failed = |source| Error::Secret { name: name.clone(), source: Box::new(source) };
        let found = secrets.get_opt(name).await.map_err(failed)?;
        passwords.push((role, found.and_then(|found| password(name, &found.data.unwrap_or_default()).ok())));
    }
    postgres.claim(&claim, &passwords).await?;
    Ok(claim)
}

/// What this operator would be bound to.
pub async fn wished(client: &Client, settings: &Settings) -> Result<Claim, Error> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let cluster = namespaces.get_metadata("kube-system").await.map_err(|source| Error::Cluster(Box::new(source)))?;
    Ok(Claim {
        installation: settings.installation.clone(),
        cluster: cluster.metadata.uid.unwrap_or_default(),
        take_over: settings.take_over.clone().filter(|confirmed| !confirmed.is_empty()),
    })
}

async fn exists(secrets: &Api<Secret>, name: &str) -> Result<bool, Error> {
    let found = secrets.get_metadata_opt(name).await;
    Ok(found.map_err(|source| Error::Secret { name: name.to_owned(), source: Box::new(source) })?.is_some())
}

/// The Secret's data; made if it is absent, with random values where none is given. Never changed.
async fn ensure_secret(
    secrets: &Api<Secret>,
    settings: &Settings,
    name: &str,
    create: bool,
    wanted: &[(&str, Option<&str>)],
) -> Result<BTreeMap<String, ByteString>, Error> {
    let failed = |source: kube::Error| Error::Secret { name: name.to_owned(), source: Box::new(source) };
    if let Some(found) = secrets.get_opt(name).await.map_err(failed)? {
        return Ok(found.data.unwrap_or_default());
    }
    if !create {
        return Err(Error::Content { name: name.to_owned(), lacks: "it does not exist".to_owned() });
    }
    let random = || rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect::<String>();
    let value = |given: Option<&str>| ByteString(given.map_or_else(random, str::to_owned).into_bytes());
    let data = wanted.iter().map(|(key, given)| ((*key).to_owned(), value(*given))).collect();
    create_secret(secrets, settings, name, data).await
}

/// Makes a Secret of ours, and gives back its data.
pub(crate) async fn create_secret(
    secrets: &Api<Secret>,
    settings: &Settings,
    name: &str,
    data: BTreeMap<String, ByteString>,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let failed = |source: kube::Error| Error::Secret { name: name.to_owned(), source: Box::new(source) };
    let secret = Secret { metadata: metadata(settings, name), data: Some(data), ..Secret::default() };
    // Create, never apply: whoever made it first keeps it, and the next try reads theirs.
    let made = secrets.create(&PostParams::default(), &secret).await.map_err(failed)?;
    tracing::info!("created Secret {name}");
    Ok(made.data.unwrap_or_default())
}

/// What says that an object of the platform is ours.
pub(crate) fn metadata(settings: &Settings, name: &str) -> ObjectMeta {
    let labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "loggerhub".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), settings.release.clone()),
        ("app.kubernetes.io/managed-by".to_owned(), "loggerhub-operator".to_owned()),
    ]);
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() }
}

/// The peppers in the Secret, the newest first: that one is for new keys.
fn read_peppers(name: &str, data: &BTreeMap<String, ByteString>) -> Result<Vec<Pepper>, Error> {
    let lacks = |lacks: &str| Error::Content { name: name.to_owned(), lacks: lacks.to_owned() };
    let mut peppers: Vec<Pepper> =
        data.iter().map(|(id, bytes)| Pepper { id: id.clone(), bytes: bytes.0.clone() }).collect();
    peppers.sort_by(|a, b| b.age().cmp(&a.age()));
    if peppers.is_empty() {
        return Err(lacks("it holds no pepper"));
    }
    match peppers.iter().find(|pepper| pepper.bytes.len() < PEPPER_BYTES) {
        Some(short) => Err(lacks(&format!("pepper `{}` is shorter than {PEPPER_BYTES} bytes", short.id))),
        None => Ok(peppers),
    }
}

fn password(name: &str, data: &BTreeMap<String, ByteString>) -> Result<SecretString, Error> {
    let text = data.get("password").and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    text.filter(|text| !text.is_empty())
        .map(SecretString::from)
        .ok_or_else(|| Error::Content { name: name.to_owned(), lacks: "it holds no `password`".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peppers_are_long_and_the_latest_is_first() {
        let data = |entries: &[(&str, usize)]| {
            entries.iter().map(|(id, length)| ((*id).to_owned(), ByteString(vec![1; *length]))).collect()
        };
        let ids: Vec<String> =
            read_peppers("s", &data(&[("p1", 43), ("p2", 43)])).unwrap().into_iter().map(|pepper| pepper.id).collect();
        assert_eq!(ids, ["p2", "p1"]);
        assert!(read_peppers("s", &data(&[])).is_err());
        assert!(read_peppers("s", &data(&[("p1", 31)])).is_err());
    }
}
