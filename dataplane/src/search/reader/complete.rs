//! What a query may go on with: fields and values of the tenant's events, and the words of the language.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::answer::{Completion, CompletionKind, Completions, FieldShare};
use crds::TenantName;
use query::Page;
use query::complete::{MAX_OFFERED, Place, place, written};
use query::expression::Field;
use query::params::counting::{Complete, ValuesOf};
use query::stage::{FUNCTIONS, VERBS};

use super::Reader;
use super::answers::shares;
use crate::event::Micros;
use crate::tenancy::Tenant;

/// Longest wait for fields or values: people go on typing meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);
/// Events that tell which fields there are.
const SAMPLE: u32 = 500;
/// How long they are remembered.
const HOLDS: Duration = Duration::from_secs(10);
/// Tenants and time ranges remembered.
const REMEMBERED: usize = 256;
/// Said where fields or values could not be had in time.
const NOT_IN_TIME: &str = "fields and values could not be had in time";

/// Fields that were found a moment ago, by tenant and time range. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownFields {
    found: Arc<Mutex<HashMap<Range, Remembered>>>,
}

type Range = (TenantName, Option<Micros>, Option<Micros>);
/// When they were found, and which.
type Remembered = (Instant, Arc<Vec<FieldShare>>);

impl KnownFields {
    fn get(&self, range: &Range, now: Instant) -> Option<Arc<Vec<FieldShare>>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, fields) = found.get(range)?;
        (now.saturating_duration_since(*at) < HOLDS).then(|| Arc::clone(fields))
    }

    fn put(&self, range: Range, fields: Arc<Vec<FieldShare>>, now: Instant) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= REMEMBERED {
            found.retain(|_, (at, _)| now.saturating_duration_since(*at) < HOLDS);
        }
        if found.len() < REMEMBERED {
            found.insert(range, (now, fields));
        }
    }
}

impl Reader {
    /// What a query may go on with at the cursor.
    pub async fn complete(&self, tenant: &Tenant, asked: &Complete, now: Micros) -> Completions {
        let (place, at) = place(&asked.q, asked.at);
        let looked_up = tokio::time::timeout(PATIENCE, self.offered(tenant, &asked.page, &place, now)).await;
        let (mut items, complete) = match looked_up {
            Ok(Some(items)) => (items, true),
            Ok(None) | Err(_) => (Vec::new(), false),
        };
        items.extend(words(&place));
        items.truncate(MAX_OFFERED);
        let notice = (!complete).then_some(Cow::Borrowed(NOT_IN_TIME));
        Completions { position: at.start, length: at.len(), items, complete, notice }
    }

    /// Fields or values, as the place demands; `None` if they can't be had.
    async fn offered(&self, tenant: &Tenant, page: &Page, place: &Place, now: Micros) -> Option<Vec<Completion>> {
        match place {
            Place::Word(prefix) => {
                let fields = self.known_fields(tenant, page).await?;
                Some(beginning(&fields, prefix, ":"))
            }
            Place::Field(prefix) => {
                let fields = self.known_fields(tenant, page).await?;
                Some(beginning(&fields, prefix, ""))
            }
            Place::Value(Field::Text, _) => Some(Vec::new()),
            Place::Value(field, prefix) => {
                let prefix = (!prefix.is_empty()).then(|| prefix.clone());
                let of = ValuesOf { page: page.clone(), field: field.clone(), prefix, limit: MAX_OFFERED as u32 };
                let found = self.values(tenant, &of, now).await.ok()?;
                let value = |of: api::answer::ValueCount| {
                    let text = written(&of.value?);
                    Some(Completion { text, kind: CompletionKind::Value, about: None, count: Some(of.count) })
                };
                Some(found.facet.values.into_iter().filter_map(value).collect())
            }
            Place::Verb(_) | Place::Function(_) | Place::By(_) | Place::Nothing => Some(Vec::new()),
        }
    }

