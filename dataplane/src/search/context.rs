//! One event between its neighbours: those of the same service, or that have another field's value in common with it.

use api::context::{Context, Same};
use api::event::Source;
use query::params::InvalidParams;
use query::params::context::{Around, Names, having, values};
use query::{Field, Order, Page};
use uuid::Uuid;

use super::Error;
use super::reader::{Reader, Rows};
use crate::event::Micros;
use crate::stores::read::Row;
use crate::tenancy::Tenant;

impl Reader {
    /// The event and what is asked for around it; `None` if the tenant has no such event.
    pub async fn context(
        &self,
        tenant: &Tenant,
        id: Uuid,
        around: &Around,
        now: Micros,
    ) -> Result<Option<Context>, Error> {
        let Some(row) = self.catalog.event(tenant, id).await? else { return Ok(None) };
        let same = match &around.same {
            Some(field) => Some(self.shared(tenant, &row, field).await?),
            None => None,
        };
        let query = || around.same.as_ref().zip(same.as_ref()).map(|(field, same)| having(field, &same.values));
        let pages = [Order::Newest, Order::Oldest].map(|order| around.page(order, row.place, query()));
        let [earlier, later] = &pages;
        let (before, after) = tokio::try_join!(self.side(tenant, earlier, now), self.side(tenant, later, now))?;
        let notice = before.notice.clone().or(after.notice.clone());
        let source = if before.source == Source::Catalog { after.source } else { before.source };
        let cursor = |rows: &Rows, page: &Option<Page>| {
            let asked = page.as_ref()?.asked;
            rows.next.map(|next| next.encode(asked))
        };
        let (earlier_cursor, later_cursor) = (cursor(&before, earlier), cursor(&after, later));
        Ok(Some(Context {
            before: before.rows.into_iter().rev().map(|row| row.item).collect(),
            event: row.item,
            after: after.rows.into_iter().map(|row| row.item).collect(),
            same,
            earlier_cursor,
            later_cursor,
            source,
            complete: notice.is_none(),
            notice,
        }))
    }

    /// What the neighbours are to have in common with an event.
    async fn shared(&self, tenant: &Tenant, row: &Row, field: &Field) -> Result<Same, Error> {
        let item = &row.item;
        let names = Names {
            service: &item.service,
            level: &item.level,
            application: item.application.as_deref(),
            language: item.language.as_deref(),
        };
        let values = if field.is_reserved() {
            values(field, names, None, None)
        } else {
            match self.event(tenant, item.id).await? {
                Some(event) => values(field, names, event.metadata.as_ref(), event.attributes.as_ref()),
                None => Vec::new(),
            }
        };
        if values.is_empty() {
            return Err(InvalidParams::parameter("same", format!("the event has no field `{field}`")).into());
        }
        Ok(Same { field: field.to_string(), values })
    }

    /// The neighbours in one direction. A row has the fields with names of their own, so the catalog knows them all.
    async fn side(&self, tenant: &Tenant, page: &Option<Page>, now: Micros) -> Result<Rows, Error> {
        match page {
            None => Ok(Rows { rows: Vec::new(), next: None, source: Source::Catalog, notice: None }),
            Some(page) if asks_the_index(page) => self.searched(tenant, page, now).await,
            Some(page) => self.listed(tenant, page, now).await,
        }
    }
}

fn asks_the_index(page: &Page) -> bool {
    page.query.as_ref().is_some_and(query::Query::asks_for_the_whole)
}
