//! What a registry entry is signed with, and what is to be done with one as it stands in Redis: decisions alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crds::TenantName;
use crds::signature::{Signature, SigningKey, VerifyingKeys};

/// Age of a signature at which it is made anew. A reader may hold a later revision than the one in Redis, made by an
/// operator whose clock was ahead before Redis lost it; it takes the entry again after this time.
const RENEWED: Duration = Duration::from_secs(24 * 3600);

/// A tenant's entry as it stands in Redis; empty is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The document.
    pub document: String,
    /// What stands for its signature.
    pub signature: String,
    /// Least revision that is not older than what this operator has seen or written: what is older was put back by
    /// somebody else.
    pub least: u64,
}

/// What entries are signed with.
pub struct Signing {
    /// The key for new signatures.
    pub signer: SigningKey,
    /// The keys whose signatures are ours, `signer` among them.
    pub accepted: VerifyingKeys,
    /// Whether the data plane may verify already: then nothing is believed that is not signed.
    pub in_force: bool,
}

/// What an entry is, as far as its signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Absent,
    /// Signed with the key for new signatures, and not long ago.
    Signed,
    /// Ours, by another key or long ago.
    Stale,
    /// Not ours, while entries need not be signed yet: of an operator of before, most likely.
    New,
    /// Not ours, or older than what was there: somebody else wrote it.
    Foreign,
}

impl Signing {
    /// Whether an entry, if there is one, is to be taken for what the operator wrote.
    pub fn believes(&self, tenant: &TenantName, entry: &Entry) -> bool {
        entry.document.is_empty() || !self.in_force || self.verified(tenant, entry).is_some()
    }

    /// What the entry is.
    pub fn standing(&self, tenant: &TenantName, entry: &Entry, now: SystemTime) -> Standing {
        match self.verified(tenant, entry) {
            _ if entry.document.is_empty() => Standing::Absent,
            Some(signature) if self.is_current(&signature, now) => Standing::Signed,
            Some(_) => Standing::Stale,
            None if self.in_force => Standing::Foreign,
            None => Standing::New,
        }
    }

    /// The signature of `document` in place of `seen`: the one that is there, if it will do. A new one has a later
    /// revision than those before, and a revision of the clock, so that it is later also than one that Redis lost.
    pub fn signature(&self, tenant: &TenantName, seen: &Entry, document: &str, now: SystemTime) -> String {
        let before = self.verified(tenant, seen);
        if let Some(before) = before.as_ref().filter(|before| seen.document == document && self.is_current(before, now))
        {
            return before.to_string();
        }
        let before = before.map_or(seen.least, |before| before.revision);
        self.signer.sign(tenant, milliseconds(now).max(before.saturating_add(1)), document.as_bytes()).to_string()
    }

    /// The entry's revision, if it is ours and not older than what was seen before.
    pub fn revision(&self, tenant: &TenantName, entry: &Entry) -> Option<u64> {
        Some(self.verified(tenant, entry)?.revision)
    }

    fn verified(&self, tenant: &TenantName, entry: &Entry) -> Option<Signature> {
        let signature = self.accepted.verify(tenant, entry.document.as_bytes(), Some(&entry.signature)).ok();
        signature.filter(|signature| signature.revision >= entry.least)
    }

    fn is_current(&self, signature: &Signature, now: SystemTime) -> bool {
        let age = milliseconds(now).saturating_sub(signature.revision);
        signature.key == self.signer.id() && u128::from(age) < RENEWED.as_millis()
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> SigningKey {
        SigningKey::from_pkcs8(id, &SigningKey::generate().unwrap()).unwrap()
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    /// Signed by the second of two keys, both accepted.
    fn signing(in_force: bool) -> (Signing, SigningKey) {
        let (older, signer) = (key("k1"), key("k2"));
        let accepted = [older.public(), signer.public()].into_iter().collect();
        (Signing { signer, accepted, in_force }, older)
    }

    #[test]
    fn an_entry_is_ours_stale_or_somebody_elses() {
        let acme: TenantName = "acme".parse().unwrap();
        let (signing, older) = signing(true);
        let entry = |signature: String| Entry { document: "{}".into(), signature, least: 0 };
        let by = |key: &SigningKey, second: u64| entry(key.sign(&acme, second * 1000, b"{}").to_string());
        for (entry, standing) in [
            (by(&signing.signer, 100_000), Standing::Signed),
            (by(&signing.signer, 200_000), Standing::Signed),
            (by(&signing.signer, 10_000), Standing::Stale),
            (by(&older, 100_000), Standing::Stale),
            (by(&key("k2"), 100_000), Standing::Foreign),
            (entry(String::new()), Standing::Foreign),
            (Entry { document: "{ }".into(), ..by(&signing.signer, 100_000) }, Standing::Foreign),
            (Entry { document: String::new(), ..by(&signing.signer, 100_000) }, Standing::Absent),
            (Entry { least: 100_000_000, ..by(&signing.signer, 100_000) }, Standing::Signed),
            (Entry { least: 100_000_001, ..by(&signing.signer, 100_000) }, Standing::Foreign),
            (Entry { least: 10_000_001, ..by(&signing.signer, 10_000) }, Standing::Foreign),
            (Entry { least: 100_000_001, ..by(&older, 100_000) }, Standing::Foreign),
        ] {
            assert_eq!(signing.standing(&acme, &entry, at(100_010)), standing, "{entry:?}");
            assert_eq!(signing.believes(&acme, &entry), standing != Standing::Foreign, "{entry:?}");
        }
        let (before, _) = self::signing(false);
        assert_eq!(before.standing(&acme, &entry(String::new()), at(1)), Standing::New);
        assert!(before.believes(&acme, &entry(String::new())));
    }

    #[test]
    fn a_signature_stays_while_it_will_do_and_a_new_one_is_later() {
        let acme: TenantName = "acme".parse().unwrap();
        let (signing, older) = signing(true);
        let revision = |seen: &Entry, document, second| {
            signing.signature(&acme, seen, document, at(second)).parse::<Signature>().unwrap().revision
        };
        assert_eq!(revision(&Entry::default(), "{}", 5), 5000);
        let signature = signing.signer.sign(&acme, 5000, b"{}").to_string();
        let seen = Entry { document: "{}".into(), signature, least: 5000 };
        assert_eq!(revision(&seen, "{}", 6), 5000, "nothing has changed");
        assert_eq!(revision(&seen, "{ }", 6), 6000);
        assert_eq!(revision(&seen, "{ }", 4), 5001, "the clock went back");
        assert_eq!(revision(&seen, "{}", 5 + 86_400), 86_405_000, "it is a day old");
        let by_older = Entry { signature: older.sign(&acme, 9000, b"{}").to_string(), ..seen.clone() };
        assert_eq!(revision(&by_older, "{}", 6), 9001, "another key's");
        let forged = Entry { signature: key("k2").sign(&acme, 9000, b"{}").to_string(), ..seen.clone() };
        assert_eq!(revision(&forged, "{}", 6), 6000);
        let put_back = Entry { least: 7000, ..seen };
        assert_eq!(revision(&put_back, "{}", 6), 7001, "an older one stands there, and the clock went back");
    }
}
