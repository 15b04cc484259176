//! Parameters of a live tail: of `WS /ws/logs`, of `GET /api/tail`, and of what a gateway asks search for before it.

use uuid::Uuid;

use super::{InvalidParams, choices, once, say_known, unknown};
use crate::expression::Query;
use crate::filters::Filters;
use crate::parse::parse;

/// What a tail shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tail {
    /// Which events. A tail has no time range.
    pub filters: Filters,
    /// Which of these.
    pub query: Option<Query>,
    /// The event after which to go on.
    pub after: Option<Uuid>,
}

/// What was stored after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Which events.
    pub tail: Tail,
    /// Where the answer before ended.
    pub next: Option<String>,
    /// The first of the events that the gateway knows to have been shown before `after`: whatever was stored since may
    /// have been shown after it.
    pub oldest: Option<Uuid>,
}

/// Reads the parameters.
pub fn tail(pairs: &[(String, String)]) -> Result<Tail, InvalidParams> {
    let mut tail = Tail::default();
    for (name, value) in pairs {
        read(&mut tail, name, value).map_err(|error| say_known(error, "q, service, level, after"))?;
    }
    Ok(tail)
}

/// Reads the parameters of a gateway's own.
pub fn stored(pairs: &[(String, String)]) -> Result<Stored, InvalidParams> {
    let (mut tail, mut next, mut oldest) = (Tail::default(), None, None);
    for (name, value) in pairs {
        match name.as_str() {
            "next" => once(&mut next, name, value.clone())?,
            "oldest" => once(&mut oldest, name, id(name, value)?)?,
            _ => read(&mut tail, name, value)?,
        }
    }
    Ok(Stored { tail, next, oldest })
}

fn read(tail: &mut Tail, name: &str, value: &str) -> Result<(), InvalidParams> {
    match name {
        "q" => once(&mut tail.query, name, parse(value)?),
        "after" => once(&mut tail.after, name, id(name, value)?),
        "service" => choices(&mut tail.filters.services, name, value),
        "level" => {
            choices(&mut tail.filters.levels, name, value)?;
            tail.filters.levels.iter_mut().for_each(|level| *level = stages::normalize_level(level));
            Ok(())
        }
        _ => Err(unknown(name)),
    }
}

fn id(name: &str, value: &str) -> Result<Uuid, InvalidParams> {
    value.parse().map_err(|_| InvalidParams::of(name, "is the id of an event"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_tail_has_a_query_and_filters() {
        let id = Uuid::from_u128(7).to_string();
        let read =
            tail(&pairs(&[("q", "refused"), ("level", "warning,err"), ("service", "a"), ("after", &id)])).unwrap();
        assert_eq!(read.filters.levels, ["WARN", "ERROR"]);
        assert_eq!((read.filters.services.len(), read.after), (1, Some(Uuid::from_u128(7))));
        assert!(read.query.is_some());
        for wrong in [("q", "("), ("after", "x"), ("cursor", "x"), ("service", ""), ("next", "x")] {
            let told = tail(&pairs(&[wrong])).unwrap_err().to_string();
            assert!(wrong.0 == "q" || told.contains(wrong.0), "{told}");
        }
        assert!(stored(&pairs(&[("next", "x"), ("oldest", &id), ("q", "a")])).is_ok());
    }
}
