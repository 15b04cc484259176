//! `loggerhub requeue`: shows what lies in the queue's quarantine, and puts it back into its lanes.
//!
//! It ends with 0 if all is well, 1 if some of what was asked for is left, and 2 if it could not do its work. What it
//! found goes to standard output, the log to standard error.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use crds::{PipelineName, TenantName};
use runtime::settings::{QueueSettings, TlsSettings};
use runtime::stores::Redis;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::maintain::tool::{Output, loaded_registry, parse_tenant, print};
use crate::queue::entry::UNKNOWN_TENANT;
use crate::queue::{Error, Lanes, Quarantined};
use crate::tenancy::{Registry, TrustSettings};

/// Exit code: something is left.
const LEFT: u8 = 1;
/// Exit code: the work could not be done.
const FAILED: u8 = 2;

/// Settings of `requeue`.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where the queue is.
    #[command(flatten)]
    pub queue: QueueSettings,
    /// The certificates that stores are trusted by.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// Which entries of the registry are believed.
    #[command(flatten)]
    pub trust: TrustSettings,
    /// What is put back.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What is put back.
#[derive(Args, Clone, Debug)]
pub struct Wanted {
    /// Only entries of this tenant; absent: of all.
    #[arg(long, value_parser = parse_tenant)]
    pub tenant: Option<TenantName>,
    /// Only entries that are there for this reason, as the report names it; may be given several times.
    #[arg(long, default_value = UNKNOWN_TENANT)]
    pub reason: Vec<String>,
    /// Most entries that are put back.
    #[arg(long, default_value_t = 1_000)]
    pub limit: u64,
    /// Put them back. Without it nothing is changed. An entry knows its tenant's name, and not whether that was another
    /// tenant then: so the tenant has to be named.
    #[arg(long, requires = "tenant")]
    pub apply: bool,
}

/// Entries of one tenant that are there for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Whose they say that they are.
    pub tenant: String,
    /// Why they are there.
    pub reason: String,
    /// Whether the registry has the tenant: otherwise they would only come back.
    pub known: bool,
    /// Whether they were asked for.
    pub wanted: bool,
    /// How many there were.
    pub entries: u64,
    /// Their events.
    pub events: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// How many came from lanes of pipelines that no tenant uses any more: nobody would read them there.
    pub unread: u64,
    /// How many were put back.
    pub put_back: u64,
}

/// What was found, and done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether anything was to be changed.
    pub applied: bool,
    /// What was in quarantine.
    pub groups: Vec<Group>,
}

impl Report {
    /// Entries that were asked for and are still there.
    pub fn left(&self) -> u64 {
        self.groups.iter().filter(|group| group.wanted).map(|group| group.entries - group.put_back).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Group { tenant, reason, known, wanted, entries, events, bytes, unread, put_back } in &self.groups {
            write!(f, "{tenant:?}, {reason:?}: {entries} entries, {events} events, {bytes} bytes")?;
            if *unread > 0 {
                write!(f, "; {unread} entries stay: no tenant uses the pipeline of their lane")?;
            }
            writeln!(
                f,
                "{}",
                match (wanted, known, self.applied) {
                    (false, _, _) => "; not asked for".to_owned(),
                    (true, false, _) => "; stays: the registry does not have this tenant".to_owned(),
                    (true, true, false) => "; would be put back".to_owned(),
                    (true, true, true) => format!("; {put_back} put back"),
                }
            )?;
        }
        match (self.groups.is_empty(), self.applied) {
            (true, _) => write!(f, "the quarantine is empty"),
            (false, false) => write!(f, "nothing was changed: add --apply"),
            (false, true) => write!(f, "{} of what was asked for are left", self.left()),
        }
    }
}

