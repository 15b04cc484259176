//! Structured logs on standard output, or on standard error for a program that prints: JSON for machines, or text for people.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

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

/// Begins to log; fails if the filter can't be read or a logger is already set.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    init_on(settings, BoxMakeWriter::new(std::io::stdout))
}

/// Like [`init`], for a program whose standard output is its answer.
pub fn init_on_stderr(settings: &LogSettings) -> anyhow::Result<()> {
    init_on(settings, BoxMakeWriter::new(std::io::stderr))
}

fn init_on(settings: &LogSettings, writer: BoxMakeWriter) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match settings.log_format {
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        LogFormat::Text => subscriber.try_init(),
    }
    .map_err(|error| anyhow::anyhow!("set up logging: {error}"))
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
