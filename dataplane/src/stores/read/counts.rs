//! Events counted: by the index, and by the catalog where its rows can tell.

use query::Page;
use query::counting::{Buckets, Counted, Group, Grouping, Key, Order, Tally, cut, words};
use query::expression::Field;
use query::leaves::Leaves;
use query::to_catalog::conditions;
use query::to_index::counts::{self, Found, Part, Split};
use serde::Deserialize;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder, Row as _, Transaction};
use stages::Map;
use time::OffsetDateTime;

use super::catalog::{Catalog, CatalogError, push};
use super::index::{Computed, Index, IndexError};
use crate::event::{Micros, date_time, micros};
use crate::tenancy::Tenant;

/// Most groups that the catalog is asked for, before they are cut to those that are shown: some megabytes of names.
const MAX_GROUPS: i64 = 10_000;

/// Requests of one counting that the index works on at a time.
const AT_ONCE: usize = 8;

/// Events that stand for others.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// These.
    pub events: Vec<Counted>,
    /// How many there are of those that they stand for, and of themselves.
    pub total: u64,
    /// Whether a part of the index didn't answer in time.
    pub partial: bool,
}

impl Sample {
    /// Whether it holds all events.
    pub fn is_whole(&self) -> bool {
        self.events.len() as u64 >= self.total
    }
}

/// What the index returns of an event that is counted.
#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_source")]
    source: Source,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    service: Option<String>,
    level: Option<String>,
    application: Option<String>,
    language: Option<String>,
    metadata: Option<Map>,
    attributes: Option<Map>,
}

impl Source {
    fn counted(self) -> Option<Counted> {
        let Self { timestamp, service, level, application, language, metadata, attributes } = self;
        let time = stages::time::parse_text(&timestamp)?;
        let leaves = words(Leaves { metadata: metadata.as_ref(), attributes: attributes.as_ref() });
        Some(Counted { time, service, level, application, language, leaves })
    }
}

/// What one request counts.
#[derive(Debug, Default)]
struct Counting {
    total: u64,
    buckets: Vec<u64>,
    partial: bool,
}

/// A hit that is known by its time alone, in nanoseconds.
#[derive(Deserialize)]
struct Moment {
    sort: (i64,),
}

/// No hit: only what is computed is asked for.
#[derive(Deserialize)]
struct NoHit {}

impl Index {
    /// The times of the first event and after the last.
    pub async fn bounds(&self, tenant: &Tenant, page: &Page) -> Result<Option<(Micros, Micros)>, IndexError> {
        let (first, last) = tokio::try_join!(self.bound(tenant, page, false), self.bound(tenant, page, true))?;
        Ok(first.zip(last.map(|last| last + 1)))
    }

    async fn bound(&self, tenant: &Tenant, page: &Page, last: bool) -> Result<Option<Micros>, IndexError> {
        let mut found = self.compute::<Moment>(tenant, counts::bound(tenant.name(), page, last)).await?;
        Ok(found.hits.pop().map(|Moment { sort: (nanos,) }| nanos.div_euclid(1000)))
    }

    /// About how many different values a reserved field has; and whether a part didn't answer.
    pub async fn distinct(&self, tenant: &Tenant, page: &Page, field: &Field) -> Result<(u64, bool), IndexError> {
        let body = counts::distinct(tenant.name(), page, field);
        let Computed { aggregations, partial, .. } = self.compute::<NoHit>(tenant, body).await?;
        Ok((aggregations["values"]["value"].as_u64().unwrap_or(0), partial))
    }

    /// Events by chance, with what these fields need of them; without fields, with all that can be counted by.
    pub async fn sample(
        &self,
        tenant: &Tenant,
        page: &Page,
        fields: Option<&[Field]>,
        size: u32,
    ) -> Result<Sample, IndexError> {
        let body = match fields {
            Some(fields) => counts::sample(tenant.name(), page, fields, size),
            None => counts::sample_whole(tenant.name(), page, size),
        };
        let Computed { hits, total, partial, .. } = self.compute::<Hit>(tenant, body).await?;
        let events = hits.into_iter().filter_map(|hit| hit.source.counted()).collect();
        Ok(Sample { events, total, partial })
    }

