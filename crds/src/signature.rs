//! What the operator signs of a registry entry, and how a reader verifies it: Ed25519, so that whoever can check
//! an entry can't make one.
//!
//! Signed are the tenant's name, a revision that only grows, and the document's bytes. A signature stands beside
//! its entry, in a hash of its own ([`REGISTRY_SIGNATURES`](crate::names::REGISTRY_SIGNATURES)), as
//! `<key id>:<revision>:<Base64>`: a reader that knows of no signatures reads the registry as before.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::names::TenantName;

/// Begins what is signed, so that a signature of something else is never one of an entry.
const DOMAIN: &str = "loggerhub registry entry 1";
/// Bytes of a public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// Why something is no key. Says nothing of what it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// A private key that can't be read.
    #[error("`{0}` is no Ed25519 key in PKCS#8: make one with `openssl genpkey -algorithm ed25519 -outform DER`")]
    Private(String),
    /// A public key that can't be read.
    #[error("`{0}` is no Ed25519 public key: expected the Base64 of its {PUBLIC_KEY_BYTES} bytes")]
    Public(String),
    /// A name that no signature could carry.
    #[error("`{0}` is no id of a key: use letters, digits, '-', '_' and '.'")]
    Id(String),
    /// The system gives no randomness.
    #[error("make an Ed25519 key")]
    Generate,
}

/// Why an entry is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody signed it.
    #[error("it is not signed")]
    Unsigned,
    /// What stands for its signature is none.
    #[error("its signature can't be read")]
    Malformed,
    /// It is signed with a key that is not among ours.
    #[error("it is signed with a key that is not known here")]
    UnknownKey,
    /// The signature is of something else: another document, tenant or revision.
    #[error("its signature does not match it")]
    Wrong,
    /// It is signed, and older than what was believed before.
    #[error("it is older than the one before")]
    Older,
}

/// A signature of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Id of the key.
    pub key: String,
    /// Grows with every entry that is written for the tenant.
    pub revision: u64,
    bytes: Vec<u8>,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.key, self.revision, BASE64.encode(&self.bytes))
    }
}

impl FromStr for Signature {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut parts = text.splitn(3, ':');
        let (Some(key), Some(revision), Some(bytes)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Refusal::Malformed);
        };
        let revision = revision.parse().map_err(|_| Refusal::Malformed)?;
        let bytes = BASE64.decode(bytes).map_err(|_| Refusal::Malformed)?;
        Ok(Self { key: key.to_owned(), revision, bytes })
    }
}

/// A private key. It has no `Debug`, so that it cannot slip into a log.
pub struct SigningKey {
    id: String,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// A new random key, as [`Self::from_pkcs8`] reads it.
    pub fn generate() -> Result<Vec<u8>, BadKey> {
        let pair = Ed25519KeyPair::generate().map_err(|_| BadKey::Generate)?;
        Ok(pair.to_pkcs8v1().map_err(|_| BadKey::Generate)?.as_ref().to_vec())
    }

    /// Reads an unencrypted key, in DER.
    pub fn from_pkcs8(id: &str, bytes: &[u8]) -> Result<Self, BadKey> {
        check_id(id)?;
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| BadKey::Private(id.to_owned()))?;
        Ok(Self { id: id.to_owned(), pair })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What verifies its signatures.
    pub fn public(&self) -> VerifyingKey {
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey { id: self.id.clone(), bytes }
    }

    /// Signs an entry.
    pub fn sign(&self, tenant: &TenantName, revision: u64, document: &[u8]) -> Signature {
        let bytes = self.pair.sign(&message(tenant, revision, document)).as_ref().to_vec();
        Signature { key: self.id.clone(), revision, bytes }
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    id: String,
    bytes: [u8; PUBLIC_KEY_BYTES],
}

impl VerifyingKey {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(id: &str, text: &str) -> Result<Self, BadKey> {
        check_id(id)?;
        let bytes = BASE64.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        Ok(Self { id: id.to_owned(), bytes: bytes.ok_or_else(|| BadKey::Public(id.to_owned()))? })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.bytes))
    }
}

/// The keys that a reader believes, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyingKeys(BTreeMap<String, VerifyingKey>);

impl FromIterator<VerifyingKey> for VerifyingKeys {
    fn from_iter<I: IntoIterator<Item = VerifyingKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id.clone(), key)).collect())
    }
}

impl VerifyingKeys {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, by id.
    pub fn iter(&self) -> impl Iterator<Item = &VerifyingKey> {
        self.0.values()
    }

    /// Whether this very key is among them.
    pub fn holds(&self, key: &VerifyingKey) -> bool {
        self.0.get(&key.id) == Some(key)
    }

