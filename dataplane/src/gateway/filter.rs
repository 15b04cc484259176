//! Which events a tail shows: the parameters of `/ws/logs`.

use super::frames::TailEvent;

/// Most services or levels to choose from.
const MAX_CHOICES: usize = 32;

/// An empty choice means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Any of these services.
    pub services: Vec<String>,
    /// Any of these levels, as they are stored.
    pub levels: Vec<String>,
}

/// Parameters of `/ws/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TailParams {
    /// Which events.
    pub filter: Filter,
    /// The key, from a browser, which can set no header here.
    pub api_key: Option<String>,
}

/// Why the parameters can't be used. Said to the client as it stands; never says a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidParams {
    /// An unknown parameter.
    #[error("parameter `{0}` is unknown; known are service, level, api_key")]
    Unknown(String),
    /// An empty value, or too many.
    #[error("parameter `{0}` holds 1 to {MAX_CHOICES} values, none of them empty")]
    Choices(&'static str),
    /// A key that stands twice.
    #[error("parameter `api_key` may stand only once")]
    TwoKeys,
}

/// Reads the parameters.
pub(super) fn read(pairs: Vec<(String, String)>) -> Result<TailParams, InvalidParams> {
    let mut params = TailParams::default();
    for (name, value) in pairs {
        match name.as_str() {
            "service" => choices(&mut params.filter.services, "service", &value, str::to_owned)?,
            "level" => choices(&mut params.filter.levels, "level", &value, stages::normalize_level)?,
            "api_key" if params.api_key.is_none() => params.api_key = Some(value),
            "api_key" => return Err(InvalidParams::TwoKeys),
            _ => return Err(InvalidParams::Unknown(name.chars().take(64).collect())),
        }
    }
    Ok(params)
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

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<TailParams, InvalidParams> {
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
            assert_eq!(read_pairs(pairs).unwrap().filter.shows(&event), shown, "{pairs:?}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        assert_eq!(read_pairs(&[("cursor", "x")]), Err(InvalidParams::Unknown("cursor".into())));
        assert_eq!(read_pairs(&[("service", "")]), Err(InvalidParams::Choices("service")));
        assert_eq!(read_pairs(&[("level", &"a,".repeat(40))]), Err(InvalidParams::Choices("level")));
        assert_eq!(read_pairs(&[("api_key", "a"), ("api_key", "b")]), Err(InvalidParams::TwoKeys));
    }
}