    /// All events, or those of the groups of one reserved field; and whether a part didn't answer.
    pub async fn tally_divided(
        &self,
        tenant: &Tenant,
        page: &Page,
        splits: &[Split],
        grouping: &Grouping,
    ) -> Result<(Tally, bool), IndexError> {
        let buckets = grouping.buckets.as_ref();
        let body = counts::divided(tenant.name(), page, splits, buckets);
        let Computed { aggregations, total, mut partial, .. } = self.compute::<NoHit>(tenant, body).await?;
        let totals = match buckets {
            None => Vec::new(),
            Some(_) if splits.is_empty() => counts::read_times(&aggregations, buckets),
            Some(known) => match counts::read_totals(&aggregations, known) {
                Some(totals) => totals,
                None => {
                    let body = counts::divided(tenant.name(), page, &[], buckets);
                    let all = self.counting(tenant, body, buckets).await?;
                    partial |= all.partial;
                    all.buckets
                }
            },
        };
        Ok((counts::read_divided(&aggregations, total, splits, totals, grouping), partial))
    }

    /// The groups that there are.
    pub async fn groups(&self, tenant: &Tenant, page: &Page, splits: &[Split]) -> Result<(Found, bool), IndexError> {
        let body = counts::divided(tenant.name(), page, splits, None);
        let Computed { aggregations, partial, .. } = self.compute::<NoHit>(tenant, body).await?;
        Ok((counts::read_groups(&aggregations, splits, None), partial))
    }

    /// The events of these groups, the largest of them as many as are wanted, those in none of them, and those without a
    /// value. A request for each: one that looks at every event for every group takes two to three times as long.
    pub async fn tally_keys(
        &self,
        tenant: &Tenant,
        page: &Page,
        keys: &[Key],
        looks_for_missing: bool,
        grouping: &Grouping,
    ) -> Result<(Tally, bool), IndexError> {
        let buckets = grouping.buckets.as_ref();
        let body = |part: &Part<'_>| counts::part(tenant.name(), page, &grouping.by, part, buckets);
        let mut bodies = vec![counts::divided(tenant.name(), page, &[], buckets)];
        bodies.extend(keys.iter().map(|key| body(&Part::Group(key))));
        let mut counted = self.parts(tenant, bodies, buckets).await?.into_iter();
        let all = counted.next().unwrap_or_default();
        let mut partial = all.partial;
        let mut groups = Vec::new();
        for (key, Counting { total, buckets, partial: of_group }) in keys.iter().zip(counted) {
            partial |= of_group;
            groups.push(Group { key: key.clone(), count: total, buckets });
        }
        groups.retain(|group| group.count > 0);
        let cut_off = cut(&mut groups, grouping);
        let shown: Vec<Key> = groups.iter().map(|group| group.key.clone()).collect();
        let apart = !grouping.with_missing && looks_for_missing;
        let mut bodies = vec![body(&Part::Others { keys: &shown, with_values: apart })];
        bodies.extend(apart.then(|| body(&Part::Missing)));
        let mut counted = self.parts(tenant, bodies, buckets).await?.into_iter();
        let other = counted.next().unwrap_or_default();
        let missing = counted.next();
        partial |= other.partial || missing.as_ref().is_some_and(|missing| missing.partial);
        let tally = Tally {
            total: all.total,
            groups,
            other: other.total,
            missing: missing.map(|missing| missing.total),
            buckets: all.buckets,
            other_buckets: other.buckets,
            more: cut_off || other.total > 0,
            chosen: false,
        };
        Ok((tally, partial))
    }

    /// What several requests count, some of them at a time.
    async fn parts(
        &self,
        tenant: &Tenant,
        bodies: Vec<Value>,
        buckets: Option<&Buckets>,
    ) -> Result<Vec<Counting>, IndexError> {
        let mut counted = Vec::new();
        let mut bodies = bodies.into_iter().peekable();
        while bodies.peek().is_some() {
            let together: Vec<_> =
                bodies.by_ref().take(AT_ONCE).map(|body| self.counting(tenant, body, buckets)).collect();
            counted.extend(futures::future::try_join_all(together).await?);
        }
        Ok(counted)
    }

    async fn counting(&self, tenant: &Tenant, body: Value, buckets: Option<&Buckets>) -> Result<Counting, IndexError> {
        let Computed { aggregations, total, partial, .. } = self.compute::<NoHit>(tenant, body).await?;
        Ok(Counting { total, buckets: counts::read_times(&aggregations, buckets), partial })
    }

    /// The same events counted by one reserved field after the other.
    pub async fn tally_by_each(
        &self,
        tenant: &Tenant,
        page: &Page,
        groupings: &[Grouping],
    ) -> Result<(Vec<Tally>, bool), IndexError> {
        let ways: Vec<Split> = groupings.iter().flat_map(largest).collect();
        let body = counts::divided_by_each(tenant.name(), page, &ways);
        let Computed { aggregations, total, partial, .. } = self.compute::<NoHit>(tenant, body).await?;
        let read = |(number, (split, grouping)): (usize, (&Split, &Grouping))| {
            counts::read_one_of(&aggregations, number, total, split, grouping)
        };
        Ok((ways.iter().zip(groupings).enumerate().map(read).collect(), partial))
    }
}

