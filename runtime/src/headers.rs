//! Headers that every answer to a tenant carries: nobody between us and the client may keep it, and no browser may take
//! it for more than it is. And, where a browser's page of another origin is to read answers, what allows that.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL,
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};

/// Of every answer. TLS ends before us, so whoever ends it says HSTS.
const ALWAYS: [(HeaderName, &str); 6] = [
    // A key may come in a header of its own, of which a shared cache knows nothing.
    (CACHE_CONTROL, "no-store"),
    (VARY, "Authorization, X-API-Key, X-Scope-OrgID, X-Tenant, Origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

/// How a client that sent no good key is to send one.
const CHALLENGE: &str = "Bearer realm=\"LoggerHub\"";

/// Most origins that may be named: each answer's is looked for among them.
const MAX_ORIGINS: usize = 64;
/// What a page may send, and what it may read of an answer besides its body.
const ALLOWED_METHODS: &str = "GET, POST, DELETE";
const ALLOWED_HEADERS: &str = "Authorization, X-API-Key, Content-Type, Content-Encoding, Idempotency-Key, traceparent";
const EXPOSED_HEADERS: &str =
    "Retry-After, RateLimit, RateLimit-Policy, Location, Content-Disposition, loggerhub-events";
/// How long a browser may remember what is allowed, in seconds: a key that is taken from the list is off in ten minutes.
const MAX_AGE: &str = "600";

/// The router, every answer of which is kept by nobody.
pub fn guarded(router: Router) -> Router {
    router.layer(from_fn(guard))
}

async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    set(&mut response);
    response
}

fn set(response: &mut Response) {
    let challenged = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if challenged {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
}

/// The origins whose pages may read answers. None unless somebody names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Arc<Vec<HeaderValue>>);

/// Why a text is no list of origins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigins {
    /// One of them is none.
    #[error("`{0}` is no origin such as https://logs.example.com")]
    Origin(String),
    /// There are too many.
    #[error("there are more than {MAX_ORIGINS}")]
    TooMany,
}

impl std::str::FromStr for Origins {
    type Err = InvalidOrigins;

    /// From a list with commas. `*` is no origin: a page of anybody's is not to use a key that its reader pasted.
    fn from_str(text: &str) -> Result<Self, InvalidOrigins> {
        let origins: Vec<_> = text.split(',').map(str::trim).filter(|origin| !origin.is_empty()).collect();
        if origins.len() > MAX_ORIGINS {
            return Err(InvalidOrigins::TooMany);
        }
        let origin = |text: &str| {
            let invalid = || InvalidOrigins::Origin(text.to_owned());
            let url: url::Url = text.parse().map_err(|_| invalid())?;
            // As browsers send it: without a path, and as the URL standard writes it.
            if !matches!(url.scheme(), "http" | "https") || url.origin().ascii_serialization() != text {
                return Err(invalid());
            }
            HeaderValue::from_str(text).map_err(|_| invalid())
        };
        Ok(Self(Arc::new(origins.into_iter().map(origin).collect::<Result<_, _>>()?)))
    }
}

/// The router, for pages of these origins too.
pub fn shared_with(router: Router, origins: Origins) -> Router {
    if origins.0.is_empty() { router } else { router.layer(from_fn_with_state(origins, share)) }
}

async fn share(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let origin = allowed(&origins, request.headers());
    let asks_first =
        *request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let Some(origin) = origin else { return next.run(request).await };
    let mut response = if asks_first {
        let allowed = [
            (ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
            (ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ];
        let mut response = (StatusCode::NO_CONTENT, allowed).into_response();
        set(&mut response);
        response
    } else {
        let mut response = next.run(request).await;
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
        response
    };
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response
}

/// The request's origin, if it is one of these.
fn allowed(origins: &Origins, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    origins.0.iter().find(|one| *one == origin).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    fn router(origins: &str) -> Router {
        let router = Router::new()
            .route("/", get(|| async { "x" }).fallback(|| async { StatusCode::METHOD_NOT_ALLOWED }))
            .route("/secret", get(|| async { StatusCode::UNAUTHORIZED }));
        shared_with(guarded(router), origins.parse().unwrap())
    }

    async fn answer(router: Router, method: Method, path: &str, sent: &[(&'static str, &'static str)]) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in sent {
            request = request.header(*name, *value);
        }
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn every_answer_and_refusal_is_kept_by_nobody() {
        for (method, path, status, challenge) in [
            (Method::GET, "/", 200, None),
            (Method::GET, "/secret", 401, Some(CHALLENGE)),
            (Method::GET, "/nowhere", 404, None),
            (Method::PUT, "/", 405, None),
        ] {
            let response = answer(router(""), method, path, &[("origin", "https://a.example")]).await;
            let headers = response.headers();
            assert_eq!(response.status().as_u16(), status, "{path}");
            for (name, value) in ALWAYS {
                assert_eq!(headers.get(&name).unwrap(), value, "{path}");
            }
            assert_eq!(headers.get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap()), challenge, "{path}");
            assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "no origin is allowed unless it is named");
            if status == 405 {
                assert_eq!(headers.get("allow").unwrap(), "GET,HEAD");
            }
        }
    }

    #[tokio::test]
    async fn a_page_of_a_named_origin_may_ask_and_read() {
        let origins = "https://a.example, http://localhost:3000";
        let (asks, foreign) = (("access-control-request-method", "GET"), ("origin", "https://b.example"));
        let own = ("origin", "http://localhost:3000");
        let response = answer(router(origins), Method::OPTIONS, "/", &[own, asks]).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], own.1);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_METHODS], ALLOWED_METHODS);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let response = answer(router(origins), Method::GET, "/secret", &[own]).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN]),
            (401, &own.1.parse().unwrap())
        );
        for (method, sent) in
            [(Method::OPTIONS, &[foreign, asks][..]), (Method::GET, &[foreign][..]), (Method::GET, &[][..])]
        {
            let response = answer(router(origins), method, "/", sent).await;
            assert!(!response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{sent:?}");
        }
    }

    #[test]
    fn only_origins_are_origins() {
        for good in ["", " , ", "https://a.example", "http://localhost:3000,https://b.example:8443"] {
            assert!(good.parse::<Origins>().is_ok(), "{good}");
        }
        for bad in [
            "*",
            "null",
            "a.example",
            "https://a.example/",
            "https://a.example/x",
            "https://A.example",
            "https://a.example:443",
            "file:///x",
            "https://u@a.example",
        ] {
            assert_eq!(bad.parse::<Origins>(), Err(InvalidOrigins::Origin(bad.to_owned())));
        }
        assert_eq!(
            vec!["https://a.example"; MAX_ORIGINS + 1].join(",").parse::<Origins>(),
            Err(InvalidOrigins::TooMany)
        );
    }
}
