//! Usage for clients: what a tenant has sent, and whose key asks.

use std::borrow::Cow;

use api::event::Source;
use api::usage::{Amount, By, MAX_ROWS, Me, MyKey, MyQuotas, Usage, UsageRow};
use crds::registry::{RegistryTenant, TenantState};
use query::params::usage::UsageQuestion;
use time::OffsetDateTime;

use super::Error;
use super::export::is_formula;
use super::reader::Reader;
use super::waiting::Waits;
use crate::event::{Micros, rfc3339};
use crate::tenancy::{Caller, Tenant};

/// Said of a time that begins before anything that is kept.
const OLDER: &str = "the time begins before the tenant's retention: what was sent before is not in its ledger any more";
/// Said where there are more rows than an answer holds.
const MORE: &str = "there are more rows than an answer holds; narrow the time";
/// Said while accepted events wait in the queue.
const QUEUED: &str = "some accepted events are still in the queue; they count once they are stored";
/// Said while nobody knows.
const QUEUE_UNKNOWN: &str = "the queue doesn't say whether accepted events are still in it; ask again";

impl Reader {
    /// What a tenant has used.
    pub async fn usage(&self, tenant: &Tenant, question: &UsageQuestion, now: Micros) -> Result<Usage, Error> {
        let UsageQuestion { from, to, by, .. } = *question;
        let (rows, waits) = tokio::join!(self.catalog.usage(tenant, by, from, to), self.waiting.of(tenant, now));
        let mut rows = rows?;
        let more = rows.len() > MAX_ROWS as usize;
        rows.truncate(MAX_ROWS as usize);
        if by == By::Key {
            for row in &mut rows {
                let key = tenant.registered().keys.iter().find(|key| key.id == row.value);
                row.name = key.map(|key| key.name.clone());
            }
        }
        let older = from < tenant.kept_after(now);
        let notice = notice(more, older, waits);
        Ok(Usage {
            tenant: tenant.name().to_string(),
            by,
            from: rfc3339(from),
            to: rfc3339(to),
            total: total(&rows),
            rows,
            source: Source::Catalog,
            complete: notice.is_none(),
            notice: notice.map(Cow::Borrowed),
        })
    }
}

fn notice(more: bool, older: bool, waits: Waits) -> Option<&'static str> {
    match (more, older, waits) {
        (true, _, _) => Some(MORE),
        (_, true, _) => Some(OLDER),
        (_, _, Waits::Something) => Some(QUEUED),
        (_, _, Waits::Unknown) => Some(QUEUE_UNKNOWN),
        (false, false, Waits::Nothing) => None,
    }
}

fn total(rows: &[UsageRow]) -> Amount {
    let add = |sum: Amount, row: &UsageRow| Amount {
        events: sum.events.saturating_add(row.amount.events),
        bytes: sum.bytes.saturating_add(row.amount.bytes),
    };
    rows.iter().fold(Amount::default(), add)
}

/// Usage as comma-separated values. The last line is the total, or says what is missing.
pub(super) fn csv(usage: &Usage) -> String {
    let mut text = format!("{},name,events,bytes\n", usage.by.as_str());
    let mut line = |value: &str, name: &str, amount: Amount| {
        let cells = [cell(value), cell(name), amount.events.to_string(), amount.bytes.to_string()];
        text.push_str(&cells.join(","));
        text.push('\n');
    };
    for row in &usage.rows {
        line(&row.value, row.name.as_deref().unwrap_or_default(), row.amount);
    }
    line("total", usage.notice.as_deref().unwrap_or_default(), usage.total);
    text
}

/// A cell of RFC 4180. A spreadsheet takes one that begins with a sign for a formula: it gets an apostrophe.
fn cell(text: &str) -> String {
    let safe = if is_formula(text) { format!("'{text}") } else { text.to_owned() };
    if safe.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", safe.replace('"', "\"\"")) } else { safe }
}

/// Who a caller is. The key is one of the tenant's, or was one a moment ago.
pub(super) fn me(caller: &Caller) -> Me {
    let tenant: &RegistryTenant = caller.tenant.registered();
    let key = tenant.keys.iter().find(|key| key.id == caller.key_id);
    let ends = key.and_then(|key| key.expires_at).and_then(|at| i64::try_from(at).ok());
    let ends = ends.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    Me {
        tenant: caller.tenant.name().to_string(),
        state: match tenant.state {
            TenantState::Active => "active",
            TenantState::Suspended => "suspended",
            TenantState::Deleting => "deleting",
        }
        .into(),
        key: MyKey {
            id: caller.key_id.clone(),
            name: key.map(|key| key.name.clone()).unwrap_or_default(),
            scopes: caller.scopes.clone(),
            expires_at: ends.map(|at| rfc3339(crate::event::micros(at))),
        },
        plan: tenant.plan.clone(),
        hot_days: tenant.hot_days,
        total_days: tenant.total_days,
        quotas: MyQuotas {
            bytes_per_second: tenant.quotas.bytes.map(|rate| rate.per_second),
            events_per_second: tenant.quotas.events.map(|rate| rate.per_second),
        },
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_a_spreadsheet_and_is_no_formula() {
        let row =
            |value: &str, events| UsageRow { value: value.into(), name: None, amount: Amount { events, bytes: 7 } };
        let rows = vec![row("a,\"b\"", 1), row("=cmd()", 2)];
        let usage = Usage {
            tenant: "acme".into(),
            by: By::Service,
            from: String::new(),
            to: String::new(),
            total: total(&rows),
            rows,
            source: Source::Catalog,
            complete: true,
            notice: None,
        };
        assert_eq!(csv(&usage), "service,name,events,bytes\n\"a,\"\"b\"\"\",,1,7\n'=cmd(),,2,7\ntotal,,3,14\n");
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(notice(false, false, Waits::Nothing), None);
        assert_eq!(notice(false, false, Waits::Unknown), Some(QUEUE_UNKNOWN));
        assert_eq!(notice(false, true, Waits::Something), Some(OLDER));
        assert_eq!(notice(true, true, Waits::Nothing), Some(MORE));
    }
}