    /// The signature of an entry, if one of these keys made it.
    pub fn verify(&self, tenant: &TenantName, document: &[u8], signature: Option<&str>) -> Result<Signature, Refusal> {
        let signature: Signature = signature.filter(|text| !text.is_empty()).ok_or(Refusal::Unsigned)?.parse()?;
        let key = self.0.get(&signature.key).ok_or(Refusal::UnknownKey)?;
        UnparsedPublicKey::new(&ED25519, key.bytes)
            .verify(&message(tenant, signature.revision, document), &signature.bytes)
            .map_err(|_| Refusal::Wrong)?;
        Ok(signature)
    }
}

/// What is signed. No name and no number holds a line feed, so that nothing else reads as the same.
fn message(tenant: &TenantName, revision: u64, document: &[u8]) -> Vec<u8> {
    let mut message = format!("{DOMAIN}\n{tenant}\n{revision}\n").into_bytes();
    message.extend_from_slice(document);
    message
}

/// An id stands before a colon in a signature, and is a file's name.
fn check_id(id: &str) -> Result<(), BadKey> {
    let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let good = (1..=40).contains(&id.len()) && id.bytes().all(known) && !id.starts_with('.');
    if good { Ok(()) } else { Err(BadKey::Id(id.chars().take(40).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> SigningKey {
        SigningKey::from_pkcs8(id, &SigningKey::generate().unwrap()).unwrap()
    }

    fn name(name: &str) -> TenantName {
        name.parse().unwrap()
    }

    #[test]
    fn a_signature_holds_for_its_tenant_revision_document_and_key_alone() {
        let (ours, other, later) = (key("k1"), key("k1"), key("k2"));
        let keys: VerifyingKeys = [ours.public(), later.public()].into_iter().collect();
        let good = ours.sign(&name("acme"), 7, b"{}");
        let text = good.to_string();
        assert_eq!(text.parse::<Signature>().unwrap(), good);
        assert_eq!(keys.verify(&name("acme"), b"{}", Some(&text)).unwrap().revision, 7);
        assert!(keys.verify(&name("acme"), b"{}", Some(&later.sign(&name("acme"), 8, b"{}").to_string())).is_ok());
        let forged = other.sign(&name("acme"), 7, b"{}").to_string();
        let unknown = text.replacen("k1:", "k3:", 1);
        let renamed = text.replacen("k1:", "k2:", 1);
        let newer = text.replacen(":7:", ":8:", 1);
        for (tenant, document, signature, refusal) in [
            ("globex", &b"{}"[..], Some(text.as_str()), Refusal::Wrong),
            ("acme", b"{ }", Some(&text), Refusal::Wrong),
            ("acme", b"", Some(&text), Refusal::Wrong),
            ("acme", b"{}", Some(&newer), Refusal::Wrong),
            ("acme", b"{}", Some(&forged), Refusal::Wrong),
            ("acme", b"{}", Some(&renamed), Refusal::Wrong),
            ("acme", b"{}", Some(&unknown), Refusal::UnknownKey),
            ("acme", b"{}", Some("k1:7:"), Refusal::Wrong),
            ("acme", b"{}", Some("k1:x:AAAA"), Refusal::Malformed),
            ("acme", b"{}", Some("k1"), Refusal::Malformed),
            ("acme", b"{}", Some("k1:7:%"), Refusal::Malformed),
            ("acme", b"{}", Some(""), Refusal::Unsigned),
            ("acme", b"{}", None, Refusal::Unsigned),
        ] {
            assert_eq!(keys.verify(&name(tenant), document, signature), Err(refusal), "{tenant} {signature:?}");
        }
    }

    #[test]
    fn nothing_else_reads_as_the_same_message() {
        assert_ne!(message(&name("a"), 1, b"2\n{}"), message(&name("a"), 12, b"\n{}"));
        assert_ne!(message(&name("a"), 1, b"1\n{}"), message(&name("a1"), 1, b"{}"));
    }

    #[test]
    fn keys_read_back_and_what_is_none_is_refused() {
        let key = key("k1");
        let public = key.public();
        assert_eq!(VerifyingKey::parse("k1", &format!("{public}\n")).unwrap(), public);
        assert_eq!(VerifyingKey::parse("k1", "AAAA"), Err(BadKey::Public("k1".into())));
        assert!(matches!(SigningKey::from_pkcs8("k1", b"-----BEGIN"), Err(BadKey::Private(_))));
        for id in ["", "a:b", "..data", "a/b", &"x".repeat(41)] {
            assert!(matches!(VerifyingKey::parse(id, &public.to_string()), Err(BadKey::Id(_))), "{id}");
        }
    }

    #[test]
    fn a_key_of_openssl_is_read() {
        // RFC 8410, section 10.3.
        let der = BASE64.decode("MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC").unwrap();
        let key = SigningKey::from_pkcs8("k1", &der).unwrap();
        assert_eq!(key.public().to_string(), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    }
}
