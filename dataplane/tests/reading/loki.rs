//! The Loki API as Grafana and logcli use it: through the gateway, answered by the role search on real stores.

mod answers;
mod clients;
mod lines;
mod logcli;
mod metrics;
mod tail;

use dataplane::event::{Micros, rfc3339};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::gateway::gateway;
use crate::house::{House, Seat, Served, now};

const SECOND: Micros = 1_000_000;

/// A tenant's events behind a gateway.
pub(crate) struct Lokis {
    pub(crate) house: House,
    pub(crate) front: Served,
    pub(crate) stop: CancellationToken,
    /// When the events happened, or a whole second before.
    pub(crate) base: Micros,
    _search: Served,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) text: String,
}

impl Lokis {
    /// Events at so many microseconds after the base, of which the other fields are given.
    pub(crate) async fn with(events: &[(Micros, Value)]) -> anyhow::Result<Self> {
        let house = House::new().await?;
        let base = (now() - 600 * SECOND) / (60 * SECOND) * (60 * SECOND);
        let line = |(after, event): &(Micros, Value)| {
            let mut event = event.clone();
            event["timestamp"] = json!(rfc3339(base + after));
            event.to_string()
        };
        let lines: Vec<String> = events.iter().map(line).collect();
        let stored = house.store(&house.seats[0], &lines).await?;
        house.index(&house.seats[0], &stored).await?;
        let search = house.search().await?;
        let stop = CancellationToken::new();
        let front = gateway(&house, Some(&search), &stop).await?;
        Ok(Self { house, front, stop, base, _search: search })
    }

    pub(crate) fn own(&self) -> &Seat {
        &self.house.seats[0]
    }

    /// A time as clients send it, in nanoseconds.
    pub(crate) fn nanos(&self, after: Micros) -> String {
        ((self.base + after) * 1000).to_string()
    }

    /// A request as Grafana sends it, with the key as a password.
    pub(crate) async fn get(&self, path: &str, pairs: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.ask(reqwest::Method::GET, path, pairs, &[]).await
    }

    pub(crate) async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        pairs: &[(&str, &str)],
        headers: &[(&'static str, &str)],
    ) -> anyhow::Result<Answer> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("{}/loki/api/v1/{path}", self.front.url);
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let mut request = if method == reqwest::Method::POST {
            let form_type = "application/x-www-form-urlencoded";
            client.post(url).header("content-type", form_type).body(form)
        } else {
            client.request(method, format!("{url}?{form}"))
        };
        request = request.basic_auth("grafana", Some(&self.own().key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await?).await
    }

    /// A whole answer; an error if it is a refusal, or says that something is missing.
    pub(crate) async fn json(&self, path: &str, pairs: &[(&str, &str)]) -> anyhow::Result<Value> {
        let answer = self.get(path, pairs).await?;
        anyhow::ensure!(answer.status == 200, "{path} {pairs:?}: {} {}", answer.status, answer.text);
        let body: Value = serde_json::from_str(&answer.text)?;
        anyhow::ensure!(body.get("warnings").is_none(), "{path} {pairs:?}: {}", body["warnings"]);
        Ok(body)
    }

    /// The lines that a query finds within an hour around the base.
    pub(crate) async fn lines(&self, query: &str, further: &[(&str, &str)]) -> anyhow::Result<Vec<String>> {
        let (start, end) = (self.nanos(-1800 * SECOND), self.nanos(1800 * SECOND));
        let mut pairs = vec![("query", query), ("start", &*start), ("end", &*end), ("limit", "5000")];
        pairs.retain(|(name, _)| !further.iter().any(|(other, _)| other == name));
        pairs.extend(further);
        let body = self.json("query_range", &pairs).await?;
        let mut lines = Vec::new();
        for stream in body["data"]["result"].as_array().into_iter().flatten() {
            for entry in stream["values"].as_array().into_iter().flatten() {
                let time: i64 = entry[0].as_str().unwrap_or_default().parse()?;
                lines.push((time, entry[1].as_str().unwrap_or_default().to_owned()));
            }
        }
        let backward =
            !further.iter().any(|(name, value)| *name == "direction" && value.eq_ignore_ascii_case("forward"));
        lines.sort_by_key(|(time, _)| if backward { -time } else { *time });
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> anyhow::Result<Self> {
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().map(str::to_owned)).transpose()?;
        Ok(Self { status: response.status().as_u16(), kind: kind.unwrap_or_default(), text: response.text().await? })
    }

    /// Without what differs from run to run.
    pub(crate) fn without_stats(&self) -> String {
        let cut = self.text.find(r#","stats":{"summary""#).unwrap_or(self.text.len());
        self.text[..cut].to_owned()
    }
}
