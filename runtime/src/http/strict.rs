//! Requests that two servers in a row could read differently are refused before anybody acts on them.
//!
//! hyper frames a request by one rule, and another proxy may do so by another. What only a broken or hostile client
//! sends is not worth finding out which (RFC 9112).

use api::Code;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONNECTION, EXPECT, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::Response;

use super::refusal_with;

/// The methods that some route answers: which one was asked for was not looked at.
const ALLOWED: &str = "GET, HEAD, POST, DELETE";

/// Why a request is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Odd {
    #[error("send one `Host` header that names a host")]
    Host,
    #[error("ask for a path, or for the host that `Host` names")]
    Target,
    #[error("`chunked` is the only transfer encoding; compress with Content-Encoding")]
    TransferEncoding,
    #[error("`100-continue` is the only expectation that is met")]
    Expectation,
    #[error("this is no proxy")]
    Method,
}

impl Odd {
    fn code(self) -> (StatusCode, Code) {
        match self {
            Self::Host | Self::Target => (StatusCode::BAD_REQUEST, Code::InvalidRequest),
            Self::TransferEncoding => (StatusCode::NOT_IMPLEMENTED, Code::InvalidRequest),
            Self::Expectation => (StatusCode::EXPECTATION_FAILED, Code::InvalidRequest),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed),
        }
    }
}

/// Answers an odd request itself, and ends its connection: what follows may not be a request.
pub(super) async fn strict(request: Request, next: Next) -> Response {
    let Some(odd) = odd(request.method(), request.uri(), request.version(), request.headers()) else {
        return next.run(request).await;
    };
    let (status, code) = odd.code();
    let mut response = refusal_with(status, code, odd.to_string());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(ALLOWED));
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn odd(method: &Method, target: &Uri, version: Version, headers: &HeaderMap) -> Option<Odd> {
    if [Method::CONNECT, Method::TRACE].contains(method) {
        return Some(Odd::Method);
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(host) if !host.as_str().contains('@') => Some(host),
            _ => return Some(Odd::Host),
        },
        (None, None) if version < Version::HTTP_11 => None,
        _ => return Some(Odd::Host),
    };
    // As a proxy is asked. We answer for one host, but whoever stands before us may go by the other name.
    if target.authority().is_some_and(|named| named.as_str().contains('@') || host.is_some_and(|host| host != *named)) {
        return Some(Odd::Target);
    }
    let only = |name, value: &str| {
        headers.get_all(name).iter().all(|sent| sent.to_str().is_ok_and(|sent| sent.trim().eq_ignore_ascii_case(value)))
    };
    if headers.get_all(TRANSFER_ENCODING).iter().count() > 1 || !only(TRANSFER_ENCODING, "chunked") {
        return Some(Odd::TransferEncoding);
    }
    if !only(EXPECT, "100-continue") {
        return Some(Odd::Expectation);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: Version, pairs: &[(&'static str, &str)]) -> Option<Odd> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        odd(&Method::POST, &Uri::from_static("/logs"), version, &headers)
    }

    #[test]
    fn what_servers_could_read_differently_is_refused() {
        const HOST: (&str, &str) = ("host", "logs.example.com");
        for (name, pairs, expected) in [
            ("usual", &[HOST][..], None),
            ("a port", &[("host", "10.0.0.1:8080")], None),
            ("IPv6", &[("host", "[::1]:8080")], None),
            ("chunked", &[HOST, ("transfer-encoding", "Chunked")], None),
            ("continue", &[HOST, ("expect", "100-Continue")], None),
            ("no host", &[], Some(Odd::Host)),
            ("two hosts", &[HOST, HOST], Some(Odd::Host)),
            ("nonsense", &[("host", "a b")], Some(Odd::Host)),
            ("a path", &[("host", "a/b")], Some(Odd::Host)),
            ("an empty one", &[("host", "")], Some(Odd::Host)),
            ("somebody's password", &[("host", "u:p@h")], Some(Odd::Host)),
            ("gzip below", &[HOST, ("transfer-encoding", "gzip, chunked")], Some(Odd::TransferEncoding)),
            ("identity", &[HOST, ("transfer-encoding", "identity")], Some(Odd::TransferEncoding)),
            (
                "twice",
                &[HOST, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Some(Odd::TransferEncoding),
            ),
            ("bogus", &[HOST, ("expect", "bogus")], Some(Odd::Expectation)),
        ] {
            assert_eq!(of(Version::HTTP_11, pairs), expected, "{name}");
        }
        assert_eq!(of(Version::HTTP_10, &[]), None, "HTTP/1.0 knows no host");
        for method in [Method::CONNECT, Method::TRACE] {
            assert_eq!(odd(&method, &Uri::from_static("/"), Version::HTTP_11, &HeaderMap::new()), Some(Odd::Method));
        }
        let host: HeaderMap =
            [(axum::http::header::HOST, HeaderValue::from_static("Logs.example.com:80"))].into_iter().collect();
        for (target, expected) in [
            ("http://logs.example.com:80/logs", None),
            ("http://other.example.com:80/logs", Some(Odd::Target)),
            ("http://u:p@logs.example.com:80/logs", Some(Odd::Target)),
            ("other.example.com:80", Some(Odd::Target)),
        ] {
            let target = Uri::from_static(target);
            assert_eq!(odd(&Method::GET, &target, Version::HTTP_11, &host), expected, "{target}");
        }
    }
}