/// How the index divides by reserved fields: so that what is shown is among what it finds.
pub fn largest(grouping: &Grouping) -> Vec<Split> {
    // Of those with fewest events, all must be known.
    const ALL: u32 = 1000;
    let size = match grouping.order {
        Order::Most => grouping.limit,
        Order::Fewest => ALL,
    };
    let with_missing = grouping.with_missing;
    grouping.by.iter().map(|field| Split { field: field.clone(), size, with_missing }).collect()
}

impl Catalog {
    /// The times of the first event and after the last.
    pub async fn bounds(&self, tenant: &Tenant, page: &Page) -> Result<Option<(Micros, Micros)>, CatalogError> {
        let mut read = self.begin(tenant).await?;
        let mut sql = select(tenant, "min(event_time), max(event_time)");
        conditions(page).into_iter().for_each(|part| push(&mut sql, part));
        let (first, last): (Option<OffsetDateTime>, Option<OffsetDateTime>) =
            sql.build_query_as().fetch_one(&mut *read).await?;
        Ok(first.zip(last).map(|(first, last)| (micros(first), micros(last) + 1)))
    }

    /// Events counted by reserved fields.
    pub async fn tally(&self, tenant: &Tenant, page: &Page, grouping: &Grouping) -> Result<Tally, CatalogError> {
        let mut read = self.begin(tenant).await?;
        // The sums of several statements are those of one moment.
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *read).await?;
        let mut tally = groups(&mut read, tenant, page, grouping).await?;
        if let Some(buckets) = &grouping.buckets {
            over_time(&mut read, tenant, page, grouping, buckets, &mut tally).await?;
        }
        Ok(tally)
    }
}

fn select(tenant: &Tenant, what: &str) -> QueryBuilder<'static, Postgres> {
    QueryBuilder::new(format!("SELECT {what} FROM {}.logs WHERE true", tenant.name().database_schema()))
}

/// The column of a reserved field.
fn column(field: &Field) -> &'static str {
    match field {
        Field::Level => "level",
        Field::Application => "application",
        Field::Language => "language",
        _ => "service",
    }
}

async fn groups(
    read: &mut Transaction<'static, Postgres>,
    tenant: &Tenant,
    page: &Page,
    grouping: &Grouping,
) -> Result<Tally, CatalogError> {
    let columns: Vec<&str> = grouping.by.iter().map(column).collect();
    if columns.is_empty() {
        let mut sql = select(tenant, "count(*)");
        conditions(page).into_iter().for_each(|part| push(&mut sql, part));
        let total = count(sql.build_query_scalar().fetch_one(&mut **read).await?);
        let group = Group { key: Vec::new(), count: total, buckets: Vec::new() };
        let missing = (!grouping.with_missing).then_some(0);
        return Ok(Tally { total, groups: vec![group], missing, ..Tally::default() });
    }
    let list = columns.join(", ");
    let mut sql = QueryBuilder::new(format!(
        "SELECT {list}, n, (sum(n) OVER ())::bigint AS total, count(*) OVER () AS groups FROM ("
    ));
    sql.push(format_args!("SELECT {list}, count(*) AS n FROM {}.logs WHERE true", tenant.name().database_schema()));
    conditions(page).into_iter().for_each(|part| push(&mut sql, part));
    let order = match grouping.order {
        Order::Most => "DESC",
        Order::Fewest => "ASC",
    };
    let absent = columns.iter().map(|column| format!("{column} IS NULL")).collect::<Vec<_>>().join(" OR ");
    // Those without a value first, as they are told of whatever their number is.
    sql.push(format_args!(" GROUP BY {list}) g ORDER BY ({absent}) DESC, n {order}, {list} LIMIT {MAX_GROUPS}"));
    let rows = sql.build().fetch_all(&mut **read).await?;
    let Some(first) = rows.first() else {
        return Ok(Tally { missing: (!grouping.with_missing).then_some(0), ..Tally::default() });
    };
    let (total, all) = (count(first.try_get("total")?), count(first.try_get("groups")?));
    let group = |row: &PgRow| -> Result<Group, sqlx::Error> {
        let key = columns.iter().map(|column| row.try_get(*column)).collect::<Result<Key, _>>()?;
        Ok(Group { key, count: count(row.try_get("n")?), buckets: Vec::new() })
    };
    let mut groups = rows.iter().map(group).collect::<Result<Vec<_>, _>>()?;
    let mut missing = None;
    if !grouping.with_missing {
        let without = groups.extract_if(.., |group| group.key.iter().any(Option::is_none));
        missing = Some(without.map(|group| group.count).sum());
    }
    let more = cut(&mut groups, grouping) || all > rows.len() as u64;
    let shown: u64 = groups.iter().map(|group| group.count).sum();
    let other = total.saturating_sub(shown).saturating_sub(missing.unwrap_or(0));
    Ok(Tally { total, groups, other, missing, more, ..Tally::default() })
}

