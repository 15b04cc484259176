//! From a request's headers to its [`Caller`], and every way that can fail as a stable code.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use api::Code;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crds::apikey::ApiKey;
use crds::registry::TenantState;
use crds::tenant::Scope;
use runtime::http::refusal;

use super::{Registry, Tenant};

/// Headers that other systems choose a tenant by. Here they may only agree with the key.
const TENANT_HEADERS: [&str; 2] = ["x-scope-orgid", "x-tenant"];

/// What stands before the key in `Authorization`.
const BEARER: &[u8] = b"bearer ";
/// What stands there before a user and a password, which is the key.
const BASIC: &[u8] = b"basic ";
/// What a key begins with.
const KEY: &[u8] = b"lh_";

/// Who sent a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant of the key.
    pub tenant: Arc<Tenant>,
    /// Public part of the key.
    pub key_id: String,
    /// What the key may do.
    pub scopes: Vec<Scope>,
}

/// Why a request has no caller, or its caller may not do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No key came with the request.
    #[error(
        "send the API key as `Authorization: Bearer <key>`, as `X-API-Key: <key>`, or as the password of HTTP Basic"
    )]
    Missing,
    /// Two different keys came with it.
    #[error("send one API key: two different ones came with the request")]
    Several,
    /// No such key, a wrong secret, a revoked key or one whose time is over, or a tenant that is leaving.
    #[error("the API key is not valid")]
    Invalid,
    /// The key is valid but lacks the scope.
    #[error("the API key lacks the scope `{0:?}`")]
    ScopeMissing(Scope),
    /// The tenant may read but not send.
    #[error("the tenant is suspended: nothing new is accepted")]
    Suspended,
    /// A header or field names a tenant that the key does not belong to.
    #[error("the request names a tenant that the API key does not belong to; leave the name out")]
    TenantMismatch,
    /// The registry has not been read yet, or not for too long.
    #[error("the tenant registry can't be read right now; try again")]
    NotLoaded,
}

impl AuthError {
    /// The stable code.
    pub fn code(self) -> Code {
        match self {
            Self::Missing => Code::MissingApiKey,
            Self::Several => Code::SeveralApiKeys,
            Self::Invalid => Code::InvalidApiKey,
            Self::ScopeMissing(_) => Code::ScopeMissing,
            Self::Suspended => Code::TenantSuspended,
            Self::TenantMismatch => Code::TenantMismatch,
            Self::NotLoaded => Code::StoreUnavailable,
        }
    }
}

impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        refusal(self.code(), self.to_string())
    }
}

impl Registry {
    /// The caller of a request that needs `scope`: the one call that every handler makes first.
    pub fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, AuthError> {
        let caller = self.authenticate(headers)?;
        caller.require(scope)?;
        Ok(caller)
    }

    /// The caller of a request, whatever it may do.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let caller = self.authenticate_key(&key_of(headers)?)?;
        for name in TENANT_HEADERS {
            for value in headers.get_all(name) {
                caller.confirm_tenant(value.as_bytes())?;
            }
        }
        Ok(caller)
    }

    /// The caller of a key that came by another way than a header. An unknown key costs the same
    /// as a wrong secret: one HMAC and one comparison.
    pub fn authenticate_key(&self, key: &str) -> Result<Caller, AuthError> {
        self.authenticate_key_at(key, SystemTime::now())
    }

    /// The caller's tenant as it is now, for what is written long after it was admitted to send. Refused where the key
    /// was revoked since, or the tenant has left or was suspended.
    pub fn still_admits(&self, caller: &Caller) -> Result<Arc<Tenant>, AuthError> {
        let tenant = self.tenant(caller.tenant.name()).ok_or(AuthError::Invalid)?;
        if !tenant.registered.keys.iter().any(|key| key.id == caller.key_id) {
            return Err(AuthError::Invalid);
        }
        match tenant.registered.state {
            TenantState::Deleting => Err(AuthError::Invalid),
            TenantState::Suspended => Err(AuthError::Suspended),
            TenantState::Active => Ok(tenant),
        }
    }

    fn authenticate_key_at(&self, key: &str, now: SystemTime) -> Result<Caller, AuthError> {
        let key = ApiKey::parse(key).map_err(|_| AuthError::Invalid)?;
        let snapshot = self.snapshot().filter(|_| !self.is_too_old()).ok_or(AuthError::NotLoaded)?;
        let peppers = self.peppers();
        let known = snapshot.keys.get(key.id());
        let pepper = known.and_then(|known| peppers.get(&known.key.pepper_id));
        let (Some(known), Some(pepper)) = (known, pepper) else {
            let _: bool = key.matches(peppers.newest(), &[0; 32]);
            return Err(AuthError::Invalid);
        };
        let over = known.key.is_expired(now) || known.tenant.registered.state == TenantState::Deleting;
        if !key.matches(pepper, &known.key.digest) || over {
            return Err(AuthError::Invalid);
        }
        self.uses.note(known, now);
        Ok(Caller { tenant: Arc::clone(&known.tenant), key_id: known.key.id.clone(), scopes: known.key.scopes.clone() })
    }
}

