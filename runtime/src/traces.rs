//! Traces, sent over OTLP (HTTP, protobuf) to a collector that the standard environment names. Without one
//! they are off and cost nothing: no subscriber wants their spans, so none is made.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) switches them on; `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` with its `_ARG`, `OTEL_EXPORTER_OTLP_HEADERS`,
//! `OTEL_EXPORTER_OTLP_TIMEOUT` and `OTEL_BSP_*` mean what OpenTelemetry says.
//!
//! Spans wait in a queue of bounded length and are sent by a thread of its own. A span that finds it full is
//! dropped: nobody waits for a collector. No attribute holds a secret, a query or a log line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Instrument, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// Target of every span that is traced: what has it is in traces and not in logs, what has not, the
/// other way round.
pub const TARGET: &str = "traces";

/// Longest wait at the end for spans that are not sent yet.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Whether this process traces: what a router or a header is given for traces is left out, else.
static ON: AtomicBool = AtomicBool::new(false);

/// Sends what is still queued when it is dropped: to be kept until the process ends.
#[derive(Debug, Default)]
#[must_use = "traces end when this is dropped"]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// What the environment asks for; nothing, if it names no collector.
    #[expect(
        clippy::disallowed_methods,
        reason = "OpenTelemetry's own variables, most of which its crates read themselves"
    )]
    pub(crate) fn from_environment(service: &str) -> Result<Self, ExporterBuildError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if !wanted(variable) {
            return Ok(Self::default());
        }
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build()?;
        Ok(Self::over(exporter, service, variable("OTEL_SERVICE_NAME")))
    }

    /// The program `service`, which the environment may call otherwise.
    fn over(exporter: SpanExporter, service: &str, called: Option<String>) -> Self {
        let mut resource = Resource::builder_empty()
            .with_service_name(service.to_owned())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
        if let Some(name) = called {
            resource = resource.with_service_name(name);
        }
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
        Self(Some(provider.with_resource(resource.build()).build()))
    }

    /// The layer that takes the spans, if there is a collector.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + Send + Sync + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.as_ref()?.tracer("loggerhub");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        Some(layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO)))
    }

    /// Says that the layer is in place.
    pub(crate) fn begun(&self) {
        ON.store(self.0.is_some(), Ordering::Relaxed);
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        let Some(provider) = &self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans may not have been sent");
        }
    }
}

/// Whether there is a collector to send to.
fn wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is = |name, value: &str| variable(name).is_some_and(|is| is.eq_ignore_ascii_case(value));
    let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    named.iter().any(|name| variable(name).is_some())
        && !is("OTEL_SDK_DISABLED", "true")
        && !is("OTEL_TRACES_EXPORTER", "none")
}

/// The router with a span for each request, if this process traces.
pub fn traced(router: Router) -> Router {
    if ON.load(Ordering::Relaxed) { router.layer(from_fn(with_span)) } else { router }
}