/// Does it, unless `stop` comes first: whatever was begun can be begun again.
pub async fn run(settings: Settings, stop: CancellationToken) -> ExitCode {
    let done = tokio::select! {
        done = requeue_by(&settings) => done,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped before the end")),
    };
    match done {
        Ok(report) if report.applied && report.left() > 0 => ExitCode::from(LEFT),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn requeue_by(settings: &Settings) -> anyhow::Result<Report> {
    let redis = Redis::queue(&settings.queue, &settings.tls)?;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let registry = loaded_registry(&redis, &settings.trust, stop).await?;
    let lanes = Lanes::new(&redis)?;
    if settings.wanted.apply && lanes.is_full().await? {
        bail!("the queue is too full to take anything back: wait until processors have caught up");
    }
    let report = requeue(&lanes, &registry, &settings.wanted).await?;
    print(settings.output, &report, &report.to_string())?;
    Ok(report)
}

/// Looks through every quarantine, and puts back what is wanted, the oldest first.
pub async fn requeue(lanes: &Lanes, registry: &Registry, wanted: &Wanted) -> Result<Report, Error> {
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    let mut room = if wanted.apply { wanted.limit } else { 0 };
    for lane in lanes.quarantines().await? {
        let is_read = is_read(&lane.pipeline, registry);
        let mut last: Option<Quarantined> = None;
        loop {
            let page = lanes.quarantined(&lane, last.as_ref()).await?;
            let Some(newest) = page.last().cloned() else { break };
            last = Some(newest);
            for entry in page {
                let known = entry.tenant.parse().is_ok_and(|name| registry.tenant(&name).is_some());
                let asked_for = is_wanted(wanted, &entry);
                let put_back = asked_for && known && is_read && room > 0 && lanes.put_back(&entry).await?;
                room -= u64::from(put_back);
                let Quarantined { tenant, reason, events, bytes, .. } = entry;
                let group = groups.entry((tenant.clone(), reason.clone())).or_default();
                *group = Group {
                    tenant,
                    reason,
                    known,
                    wanted: asked_for,
                    entries: group.entries + 1,
                    events: group.events + events,
                    bytes: group.bytes + bytes,
                    unread: group.unread + u64::from(!is_read),
                    put_back: group.put_back + u64::from(put_back),
                };
            }
        }
    }
    Ok(Report { applied: wanted.apply, groups: groups.into_values().collect() })
}

/// Whether a pipeline has processors, or is waited for where everybody sees it.
fn is_read(pipeline: &PipelineName, registry: &Registry) -> bool {
    *pipeline == PipelineName::default_pipeline()
        || registry.tenants().iter().any(|tenant| tenant.registered().pipeline == *pipeline)
}

fn is_wanted(wanted: &Wanted, entry: &Quarantined) -> bool {
    wanted.tenant.as_ref().is_none_or(|tenant| tenant.as_str() == entry.tenant) && wanted.reason.contains(&entry.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_done_and_what_was_not() {
        let group = |tenant: &str, wanted, known, put_back| Group {
            tenant: tenant.into(),
            reason: UNKNOWN_TENANT.into(),
            known,
            wanted,
            entries: 3,
            events: 30,
            bytes: 300,
            unread: 0,
            put_back,
        };
        let groups = vec![group("a", true, true, 2), group("b", true, false, 0), group("c\n", false, true, 0)];
        let done = Report { applied: true, groups: groups.clone() };
        assert_eq!(done.left(), 4);
        let text = done.to_string();
        for part in [
            "\"a\", \"no such tenant\": 3 entries, 30 events, 300 bytes; 2 put back",
            "\"b\"",
            "stays",
            "\"c\\n\"",
            "not asked for",
            "4 of what",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let unread =
            Report { applied: true, groups: vec![Group { unread: 1, ..group("a", true, true, 2) }] }.to_string();
        assert!(unread.contains("300 bytes; 1 entries stay") && unread.contains("2 put back"), "{unread}");
        assert!(Report { applied: false, groups }.to_string().ends_with("add --apply"));
        assert!(Report::default().to_string().ends_with("is empty"));
    }
}
