//! `loggerhub try -f pipeline.yaml < lines`: what a pipeline's stages make of lines, and whether its tests
//! hold. The same code as in the processor and the operator; no store, no cluster.
//!
//! Ends with 0 if all is well, 1 if a test fails, and 2 if the stages can't be run.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use crds::LogPipeline;
use serde_json::{Value, json};
use stages::{Outcome, Pipeline, as_line, run_tests, shown};

/// Longest line that is read: what ingest takes for one event.
const MAX_LINE: u64 = 1024 * 1024;
/// Longest file: what the API server takes for one object.
const MAX_FILE: u64 = 3 * 1024 * 1024;

/// Exit code: a test fails.
const FAILS: u8 = 1;
/// Exit code: the stages can't be run, or something can't be read.
const UNUSABLE: u8 = 2;

/// Settings of `try`.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The LogPipeline, as YAML.
    #[arg(short, long)]
    pub file: PathBuf,
}

/// Runs the tests, then each line of standard input. Results go to standard output, one JSON object a
/// line; failures of tests to standard error.
pub fn run(settings: &Settings) -> ExitCode {
    match try_run(settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILS),
        Err(error) => {
            // Without the log's form: a person reads it.
            let _ignored = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn try_run(settings: &Settings) -> anyhow::Result<bool> {
    let mut yaml = String::new();
    let file = std::fs::File::open(&settings.file).with_context(|| format!("open {}", settings.file.display()))?;
    file.take(MAX_FILE).read_to_string(&mut yaml).with_context(|| format!("read {}", settings.file.display()))?;
    let spec = pipeline(&yaml).with_context(|| format!("read {}", settings.file.display()))?.spec;
    let pipeline = Pipeline::compile(&spec.stages)?;
    let now = crate::event::micros(time::OffsetDateTime::now_utc());
    let failures = run_tests(&pipeline, &spec.tests, now);
    let mut log = io::stderr().lock();
    for failure in &failures {
        writeln!(log, "{failure}")?;
    }
    writeln!(log, "{} of {} tests hold", spec.tests.len() - failures.len(), spec.tests.len())?;
    let input = io::stdin();
    if !input.is_terminal() {
        lines(&pipeline, now, input.lock(), &mut io::BufWriter::new(io::stdout().lock()))?;
    }
    Ok(failures.is_empty())
}

/// The LogPipeline in a YAML document. A field that it does not have is an error here: the API server would
/// drop it, and the stage would do less than it says.
fn pipeline(yaml: &str) -> anyhow::Result<LogPipeline> {
    let document: Value = serde_saphyr::from_str(yaml)?;
    anyhow::ensure!(document.get("kind").and_then(Value::as_str) == Some("LogPipeline"), "not a LogPipeline");
    let pipeline: LogPipeline = serde_json::from_value(document.clone()).context("not a LogPipeline")?;
    let known = serde_json::to_value(&pipeline.spec)?;
    match document.get("spec").and_then(|spec| unknown("spec", spec, &known)) {
        Some(path) => anyhow::bail!("a LogPipeline has no field `{path}`"),
        None => Ok(pipeline),
    }
}

/// Where the document says something that was not understood.
fn unknown(path: &str, said: &Value, known: &Value) -> Option<String> {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match (said, known) {
        (Value::Object(said), Value::Object(known)) => said.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match known.get(name) {
                Some(known) => unknown(&path, value, known),
                None => (!is_empty(value)).then_some(path),
            }
        }),
        (Value::Array(said), Value::Array(known)) => (0..)
            .zip(said.iter().zip(known))
            .find_map(|(at, (said, known))| unknown(&format!("{path}[{at}]"), said, known)),
        _ => None,
    }
}

fn lines(pipeline: &Pipeline, now: i64, mut input: impl BufRead, output: &mut impl Write) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if input.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).context("read a line")? == 0 {
            break;
        }
        anyhow::ensure!(line.len() as u64 <= MAX_LINE, "line {number} is longer than {MAX_LINE} bytes");
        let text = String::from_utf8_lossy(line.trim_ascii());
        if !text.is_empty() {
            writeln!(output, "{}", outcome(pipeline, &as_line(&text), now, number))?;
        }
    }
    output.flush().context("write what became of the lines")
}

fn outcome(pipeline: &Pipeline, line: &str, now: i64, number: u128) -> stages::Value {
    match pipeline.apply(line.as_bytes(), now, number) {
        Ok(Outcome::Event(event)) => stages::Value::Object(shown(&event)),
        Ok(Outcome::Dropped { stage }) => json!({"dropped_by": stage}).into(),
        Err(error) => json!({"error": {"code": error.code(), "message": error.to_string()}}).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINE: &str = "
apiVersion: loggerhub.io/v1alpha1
kind: LogPipeline
metadata: {name: default}
spec:
  stages:
    - name: health
      match: {fields: [{name: message, matches: ^GET /healthz}]}
      drop: {}
    - name: cards
      redact: {detectors: [CardNumber]}
";

    #[test]
    fn each_line_becomes_an_event_or_says_why_not() {
        let pipeline = Pipeline::compile(&pipeline(PIPELINE).unwrap().spec.stages).unwrap();
        let input = "{\"message\":\"a\",\"level\":\"warn\"}\n\nGET /healthz\n4111 1111 1111 1111\n{broken\n";
        let mut output = Vec::new();
        lines(&pipeline, 0, input.as_bytes(), &mut output).unwrap();
        let output: Vec<Value> =
            String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(output[0], json!({"message": "a", "level": "WARN", "service": "unknown"}));
        assert_eq!(output[1], json!({"dropped_by": "health"}));
        assert_eq!(output[2]["message"], "[card]");
        assert_eq!((output[3]["error"]["code"].as_str(), output.len()), (Some("invalid_json"), 4));
        let long = "x".repeat(2 * 1024 * 1024);
        assert!(lines(&pipeline, 0, long.as_bytes(), &mut Vec::new()).is_err());
    }

    #[test]
    fn the_documented_examples_are_what_they_say() {
        let page = std::fs::read_to_string("../docs/pipelines.md").unwrap();
        let mut examples = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let spec = pipeline(examples.next().unwrap()).unwrap().spec;
        let compiled = Pipeline::compile(&spec.stages).unwrap();
        assert_eq!((spec.tests.len(), run_tests(&compiled, &spec.tests, 1_767_323_045_000_000)), (2, vec![]));
        let redactions: Vec<stages::Stage> = serde_saphyr::from_str(examples.next().unwrap()).unwrap();
        assert_eq!(redactions.len(), 3);
        Pipeline::compile(&redactions).unwrap();
    }

    #[test]
    fn a_field_that_there_is_not_is_an_error_and_not_ignored() {
        for (from, to, said) in [
            ("detectors", "detector", "spec.stages[1].redact.detector"),
            ("  stages:", "  stage:", "spec.stage"),
            ("name: message", "field: message, name: message", "spec.stages[0].match.fields[0].field"),
            ("CardNumber", "Cards", "unknown variant"),
            ("LogPipeline", "Tenant", "not a LogPipeline"),
        ] {
            let error = pipeline(&PIPELINE.replace(from, to)).map(|found| found.spec);
            assert!(error.as_ref().is_err_and(|error| format!("{error:#}").contains(said)), "{to}: {error:?}");
        }
    }
}