impl Caller {
    /// Refuses unless the key has the scope and the tenant is in a state to use it.
    pub fn require(&self, scope: Scope) -> Result<(), AuthError> {
        if !self.scopes.contains(&scope) {
            return Err(AuthError::ScopeMissing(scope));
        }
        if scope == Scope::Ingest && self.tenant.registered.state == TenantState::Suspended {
            return Err(AuthError::Suspended);
        }
        Ok(())
    }

    /// Refuses a tenant named by the request that is not the key's.
    pub fn confirm_tenant(&self, named: &[u8]) -> Result<(), AuthError> {
        if named == self.tenant.name().as_str().as_bytes() { Ok(()) } else { Err(AuthError::TenantMismatch) }
    }
}

/// The key in the headers: bearer tokens, passwords of HTTP Basic, and `X-API-Key`, of which there may be several, all
/// the same. Of two different ones nobody could say which tenant is meant.
fn key_of(headers: &HeaderMap) -> Result<String, AuthError> {
    let bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| after(value, BEARER)).map(Cow::Borrowed);
    let plain = headers.get_all("x-api-key").iter().map(|value| Cow::Borrowed(value.as_bytes()));
    let passwords = headers.get_all(AUTHORIZATION).iter().filter_map(password).map(Cow::<[u8]>::Owned);
    // A password that is no key was meant for a proxy in front of us, if there is a key beside it.
    let (passwords, others): (Vec<_>, Vec<_>) = passwords.partition(|password| password.trim_ascii().starts_with(KEY));
    // As bytes: what is no text is a key too, a wrong one. Passed over, the other would be taken for the only one.
    let mut keys: Vec<Cow<'_, [u8]>> = bearers.chain(plain).chain(passwords).collect();
    if keys.is_empty() {
        keys = others;
    }
    let first = keys.first().ok_or(AuthError::Missing)?.trim_ascii().to_vec();
    if keys.iter().any(|other| other.trim_ascii() != first) {
        return Err(AuthError::Several);
    }
    String::from_utf8(first).map_err(|_| AuthError::Invalid)
}

/// What follows the name of a scheme.
fn after<'a>(value: &'a HeaderValue, scheme: &[u8]) -> Option<&'a [u8]> {
    let (named, rest) = value.as_bytes().split_at_checked(scheme.len())?;
    named.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// The password of HTTP Basic; its user name is ignored.