    async fn known_fields(&self, tenant: &Tenant, page: &Page) -> Option<Arc<Vec<FieldShare>>> {
        let range = (tenant.name().clone(), page.filters.from, page.filters.to);
        if let Some(known) = self.fields.get(&range, Instant::now()) {
            return Some(known);
        }
        let sample = self.index.sample(tenant, page, None, SAMPLE).await.ok()?;
        let fields = Arc::new(shares(&sample.events));
        self.fields.put(range, Arc::clone(&fields), Instant::now());
        Some(fields)
    }
}

/// The fields whose names begin so, whatever their case, and then those in which it stands elsewhere.
fn beginning(fields: &[FieldShare], prefix: &str, behind: &str) -> Vec<Completion> {
    let prefix = prefix.trim_start_matches('@').to_lowercase();
    let offer = |field: &FieldShare| Completion {
        text: format!("{}{behind}", field.name),
        kind: CompletionKind::Field,
        about: None,
        count: Some(field.events),
    };
    let begins = |field: &&FieldShare| field.name.to_lowercase().starts_with(&prefix);
    let holds =
        |field: &&FieldShare| !begins(field) && prefix.len() >= 2 && field.name.to_lowercase().contains(&prefix);
    fields.iter().filter(begins).chain(fields.iter().filter(holds)).map(offer).collect()
}

/// The words of the language that may stand in a place.
fn words(place: &Place) -> Vec<Completion> {
    let offer = |text: &str, kind, about: Option<&str>| Completion {
        text: text.to_owned(),
        kind,
        about: about.map(str::to_owned),
        count: None,
    };
    match place {
        Place::Verb(prefix) => (VERBS.iter())
            .filter(|(verb, _)| verb.starts_with(prefix.as_str()))
            .map(|(verb, about)| offer(verb, CompletionKind::Stage, Some(about)))
            .collect(),
        Place::Function(prefix) => (FUNCTIONS.iter())
            .filter(|function| function.starts_with(prefix.as_str()))
            .map(|function| {
                let text = if *function == "count" { (*function).to_owned() } else { format!("{function}(") };
                offer(&text, CompletionKind::Function, None)
            })
            .collect(),
        Place::By(prefix) if "by".starts_with(prefix.as_str()) => vec![offer("by", CompletionKind::Stage, None)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> FieldShare {
        let (places, types, values) = (Vec::new(), Vec::new(), Vec::new());
        FieldShare { name: name.to_owned(), places, events: 1, share: 1.0, types, values }
    }

    #[test]
    fn fields_are_offered_by_what_their_names_begin_with_and_then_hold() {
        let fields = [field("http.status"), field("Status"), field("state"), field("x")];
        let offered = |prefix: &str| {
            beginning(&fields, prefix, ":").into_iter().map(|offer| offer.text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(offered("stat"), "Status: state: http.status:");
        assert_eq!(offered("@x"), "x:");
        assert_eq!(offered("").split(' ').count(), 4);
    }

    #[test]
    fn words_of_the_language_are_offered_where_they_may_stand() {
        let texts = |place: Place| words(&place).into_iter().map(|offer| offer.text).collect::<Vec<_>>();
        assert_eq!(texts(Place::Verb("c".into())), ["count"]);
        assert_eq!(texts(Place::Function("p9".into())), ["p90(", "p95(", "p99("]);
        assert_eq!(texts(Place::By("b".into())), ["by"]);
        assert!(texts(Place::By("x".into())).is_empty() && texts(Place::Nothing).is_empty());
    }

    #[test]
    fn fields_are_remembered_for_a_moment() {
        let (known, now) = (KnownFields::default(), Instant::now());
        let range = |n: i64| ("acme".parse().unwrap(), Some(n), None);
        known.put(range(0), Arc::default(), now);
        assert!(known.get(&range(0), now).is_some() && known.get(&range(0), now + HOLDS).is_none());
        assert!(known.get(&range(1), now).is_none());
        for n in 0..2 * REMEMBERED as i64 {
            known.put(range(n), Arc::default(), now);
        }
        assert_eq!(known.found.lock().unwrap().len(), REMEMBERED);
    }
}