/// Adds what happened when to what was counted.
async fn over_time(
    read: &mut Transaction<'static, Postgres>,
    tenant: &Tenant,
    page: &Page,
    grouping: &Grouping,
    buckets: &Buckets,
    tally: &mut Tally,
) -> Result<(), CatalogError> {
    let schema = tenant.name().database_schema();
    let columns: Vec<&str> = grouping.by.iter().map(column).collect();
    let bin = format!("date_bin('{} microseconds'::interval, event_time, ", buckets.width);
    let place = |row: &PgRow| -> Result<Option<usize>, sqlx::Error> { Ok(buckets.place(micros(row.try_get("t")?))) };

    let mut sql = QueryBuilder::new(format!("SELECT {bin}"));
    sql.push_bind(date_time(buckets.start)).push(format_args!(") AS t, count(*) AS n FROM {schema}.logs WHERE true"));
    conditions(page).into_iter().for_each(|part| push(&mut sql, part));
    sql.push(" GROUP BY t");
    tally.buckets = vec![0; buckets.count];
    for row in sql.build().fetch_all(&mut **read).await? {
        if let Some(place) = place(&row)? {
            tally.buckets[place] += count(row.try_get("n")?);
        }
    }
    tally.other_buckets = tally.buckets.clone();
    if columns.is_empty() {
        for group in &mut tally.groups {
            group.buckets.clone_from(&tally.buckets);
        }
        tally.other_buckets = vec![0; buckets.count];
        return Ok(());
    }

    // Those without a value are in no line and not among the others.
    let absent = columns.iter().map(|column| format!("{column} IS NULL")).collect::<Vec<_>>().join(" OR ");
    let list = columns.iter().map(|column| format!("l.{column}")).collect::<Vec<_>>().join(", ");
    let mut sql = QueryBuilder::new(format!("SELECT {bin}"));
    sql.push_bind(date_time(buckets.start)).push(format_args!(") AS t, {list}, count(*) AS n FROM {schema}.logs l"));
    sql.push(" JOIN unnest(");
    for place in 0..columns.len() {
        let values: Key = tally.groups.iter().map(|group| group.key[place].clone()).collect();
        sql.push(if place > 0 { ", " } else { "" }).push_bind(values).push("::text[]");
    }
    let names: Vec<String> = (0..columns.len()).map(|place| format!("k{place}")).collect();
    let same = columns.iter().zip(&names).map(|(column, name)| format!("l.{column} IS NOT DISTINCT FROM top.{name}"));
    let same = same.collect::<Vec<_>>().join(" AND ");
    sql.push(format_args!(") AS top ({}) ON {same} WHERE true", names.join(", ")));
    conditions(page).into_iter().for_each(|part| push(&mut sql, part));
    sql.push(format_args!(" GROUP BY t, {list}"));
    for group in &mut tally.groups {
        group.buckets = vec![0; buckets.count];
    }
    for row in sql.build().fetch_all(&mut **read).await? {
        let key = columns.iter().map(|column| row.try_get(*column)).collect::<Result<Key, _>>()?;
        let group = tally.groups.iter_mut().find(|group| group.key == key);
        if let (Some(place), Some(group)) = (place(&row)?, group) {
            group.buckets[place] += count(row.try_get("n")?);
        }
    }
    for group in &tally.groups {
        less(&mut tally.other_buckets, &group.buckets);
    }
    if tally.missing.is_some_and(|missing| missing > 0) {
        let mut sql = QueryBuilder::new(format!("SELECT {bin}"));
        sql.push_bind(date_time(buckets.start)).push(format_args!(") AS t, count(*) AS n FROM {schema}.logs"));
        sql.push(format_args!(" WHERE ({absent})"));
        conditions(page).into_iter().for_each(|part| push(&mut sql, part));
        sql.push(" GROUP BY t");
        for row in sql.build().fetch_all(&mut **read).await? {
            if let Some(place) = place(&row)? {
                let other = &mut tally.other_buckets[place];
                *other = other.saturating_sub(count(row.try_get("n")?));
            }
        }
    }
    Ok(())
}

fn less(from: &mut [u64], counts: &[u64]) {
    for (from, count) in from.iter_mut().zip(counts) {
        *from = from.saturating_sub(*count);
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
