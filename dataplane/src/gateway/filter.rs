//! Which events a tail shows: the parameters of `/ws/logs` and `/api/tail`.

use api::tail::KEY_PROTOCOL;
use query::params::InvalidParams;
use query::params::tail::{Tail, tail};

use super::frames::TailEvent;

/// Reads the parameters.
pub(super) fn read(pairs: &[(String, String)]) -> Result<Tail, InvalidParams> {
    if pairs.iter().any(|(name, _)| name == "api_key") {
        // Proxies and browsers write it down.
        let why = format!(
            "may not stand in a URL: send the key as a header, or from a browser as the subprotocol `{KEY_PROTOCOL}<key>`"
        );
        return Err(InvalidParams::parameter("api_key", why));
    }
    tail(pairs)
}

/// Whether an event is shown.
pub(super) fn shows(tail: &Tail, event: &TailEvent) -> bool {
    let any = |choices: &[String], value: &str| choices.is_empty() || choices.iter().any(|choice| choice == value);
    any(&tail.filters.services, &event.service)
        && any(&tail.filters.levels, &event.level)
        && tail.query.as_ref().is_none_or(|query| event.subject().is_some_and(|subject| subject.matches(query)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<Tail, InvalidParams> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&pairs)
    }

    #[test]
    fn a_tail_shows_what_its_parameters_name() {
        let frame = super::super::frames::frame(r#"{"service":"api","level":"WARN","message":"connection refused"}"#);
        let event = TailEvent::new(uuid::Uuid::nil(), "api".into(), "WARN".into(), frame);
        for (pairs, shown) in [
            (&[][..], true),
            (&[("service", "api")], true),
            (&[("service", "web,api")], true),
            (&[("service", "web"), ("service", "api")], true),
            (&[("service", "web")], false),
            (&[("level", "warning")], true),
            (&[("level", "error")], false),
            (&[("service", "api"), ("level", "error")], false),
            (&[("q", "refused")], true),
            (&[("q", "refused -connection")], false),
            (&[("q", "level:error or refused"), ("service", "api")], true),
            (&[("q", "refused"), ("service", "web")], false),
        ] {
            assert_eq!(shows(&read_pairs(pairs).unwrap(), &event), shown, "{pairs:?}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_named_and_a_key_is_not_repeated() {
        for (name, value) in [("cursor", "x"), ("service", ""), ("level", &"a,".repeat(40)), ("api_key", "lh_secret")] {
            let told = read_pairs(&[(name, value)]).unwrap_err().to_string();
            assert!(told.contains(name) && !told.contains("lh_secret"), "{told}");
        }
    }
}
