//! Events by their text, read one after the other: what words can't say, such as a part of a word or an expression.

use std::time::{Duration, Instant};

use api::event::Listing;
use query::stage::{Grep, Texts};
use query::{Field, Page};
use uuid::Uuid;

use super::Reader;
use super::counts::asking_for;
use super::doubts::{Doubts, missing};
use crate::event::Micros;
use crate::search::Error;
use crate::tenancy::Tenant;

/// Events that are read at once.
const AT_ONCE: u32 = 1_000;
/// Most events that one request reads: some 20 MB of text.
const MOST: u64 = 20_000;
/// Longest time of a request. It is ended between two readings.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Said where a request ends before all events were read.
const MORE_TO_READ: &str = "not all events were read: go on with `next_cursor`, or narrow the time range or the query";

impl Reader {
    /// A page of those events whose text is as asked, and how many were read for it.
    pub(super) async fn grep(
        &self,
        tenant: &Tenant,
        page: &Page,
        greps: &[Grep],
        now: Micros,
    ) -> Result<(Listing, u64), Error> {
        let begun = Instant::now();
        let texts = Texts::of(greps);
        let wanted = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let mut found: Vec<Uuid> = Vec::new();
        let (mut read, mut after, mut at_end, mut partial) = (0, page.after, false, false);
        while found.len() < wanted && !at_end && read < MOST && begun.elapsed() < PATIENCE {
            let next = Page { after, limit: AT_ONCE, ..page.clone() };
            let (said, in_part) = self.index.said(tenant, &next).await.map_err(|error| {
                if error.is_outage() { Error::NeedsIndex("texts that `grep` looks for") } else { error.into() }
            })?;
            partial |= in_part;
            // What a part of the index did not say may stand anywhere: this is not the end.
            at_end = said.len() < AT_ONCE as usize && !in_part;
            for event in said {
                read += 1;
                after = Some(event.place);
                if texts.pass(&event.message, event.full_log.as_deref()) {
                    found.push(event.place.event_id);
                    if found.len() == wanted {
                        at_end = false;
                        break;
                    }
                }
            }
            if in_part {
                break;
            }
        }
        // It looks at whole texts, whatever the query before it asks for.
        let doubts = self.doubts(tenant, &asking_for(page, &[Field::Text]), now).await;
        let rows = self.catalog.found(tenant, &found, page.order).await?.rows;
        let mut notice = missing(Doubts { partial, ..doubts });
        if !at_end && found.len() < wanted {
            notice = notice.or(Some(MORE_TO_READ));
        }
        let listing = Listing {
            items: rows.into_iter().map(|row| row.item).collect(),
            next_cursor: after.filter(|_| !at_end).map(|cursor| cursor.encode(page.asked)),
            source: api::event::Source::Index,
            complete: notice.is_none(),
            notice: notice.map(std::borrow::Cow::Borrowed),
            scanned: None,
        };
        Ok((listing, read))
    }
}
