//! Which events a tail shows: the parameters of `/ws/logs`.

use api::parameters::MAX_CHOICES;
use api::tail::KEY_PROTOCOL;

use super::frames::TailEvent;

/// An empty choice means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Any of these services.
    pub services: Vec<String>,
    /// Any of these levels, as they are stored.
    pub levels: Vec<String>,
}

/// Why the parameters can't be used. Said to the client as it stands; never says a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidParams {
    /// An unknown parameter.
    #[error("parameter `{0}` is unknown; known are service, level")]
    Unknown(String),
    /// An empty value, or too many.
    #[error("parameter `{0}` holds 1 to {MAX_CHOICES} values, none of them empty")]
    Choices(&'static str),
    /// A key where proxies and browsers write it down.
    #[error(
        "an API key may not stand in a URL: send it as a header, or from a browser as the subprotocol `{KEY_PROTOCOL}<key>`"
    )]
    KeyInUrl,
}

/// Reads the parameters.
pub(super) fn read(pairs: Vec<(String, String)>) -> Result<Filter, InvalidParams> {
    let mut filter = Filter::default();
    for (name, value) in pairs {
        match name.as_str() {
            "service" => choices(&mut filter.services, "service", &value, str::to_owned)?,
            "level" => choices(&mut filter.levels, "level", &value, stages::normalize_level)?,
            "api_key" => return Err(InvalidParams::KeyInUrl),
            _ => return Err(InvalidParams::Unknown(name.chars().take(64).collect())),
        }
    }
    Ok(filter)
}

fn choices(
    chosen: &mut Vec<String>,
    name: &'static str,
    value: &str,
    stored: impl Fn(&str) -> String,
) -> Result<(), InvalidParams> {
    for choice in value.split(',').map(str::trim) {
        if choice.is_empty() || chosen.len() == MAX_CHOICES {
            return Err(InvalidParams::Choices(name));
        }
        chosen.push(stored(choice));
    }
    Ok(())
}

impl Filter {
    /// Whether an event is shown.
    pub(super) fn shows(&self, event: &TailEvent) -> bool {
        let any = |choices: &[String], value: &str| choices.is_empty() || choices.iter().any(|choice| choice == value);
        any(&self.services, &event.service) && any(&self.levels, &event.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<Filter, InvalidParams> {
        read(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_filter_shows_what_it_names() {
        let event = TailEvent { id: uuid::Uuid::nil(), service: "api".into(), level: "WARN".into(), frame: "".into() };
        for (pairs, shown) in [
            (&[][..], true),
            (&[("service", "api")], true),
            (&[("service", "web,api")], true),
            (&[("service", "web"), ("service", "api")], true),
            (&[("service", "web")], false),
            (&[("level", "warning")], true),
            (&[("level", "error")], false),
            (&[("service", "api"), ("level", "error")], false),
        ] {
            assert_eq!(read_pairs(pairs).unwrap().shows(&event), shown, "{pairs:?}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        assert_eq!(read_pairs(&[("cursor", "x")]), Err(InvalidParams::Unknown("cursor".into())));
        assert_eq!(read_pairs(&[("service", "")]), Err(InvalidParams::Choices("service")));
        assert_eq!(read_pairs(&[("level", &"a,".repeat(40))]), Err(InvalidParams::Choices("level")));
        assert_eq!(read_pairs(&[("api_key", "a")]), Err(InvalidParams::KeyInUrl));
    }
}
