//! Structured logs on standard output, or on standard error for a program that prints: JSON for machines, or text for people.

use clap::{Args, ValueEnum};
use tracing::Subscriber;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::audit;
use crate::traces::{self, Traces};

/// How and how much to log.
#[derive(Args, Clone, Debug)]
pub struct LogSettings {
    /// Form of the log lines.
    #[arg(long, env = "LOGGERHUB_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Filter, such as `info` or `info,dataplane=debug`.
    #[arg(long, env = "LOGGERHUB_LOG", default_value = "info")]
    pub log: String,
}

/// Form of the log lines.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text.
    Text,
}

/// Begins to log, and to trace if the environment names a collector; fails if the filter can't be read or a
/// logger is already set. `service` is what traces call the program unless the environment does.
pub fn init(settings: &LogSettings, service: &str) -> anyhow::Result<Traces> {
    // Without its traces a program does all that it is for.
    let (traces, problem) = match Traces::from_environment(service) {
        Ok(traces) => (traces, None),
        Err(error) => (Traces::default(), Some(error)),
    };
    init_on(settings, BoxMakeWriter::new(std::io::stdout), &traces)?;
    if let Some(error) = problem {
        tracing::warn!("there are no traces: {}", chain(&error));
    }
    Ok(traces)
}

/// Begins to log on standard error, for a program whose standard output is its answer.
pub fn init_on_stderr(settings: &LogSettings) -> anyhow::Result<()> {
    init_on(settings, BoxMakeWriter::new(std::io::stderr), &Traces::default())
}

fn init_on(settings: &LogSettings, writer: BoxMakeWriter, traces: &Traces) -> anyhow::Result<()> {
    subscriber(settings, writer, traces)?.try_init().map_err(|error| anyhow::anyhow!("set up logging: {error}"))?;
    traces.begun();
    Ok(())
}

/// What takes log lines and the spans of traces, each kept from the other.
pub(crate) fn subscriber(
    settings: &LogSettings,
    writer: BoxMakeWriter,
    traces: &Traces,
) -> anyhow::Result<Box<dyn Subscriber + Send + Sync>> {
    let no_spans = format!("{}=off", traces::TARGET).parse::<Directive>()?;
    let all_acts = format!("{}=info", audit::TARGET).parse::<Directive>()?;
    let filter = EnvFilter::try_new(&settings.log)?.add_directive(no_spans).add_directive(all_acts);
    let lines = fmt::layer().with_writer(writer);
    let lines = match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let registry = tracing_subscriber::registry();
    Ok(match traces.layer() {
        // A filter of all is cheaper than one of each layer.
        None => Box::new(registry.with(lines).with(filter)),
        Some(spans) => Box::new(registry.with(lines.with_filter(filter)).with(spans)),
    })
}

/// An error and all its causes in one line, for the one place that logs it.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries print their cause themselves: say it once.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
