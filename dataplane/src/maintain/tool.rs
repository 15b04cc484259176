//! `loggerhub verify` and `loggerhub rebuild`: run by hand or by a Job, with the settings of
//! `maintain`.
//!
//! They end with 0 if all is well, 1 if something differs or could not be restored, and 2 if they
//! could not do their work. What they found goes to standard output, the log to standard error.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use crds::TenantName;
use runtime::stores::Redis;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};
use tokio_util::sync::CancellationToken;

use super::pass::now;
use super::{Rooms, StoreSettings, VerifyOptions, rebuild, repair, verify};
use crate::event::{Micros, micros};
use crate::tenancy::{Registry, Tenant, TrustSettings};

/// Exit code: something differs, or could not be restored.
const DIFFERENT: u8 = 1;
/// Exit code: the work could not be done.
const FAILED: u8 = 2;
/// Longest wait for the registry: Redis answers at once or is away.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(15);

/// Form of what is printed.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object.
    Json,
}

/// Settings of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifySettings {
    /// Where the tenant's stores are.
    #[command(flatten)]
    pub stores: StoreSettings,
    /// Tenant whose stores are compared.
    #[arg(long, value_parser = parse_tenant)]
    pub tenant: TenantName,
    /// Compare what was accepted from this time on, such as 2026-01-31 or 2026-01-31T12:00:00Z;
    /// absent: from as far back as its retention goes.
    #[arg(long, value_parser = parse_time)]
    pub from: Option<Micros>,
    /// Compare what was accepted before this time; absent: until now.
    #[arg(long, value_parser = parse_time)]
    pub to: Option<Micros>,
    /// Restore rows and documents that can be restored, and remove documents that no row stands for.
    #[arg(long)]
    pub repair: bool,
    /// Differences that are listed; all are counted.
    #[arg(long, default_value_t = 100)]
    pub max_differences: usize,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Settings of `rebuild`.
#[derive(Args, Clone, Debug)]
pub struct RebuildSettings {
    /// Where the tenant's stores are.
    #[command(flatten)]
    pub stores: StoreSettings,
    /// Tenant that is rebuilt. The operator has provisioned it.
    #[arg(long, value_parser = parse_tenant)]
    pub tenant: TenantName,
    /// Restore what a catalog that is not empty lacks.
    #[arg(long)]
    pub into_existing: bool,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// A tool and what it is to do.
pub enum Tool {
    /// `loggerhub verify`.
    Verify(VerifySettings),
    /// `loggerhub rebuild`.
    Rebuild(RebuildSettings),
}

/// Does it, unless `stop` comes first: whatever was begun can be begun again.
pub async fn run(tool: Tool, stop: CancellationToken) -> ExitCode {
    let work = async {
        match tool {
            Tool::Verify(settings) => run_verify(settings).await,
            Tool::Rebuild(settings) => run_rebuild(settings).await,
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped before the end")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DIFFERENT),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn run_verify(settings: VerifySettings) -> anyhow::Result<bool> {
    let (rooms, tenant) = settings.stores.open(&settings.tenant).await?;
    let now = now();
    let span = (settings.from.unwrap_or(Micros::MIN), settings.to.unwrap_or(now));
    anyhow::ensure!(span.0 < span.1, "--from is not before --to");
    let options = VerifyOptions { span, max_differences: settings.max_differences };
    let report = if settings.repair {
        repair(&rooms, &tenant, options, now).await?
    } else {
        verify(&rooms, &tenant, options, now).await?
    };
    print(settings.output, &report, &report.to_string())?;
    Ok(report.is_clean())
}

async fn run_rebuild(settings: RebuildSettings) -> anyhow::Result<bool> {
    let (rooms, tenant) = settings.stores.open(&settings.tenant).await?;
    let rebuilt = rebuild(&rooms, &tenant, settings.into_existing, now()).await?;
    let mut text = format!(
        "tenant {}: {} batches restored from {} objects, {} batches indexed",
        rebuilt.tenant, rebuilt.batches, rebuilt.objects, rebuilt.indexed_batches
    );
    for reason in &rebuilt.unreadable {
        text.push_str("\n  ");
        text.push_str(reason);
    }
    print(settings.output, &rebuilt, &text)?;
    Ok(rebuilt.unreadable.is_empty())
}

/// Prints what was found: the value, or the text for people.
pub(crate) fn print(output: Output, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
    let text = match output {
        Output::Text => text.to_owned(),
        Output::Json => serde_json::to_string_pretty(value)?,
    };
    writeln!(std::io::stdout(), "{text}").context("print the report")
}

impl StoreSettings {
    /// The rooms, and the tenant as the registry has it.
    async fn open(&self, name: &TenantName) -> anyhow::Result<(Rooms, Arc<Tenant>)> {
        let redis = Redis::queue(&self.queue, &self.tls)?;
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let registry = loaded_registry(&redis, &self.trust, stop).await?;
        let tenant = registry.tenant(name).with_context(|| format!("no tenant {name} in the registry"))?;
        Ok((Rooms::new(self)?, tenant))
    }
}

/// The registry, once it is read; followed until `stop`.
pub(crate) async fn loaded_registry(
    redis: &Redis,
    trust: &TrustSettings,
    stop: CancellationToken,
) -> anyhow::Result<Registry> {
    let registry = Registry::follow(redis, trust, stop)?;
    let loaded = tokio::time::timeout(REGISTRY_TIMEOUT, registry.loaded()).await;
    loaded.context("the tenant registry in Redis does not answer, or the operator has not filled it")?;
    Ok(registry)
}

/// A tenant's name on the command line.
pub(crate) fn parse_tenant(name: &str) -> Result<TenantName, String> {
    name.parse().map_err(|error: crds::names::InvalidName| error.to_string())
}

/// A date, which is its beginning in UTC, or an RFC 3339 time.
fn parse_time(text: &str) -> Result<Micros, String> {
    let time = match Date::parse(text, format_description!("[year]-[month]-[day]")) {
        Ok(date) => date.with_time(Time::MIDNIGHT).assume_utc(),
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            format!("`{text}` is neither a date such as 2026-01-31 nor a time such as 2026-01-31T12:00:00Z")
        })?,
    };
    Ok(micros(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_rfc_3339() {
        assert_eq!(parse_time("2026-01-02"), Ok(1_767_312_000_000_000));
        assert_eq!(parse_time("2026-01-02T01:00:00+01:00"), Ok(1_767_312_000_000_000));
        for wrong in ["", "yesterday", "2026-13-01", "2026-01-02 01:00", "1767312000"] {
            assert!(parse_time(wrong).unwrap_err().contains("2026-01-31"), "{wrong}");
        }
    }
}