/// Answers within a span, which goes on with the caller's trace.
async fn with_span(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    // Never the path itself: it may hold what somebody looks for.
    let route = path.as_ref().map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = request.method().as_str(),
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    let caller = TraceContextPropagator::new().extract(&Received(request.headers()));
    if caller.span().span_context().is_valid() {
        // It fails where no layer is: then nobody asks for the parent.
        span.set_parent(caller).ok();
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

/// Names the current span in the headers of a request that goes on from here, if this process traces.
pub fn pass_on(headers: &mut HeaderMap) {
    if ON.load(Ordering::Relaxed) {
        name(&Span::current(), headers);
    }
}

fn name(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Sent(headers));
}

struct Received<'a>(&'a HeaderMap);

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use testkit::collector::Collector;
    use tokio::net::TcpListener;
    use tower::ServiceExt;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;

    use super::*;
    use crate::audit::{self, Act, Action};
    use crate::logging::{LogFormat, LogSettings, subscriber};

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traces_to(url: &str) -> Traces {
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_endpoint(format!("{url}/v1/traces")).with_timeout(Duration::from_secs(1));
        Traces::over(exporter.build().unwrap(), "tested", None)
    }

    /// What is logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Makes this thread's spans and lines go there.
    fn set(traces: &Traces, lines: &Lines) -> tracing::subscriber::DefaultGuard {
        set_at("info", traces, lines)
    }

    fn set_at(log: &str, traces: &Traces, lines: &Lines) -> tracing::subscriber::DefaultGuard {
        let settings = LogSettings { log_format: LogFormat::Json, log: log.to_owned() };
        let lines = lines.clone();
        let writer = BoxMakeWriter::new(move || lines.clone());
        tracing::subscriber::set_default(subscriber(&settings, writer, traces).unwrap())
    }

    #[tokio::test]
    async fn a_request_is_a_span_of_its_callers_trace_and_is_sent_at_the_end() {
        let collector = Collector::start().await.unwrap();
        let (traces, lines) = (traces_to(&collector.url), Lines::default());
        let guard = set(&traces, &lines);
        let passed_on = Arc::<Mutex<HeaderMap>>::default();
        let seen = Arc::clone(&passed_on);
        let answer = async move || {
            tracing::info!("a line");
            name(&Span::current(), &mut seen.lock().unwrap());
            StatusCode::BAD_GATEWAY
        };
        let router = Router::new().route("/search/{id}", get(answer)).layer(from_fn(with_span));
        let request = Request::get("/search/secret?q=secret").header("traceparent", CALLER);
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        drop(guard);
        // Its thread waits for the collector, which is ours.
        tokio::task::spawn_blocking(|| drop(traces)).await.unwrap();

        let spans = collector.spans();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((span.service.as_str(), span.name.as_str(), span.failed), ("tested", "GET /search/{id}", true));
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (&CALLER[3..35], &CALLER[36..52]));
        assert_eq!(span.attributes["http.response.status_code"], "502");
        assert!(span.attributes.values().all(|value| !value.contains("secret")), "{span:?}");
        let goes_on = passed_on.lock().unwrap()["traceparent"].to_str().unwrap().to_owned();
        assert_eq!(goes_on, format!("00-{}-{}-01", span.trace, span.id));
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(logged.contains("a line") && !logged.contains("http.route"), "spans are not in logs: {logged}");
    }

    #[tokio::test]
    async fn what_the_caller_does_not_sample_is_not_sent() {
        let collector = Collector::start().await.unwrap();
        let traces = traces_to(&collector.url);
        let guard = set(&traces, &Lines::default());
        let router = Router::new().route("/", get(|| async {})).layer(from_fn(with_span));
        for sampled in ["00", "01"] {
            let request = Request::get("/").header("traceparent", format!("{}{sampled}", &CALLER[..53]));
            router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        }
        drop(guard);
        tokio::task::spawn_blocking(|| drop(traces)).await.unwrap();
        assert_eq!(collector.spans().len(), 1);
    }

    /// It ends at all: nobody waits for a collector that takes spans and never answers.
    #[tokio::test]
    async fn a_collector_that_hangs_holds_up_nobody() {
        let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let traces = traces_to(&format!("http://{}", silent.local_addr().unwrap()));
        let guard = set(&traces, &Lines::default());
        for _ in 0..10_000 {
            drop(tracing::info_span!(target: TARGET, "request"));
        }
        drop(guard);
        tokio::task::spawn_blocking(|| drop(traces)).await.unwrap();
    }

    #[test]
    fn without_a_collector_no_span_is_made() {
        let _guard = set(&Traces::default(), &Lines::default());
        assert!(tracing::info_span!(target: TARGET, "request").is_disabled());
        assert!(!tracing::info_span!("of a log").is_disabled());
    }

    #[test]
    fn a_collector_that_is_named_switches_traces_on() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces");
        for (environment, on) in [
            (vec![], false),
            (vec![("OTEL_SERVICE_NAME", "mine")], false),
            (vec![endpoint], true),
            (vec![of_traces], true),
            (vec![endpoint, ("OTEL_SDK_DISABLED", "TRUE")], false),
            (vec![endpoint, ("OTEL_TRACES_EXPORTER", "none")], false),
            (vec![endpoint, ("OTEL_TRACES_EXPORTER", "otlp")], true),
        ] {
            let variable = |name: &str| environment.iter().find(|one| one.0 == name).map(|one| one.1.to_owned());
            assert_eq!(wanted(variable), on, "{environment:?}");
        }
    }

    #[test]
    fn an_act_is_told_whatever_the_filter_says() {
        let lines = Lines::default();
        let guard = set_at("error,audit=off", &Traces::default(), &lines);
        tracing::warn!("too little");
        let action = Action::KeyIssued;
        audit::tell(&Act { actor: "operator", action, tenant: "acme", object: "1a2b", outcome: "main" });
        drop(guard);
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told: serde_json::Value = serde_json::from_str(logged.trim()).unwrap();
        let field = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        let fields = ["target", "actor", "action", "tenant.name", "object", "outcome"].map(field);
        assert_eq!(fields, ["audit", "operator", "key_issued", "acme", "1a2b", "main"], "{told}");
    }

    #[test]
    fn headers_are_left_alone_where_nothing_is_traced() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static("theirs"));
        pass_on(&mut headers);
        assert_eq!(headers["traceparent"], "theirs");
    }
}
