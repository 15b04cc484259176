//! The codes of refusals: stable words for programs, each with its status, and what its client should do.

use std::fmt;

/// Whether the same request may succeed when it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It is refused again: change it.
    No,
    /// It may, at any time. The answer names none.
    Yes,
    /// It may, after the time that the answer's `Retry-After` names: usually so many seconds.
    After(u64),
}

macro_rules! codes {
    ($($variant:ident $text:literal [$($status:literal),+] $retry:expr, $meaning:literal;)+) => {
        /// The code of a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As it stands in an answer.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The statuses that it comes with; most have one.
            pub const fn statuses(self) -> &'static [u16] {
                match self { $(Self::$variant => &[$($status),+],)+ }
            }

            /// Whether to send the same request again.
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => $retry,)+ }
            }

            /// What to do, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

use Retry::{After, No, Yes};

codes! {
    MissingApiKey "missing_api_key" [401] No, "send a key";
    SeveralApiKeys "several_api_keys" [400] No, "send one key: two different ones came";
    InvalidApiKey "invalid_api_key" [401] No, "unknown, wrong, revoked or expired, or of a tenant that leaves: get another";
    ScopeMissing "scope_missing" [403] No, "use a key with the scope that the message names";
    TenantMismatch "tenant_mismatch" [403] No, "leave the tenant's name out";
    TenantSuspended "tenant_suspended" [403] No, "nothing is accepted; reading works";
    EmptyBatch "empty_batch" [400] No, "send at least one event";
    InvalidJson "invalid_json" [400] No, "the message names the event and the byte";
    TooDeep "too_deep" [400] No, "nest less";
    EventTooLarge "event_too_large" [413] No, "shorten the event that the message names";
    TooManyEvents "too_many_events" [413] No, "send several bodies";
    BodyTooLarge "body_too_large" [413] No, "send several bodies";
    DecompressedTooLarge "decompressed_too_large" [413] No, "send several bodies";
    BodyTimeout "body_timeout" [408] Yes, "the body did not come within 30 s, behind the gateway too (700 KiB/s for one of 20 MiB): send less at once";
    BodyIncomplete "body_incomplete" [400] Yes, "the body ended early: send it again";
    IncompleteBody "incomplete_body" [400] Yes, "the body ended early, before the gateway had passed it on: send it again";
    UnsupportedEncoding "unsupported_encoding" [415] No, "one of gzip, zstd, identity";
    UnsupportedContentType "unsupported_content_type" [415] No, "`application/json` or `application/x-ndjson`";
    InvalidIdempotencyKey "invalid_idempotency_key" [400] No, "one key of 1 to 255 visible ASCII characters";
    IdempotencyKeyReused "idempotency_key_reused" [422] No, "another body has the key: send this one under another";
    QueueFull "queue_full" [503] After(10), "send again after `Retry-After`";
    QuotaExceeded "quota_exceeded" [429] After(1), "slow down: send again after `Retry-After`; `RateLimit` says what is left";
    QueueUnavailable "queue_unavailable" [503] After(1), "send again; the events may have been kept, so use an `Idempotency-Key`";
    Overloaded "overloaded" [503] After(1), "send or ask again after `Retry-After`";
    InvalidParameter "invalid_parameter" [400] No, "the message names it";
    InvalidCursor "invalid_cursor" [400] No, "begin again without it: it is of another route, other filters, or an earlier version";
    InvalidQuery "invalid_query" [400] No, "`position` and `length` say where, `repairs` what may be meant";
    QueryTooBroad "query_too_broad" [400] No, "put more letters before the `*`";
    TooManyQueries "too_many_queries" [429] After(1), "ask less at once, or for less; again after `Retry-After`";
    InvalidReceipt "invalid_receipt" [400] No, "leave it out, or send the one of the batch's 202";
    NotFound "not_found" [404] No, "there is no such thing, or it is not yours";
    Expired "expired" [410] No, "the batch is older than what is kept";
    NotRedrivable "not_redrivable" [409] No, "read it, purge it";
    InvalidRequest "invalid_request" [400, 417, 501] No, "the message says which header is wrong; the connection is closed";
    MethodNotAllowed "method_not_allowed" [405] No, "see `GET /`";
    QueryTimeout "query_timeout" [503] No, "narrow the time range";
    StoreUnavailable "store_unavailable" [503] After(1), "try again";
    SchemaUpgrading "schema_upgrading" [503] After(1), "the tenant's tables are being brought to this version: try again in some minutes";
    InvalidUpgrade "invalid_upgrade" [400, 426] No, "the request is no WebSocket handshake";
    TooManyTails "too_many_tails" [429] After(5), "close one";
    UpstreamUnavailable "upstream_unavailable" [503] After(1), "try again";
    UpstreamFailed "upstream_failed" [502] Yes, "whether the request took effect is not known";
    UpstreamTimeout "upstream_timeout" [504] Yes, "try again later";
    Internal "internal" [500] No, "a defect; it was logged";
}

impl Code {
    /// The status that it comes with; of several, the first.
    pub const fn status(self) -> u16 {
        self.statuses()[0]
    }

    /// The code with this text; `None` for one that this version does not know.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_back_and_no_two_are_the_same() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
        assert_eq!(Code::parse("of_a_later_version"), None);
    }

    #[test]
    fn a_refusal_that_passes_is_the_servers_or_a_rate() {
        for code in Code::ALL.iter().filter(|code| matches!(code.retry(), After(_))) {
            assert!(matches!(code.status(), 429 | 503), "{code}");
        }
    }
}