fn password(value: &HeaderValue) -> Option<Vec<u8>> {
    let both = STANDARD.decode(after(value, BASIC)?.trim_ascii()).ok()?;
    let colon = both.iter().position(|byte| *byte == b':')?;
    Some(both[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::snapshot::tests::{pepper, tenant};
    use super::super::{MOST_AGE, Peppers, State};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_request_is_admitted_or_refused_with_its_code() {
        let (good, reader, leaving, resting) =
            (ApiKey::generate(), ApiKey::generate(), ApiKey::generate(), ApiKey::generate());
        let mut gone = tenant("gone", &[(&leaving, &[Scope::Ingest])]);
        gone.state = TenantState::Deleting;
        let mut suspended = tenant("resting", &[(&resting, &[Scope::Ingest, Scope::Query])]);
        suspended.state = TenantState::Suspended;
        let acme = tenant("acme", &[(&good, &[Scope::Ingest]), (&reader, &[Scope::Query])]);
        let registry = Registry::fixed([acme, gone, suspended], Peppers::new([pepper()]).unwrap());

        let key = good.to_string();
        let bearer = format!("Bearer {key}");
        let basic = |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let wrong = format!("lh_{}_{}", good.id(), "x".repeat(43));
        let unknown = ApiKey::generate().to_string();
        let (reader, leaving, resting) = (reader.to_string(), leaving.to_string(), resting.to_string());
        type Case<'a> = (&'a [(&'static str, &'a str)], Result<&'a str, &'a str>);
        let cases: &[Case<'_>] = &[
            (&[("authorization", &bearer)], Ok("acme")),
            (&[("authorization", &bearer.replace("Bearer", "bearer"))], Ok("acme")),
            (&[("x-api-key", &key)], Ok("acme")),
            (&[("authorization", "Basic abc"), ("x-api-key", &key)], Ok("acme")),
            (&[("authorization", &bearer), ("x-api-key", &key)], Ok("acme")),
            (&[("authorization", &bearer), ("x-api-key", "other")], Err("several_api_keys")),
            (&[("authorization", &basic("grafana", &key))], Ok("acme")),
            (&[("authorization", &basic("", &key).replace("Basic", "BASIC"))], Ok("acme")),
            (&[("authorization", &basic("grafana", &key)), ("x-api-key", &key)], Ok("acme")),
            (&[("authorization", &basic("proxy", "its:own")), ("x-api-key", &key)], Ok("acme")),
            (&[("authorization", &basic("grafana", &key)), ("x-api-key", "other")], Err("several_api_keys")),
            (&[("authorization", &basic("grafana", &unknown)), ("x-api-key", &key)], Err("several_api_keys")),
            (&[("authorization", &basic("grafana", &wrong))], Err("invalid_api_key")),
            (&[("authorization", &basic("grafana", "secret"))], Err("invalid_api_key")),
            (&[("authorization", &basic("grafana", ""))], Err("invalid_api_key")),
            (&[("x-api-key", &key), ("x-scope-orgid", "acme")], Ok("acme")),
            (&[("x-api-key", &key), ("x-scope-orgid", "globex")], Err("tenant_mismatch")),
            (&[("x-api-key", &key), ("x-tenant", "Acme")], Err("tenant_mismatch")),
            (&[("x-api-key", &key), ("x-tenant", "")], Err("tenant_mismatch")),
            (&[], Err("missing_api_key")),
            (&[("authorization", "Basic abc")], Err("missing_api_key")),
            (&[("x-api-key", "")], Err("invalid_api_key")),
            (&[("x-api-key", "nonsense")], Err("invalid_api_key")),
            (&[("x-api-key", &wrong)], Err("invalid_api_key")),
            (&[("x-api-key", &unknown)], Err("invalid_api_key")),
            (&[("x-api-key", &leaving)], Err("invalid_api_key")),
            (&[("x-api-key", &reader)], Err("scope_missing")),
            (&[("x-api-key", &resting)], Err("tenant_suspended")),
        ];
        for (sent, expected) in cases {
            let admitted = registry.admit(&headers(sent), Scope::Ingest);
            let admitted = admitted.as_ref().map(|caller| caller.tenant.name().as_str()).map_err(|e| e.code().as_str());
            assert_eq!(admitted, *expected, "{sent:?}");
        }
        assert!(registry.admit(&headers(&[("x-api-key", &resting)]), Scope::Query).is_ok(), "suspended: reads");
    }

    #[test]
    fn a_replaced_key_works_until_its_end_and_not_longer_though_nobody_takes_it_away() {
        let (old, new) = (ApiKey::generate(), ApiKey::generate());
        let mut acme = tenant("acme", &[(&old, &[Scope::Ingest]), (&new, &[Scope::Ingest])]);
        acme.keys[0].expires_at = Some(1_000);
        let registry = Registry::fixed([acme], Peppers::new([pepper()]).unwrap());
        let at = |key: &ApiKey, second| {
            let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            registry.authenticate_key_at(&key.to_string(), now).map(|caller| caller.key_id)
        };
        assert_eq!(at(&old, 999), Ok(old.id().to_owned()));
        assert_eq!(at(&old, 1_000), Err(AuthError::Invalid));
        assert_eq!(at(&new, 1_000), Ok(new.id().to_owned()));
    }

    #[test]
    fn nobody_is_admitted_by_a_registry_that_was_not_confirmed_for_too_long() {
        let key = ApiKey::generate();
        let mut registry =
            Registry::fixed([tenant("acme", &[(&key, &[Scope::Query])])], Peppers::new([pepper()]).unwrap());
        let snapshot = registry.snapshot();
        for (age, admitted) in [(MOST_AGE - SECOND, Ok(())), (MOST_AGE + SECOND, Err(AuthError::NotLoaded))] {
            let confirmed = Instant::now().checked_sub(age);
            registry.state = tokio::sync::watch::channel(State { snapshot: snapshot.clone(), confirmed, refused: 0 }).1;
            assert_eq!(registry.authenticate_key(&key.to_string()).map(drop), admitted, "{age:?}");
            assert_eq!(registry.is_loaded(), admitted.is_ok(), "readiness");
        }
    }

    #[test]
    fn a_key_under_a_pepper_that_is_not_mounted_is_refused() {
        let key = ApiKey::generate();
        let other = crds::apikey::Pepper { id: "p9".into(), bytes: vec![7; 32] };
        let registry = Registry::fixed([tenant("acme", &[(&key, &[Scope::Ingest])])], Peppers::new([other]).unwrap());
        assert_eq!(registry.authenticate_key(&key.to_string()).unwrap_err(), AuthError::Invalid);
    }
}
