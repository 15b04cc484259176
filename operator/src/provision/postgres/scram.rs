//! SCRAM-SHA-256 verifiers: what PostgreSQL keeps of a password, made here, so that no statement and no
//! log of the server ever holds the password itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Rounds of hashing: PostgreSQL's own default. What we make has 256 random bits; more rounds add nothing.
const ITERATIONS: u32 = 4096;
/// Most rounds that a verifier is compared with; it was stored by us.
const MAX_ITERATIONS: u32 = 100_000;
const SCHEME: &str = "SCRAM-SHA-256";

/// A new verifier of a password, under a new salt.
pub(super) fn verifier(password: &SecretString) -> String {
    let salt: [u8; 16] = rand::rng().random();
    with(password, &salt, ITERATIONS)
}

/// Whether this is a verifier of the password.
pub(super) fn matches(password: &SecretString, verifier: &str) -> bool {
    let parts = verifier.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix('$')?.split_once('$'));
    let Some((iterations, salt)) = parts.and_then(|(how, _)| how.split_once(':')) else { return false };
    let (Ok(iterations), Ok(salt)) = (iterations.parse::<u32>(), BASE64.decode(salt)) else { return false };
    (1..=MAX_ITERATIONS).contains(&iterations) && with(password, &salt, iterations) == verifier
}

fn with(password: &SecretString, salt: &[u8], iterations: u32) -> String {
    let text = password.expose_secret();
    // As PostgreSQL and its clients do: a text that can't be normalized is taken byte for byte.
    let normal = stringprep::saslprep(text).unwrap_or(text.into());
    let salted = salted(normal.as_bytes(), salt, iterations);
    let stored = Sha256::digest(hmac(&salted, &[b"Client Key"]));
    let server = hmac(&salted, &[b"Server Key"]);
    let (salt, stored, server) = (BASE64.encode(salt), BASE64.encode(stored), BASE64.encode(server));
    format!("{SCHEME}${iterations}:{salt}${stored}:{server}")
}

/// PBKDF2 with HMAC-SHA-256, one block of output.
fn salted(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut round = hmac(password, &[salt, &1u32.to_be_bytes()]);
    let mut sum = round;
    for _ in 1..iterations {
        round = hmac(password, &[&round]);
        sum.iter_mut().zip(round).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(hmac) => hmac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    parts.iter().for_each(|part| hmac.update(part));
    hmac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677 gives stored and server key of user `user`, password `pencil`.
    #[test]
    fn a_verifier_is_the_one_that_the_standard_says() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = with(&"pencil".into(), &salt, 4096);
        let expected = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(made, expected);
    }

    #[test]
    fn a_verifier_knows_its_password_and_no_other_and_does_not_hold_it() {
        let made = verifier(&"a long password".into());
        assert!(matches(&"a long password".into(), &made) && !matches(&"another".into(), &made));
        assert!(!made.contains("password"));
        assert_ne!(verifier(&"a long password".into()), made, "another salt");
        for wrong in ["", "md5abc", "SCRAM-SHA-256$x:AA==$a:b", "SCRAM-SHA-256$999999999:AA==$a:b"] {
            assert!(!matches(&"a long password".into(), wrong), "{wrong}");
        }
    }
}
