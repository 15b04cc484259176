//! The API key: `lh_<keyId>_<secret>`. The stores hold only an HMAC of the secret.

use std::collections::HashSet;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use rand::distr::Alphanumeric;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Length of a key id: 12 of 36 characters, 62 bits, enough to be unique and short in a table.
const ID_LENGTH: usize = 12;
/// Length of a secret: 43 of 62 characters hold 256 bits.
const SECRET_LENGTH: usize = 43;

/// Fewest different pairs of neighbours in a secret that is random: 43 random digits have about 34,
/// 43 random letters and digits 42. What repeats itself, or was typed by somebody, has few.
const FEWEST_PAIRS: usize = 22;

/// HMAC-SHA-256 of a key's secret under a pepper.
pub type Digest = [u8; 32];

/// An API key in the clear. It has no `Debug` and no `Serialize`, so that it cannot slip into a log.
#[derive(Clone)]
pub struct ApiKey {
    id: String,
    secret: String,
}

/// Why a string is not an API key. Says nothing of the string itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: expected lh_<id>_<secret>")]
pub struct MalformedKey;

impl ApiKey {
    /// A new random key.
    pub fn generate() -> Self {
        let mut rng = rand::rng();
        let id = (0..ID_LENGTH)
            .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[rng.random_range(0..36)]))
            .collect();
        let secret = (0..SECRET_LENGTH).map(|_| char::from(rng.sample(Alphanumeric))).collect();
        Self { id, secret }
    }

    /// Reads a key as a client sends it. Bounded: longer input is refused before it is looked at.
    pub fn parse(text: &str) -> Result<Self, MalformedKey> {
        if text.len() != 3 + ID_LENGTH + 1 + SECRET_LENGTH {
            return Err(MalformedKey);
        }
        let (id, secret) = text.strip_prefix("lh_").and_then(|rest| rest.split_once('_')).ok_or(MalformedKey)?;
        let alphanumeric = |part: &str| part.bytes().all(|c| c.is_ascii_alphanumeric());
        if id.len() != ID_LENGTH || !alphanumeric(id) || !alphanumeric(secret) {
            return Err(MalformedKey);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The public part, safe to show and to log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the secret is clearly not random. Only for keys that somebody else made.
    pub fn is_weak(&self) -> bool {
        let pairs: HashSet<&[u8]> = self.secret.as_bytes().windows(2).collect();
        pairs.len() < FEWEST_PAIRS
    }

    /// What is stored of the secret.
    pub fn digest(&self, pepper: &Pepper) -> Digest {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&pepper.bytes) else {
            unreachable!("HMAC takes a key of any length")
        };
        mac.update(self.secret.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Whether this key is the one that `stored` was made of, in constant time.
    pub fn matches(&self, pepper: &Pepper, stored: &Digest) -> bool {
        self.digest(pepper).ct_eq(stored).into()
    }
}

/// Shows the whole key: meant for the Secret that the tenant reads.
impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lh_{}_{}", self.id, self.secret)
    }
}

/// A platform-wide secret that digests are made under; each key records the id of its pepper.
#[derive(Clone)]
pub struct Pepper {
    /// Short public name, such as `p1`.
    pub id: String,
    /// At least 32 random bytes.
    pub bytes: Vec<u8>,
}

impl Pepper {
    /// What orders peppers by age, the newest last: the number at the end of an id counts as one, so that `p10`
    /// comes after `p9`.
    pub fn age(&self) -> (&str, u64, &str) {
        age_of(&self.id)
    }
}

/// What orders numbered ids by age, the newest last.
pub fn age_of(id: &str) -> (&str, u64, &str) {
    let name = id.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (name, id[name.len()..].parse().unwrap_or(u64::MAX), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_pepper_has_the_highest_number() {
        for (older, newer) in [("p1", "p2"), ("p9", "p10"), ("a", "b"), ("p1", "q"), ("p01", "p1")] {
            let [older, newer] = [older, newer].map(|id| Pepper { id: id.to_owned(), bytes: Vec::new() });
            assert!(older.age() < newer.age(), "{} and {}", older.id, newer.id);
        }
    }

    fn pepper(byte: u8) -> Pepper {
        Pepper { id: "p1".into(), bytes: vec![byte; 32] }
    }

    #[test]
    fn a_generated_key_reads_back() {
        let key = ApiKey::generate();
        let read = ApiKey::parse(&key.to_string()).unwrap();
        assert_eq!(read.id(), key.id());
        assert!(read.matches(&pepper(1), &key.digest(&pepper(1))));
    }

    #[test]
    fn another_secret_or_another_pepper_does_not_match() {
        let key = ApiKey::generate();
        assert!(!ApiKey::generate().matches(&pepper(1), &key.digest(&pepper(1))));
        assert!(!key.matches(&pepper(2), &key.digest(&pepper(1))));
    }

    #[test]
    fn a_secret_that_repeats_itself_is_weak_and_a_random_one_is_not() {
        let key = |secret: &str| ApiKey::parse(&format!("lh_{}_{secret}", "a".repeat(12))).unwrap();
        for weak in ["a".repeat(43), "abcdefghij".repeat(5)[..43].to_owned(), "changeme".repeat(6)[..43].to_owned()] {
            assert!(key(&weak).is_weak(), "{weak}");
        }
        for random in [
            "7310496582113509476628140359967120485537291",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0",
            "kQ7fZp2Xw9LmT4vB8sJ1cR6yH3nD5gA0eU2iO7xWqEz",
        ] {
            assert!(!key(random).is_weak(), "{random}");
        }
        assert!(!ApiKey::generate().is_weak());
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let key = ApiKey::generate().to_string();
        for bad in [
            "",
            "lh__",
            "lh_a_b",
            &key[1..],
            &format!("{key}x"),
            &key.replace("lh_", "LH_"),
            &key.replacen(|c: char| c.is_ascii_digit(), "é", 1)[..0],
        ] {
            assert!(ApiKey::parse(bad).is_err(), "{bad}");
        }
    }
}
