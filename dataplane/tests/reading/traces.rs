//! Traces of whole programs: a request that ingest takes, and the flush that stores it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::chaos::house::{House as Roles, Plan};
use testkit::collector::Collector;
use testkit::eventually;

/// Longest wait for spans, which are sent every five seconds.
const SOON: Duration = Duration::from_secs(60);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_flush_are_traced_and_no_line_of_it_is() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(testkit::unique("traces"));
    let variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), collector.url.clone())];
    let traced = ["ingest-0", "process-0", "process-1"].map(|child| (child, vec![variables.clone()]));
    let program = PathBuf::from(env!("CARGO_BIN_EXE_loggerhub"));
    let roles =
        Roles::build(Plan { program, folder, seed: 1, lives: traced.into(), flush_events: 100, small_disk: false })
            .await?;
    let tenant = &roles.tenants[0];
    // A process that has just started may lose the span of its very first request: `tracing` registers the place that
    // makes it at that moment. Traces are a sample of what happens, so a second request is as good.
    for _ in 0..2 {
        let answer = reqwest::Client::new()
            .post(format!("{}/logs", roles.ingest[0]))
            .bearer_auth(&tenant.key)
            .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
            .json(&serde_json::json!({"message": "whisper", "service": "traced"}))
            .send()
            .await?;
        ensure!(answer.status() == 202, "{}", answer.status());
    }

    let (request, flush) = eventually("both spans are sent", SOON, async || {
        let spans = collector.spans();
        let named = |service: &str, name: &str| {
            let span = spans.iter().find(|span| span.service == service && span.name == name).cloned();
            span.with_context(|| format!("no `{name}` in {spans:?}"))
        };
        Ok((named("loggerhub-ingest", "POST /logs")?, named("loggerhub-process", "flush")?))
    })
    .await?;
    assert_eq!((request.trace.as_str(), request.parent.as_str()), (TRACE, CALLER));
    assert_eq!(request.attributes["http.response.status_code"], "202");
    assert_eq!(flush.attributes["tenant.name"], tenant.desired.name().as_str());
    assert!(!request.failed && !flush.failed);
    let secret = tenant.key.rsplit('_').next().context("a key")?;
    let told = format!("{:?}", collector.spans());
    assert!(!told.contains(secret) && !told.contains("whisper"), "{told}");
    roles.pull_down().await
}
