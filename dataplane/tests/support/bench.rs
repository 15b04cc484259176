//! A tenant of a test's own on a lane of its own, what is sent to it, and what its stores hold.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use crds::PipelineName;
use crds::names::PROCESSOR_DATABASE;
use dataplane::event::{Micros, new_batch_id};
use dataplane::maintain::{self, Rooms};
use dataplane::process::{self, Settings};
use dataplane::queue::entry::{BatchHeader, EventHeader, Header};
use dataplane::queue::{self, Budget, Lanes, Producer};
use dataplane::tenancy::{Peppers, Registry, Tenant};
use runtime::settings::AdminSettings;
use sqlx::PgPool;
use testkit::{Stores, eventually};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest wait for what takes milliseconds on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A tenant and its stores.
pub(crate) struct Bench {
    pub(crate) stores: Stores,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) admin: PgPool,
    pub(crate) lanes: Lanes,
    pub(crate) pipeline: PipelineName,
    producer: Producer,
    fixture: testkit::Tenant,
}

/// A processor that runs in this process, in a runtime of its own so that it can die as a whole.
pub(crate) struct Processor {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    /// `None` once it is shut down.
    runtime: Option<Runtime>,
}

impl Bench {
    /// A new tenant.
    pub(crate) async fn new(prefix: &str) -> anyhow::Result<Self> {
        Self::on(Stores::from_environment()?, prefix).await
    }

    /// A new tenant on these stores.
    pub(crate) async fn on(stores: Stores, prefix: &str) -> anyhow::Result<Self> {
        Self::of(stores, testkit::Tenant::named(prefix)).await
    }

    async fn of(stores: Stores, tenant: testkit::tenant::TenantBuilder) -> anyhow::Result<Self> {
        let pipeline: PipelineName = testkit::unique("lane").parse()?;
        let fixture = tenant.dedicated().on_pipeline(&pipeline).provision(&stores).await?;
        let registry = Registry::fixed([fixture.registered.clone()], Peppers::none());
        let tenant = registry.tenant(fixture.desired.name()).expect("it was given");
        let queue = stores.queue()?;
        let (producer, _) = Producer::start(&queue, CancellationToken::new())?;
        eventually("the queue answers", SOON, async || {
            ensure!(producer.health().answering);
            Ok(())
        })
        .await?;
        Ok(Self {
            tenant,
            admin: stores.postgres(PROCESSOR_DATABASE)?,
            lanes: Lanes::new(&queue)?,
            pipeline,
            producer,
            fixture,
            stores,
        })
    }

    /// A new tenant whose events are kept so many days in the index, and so many elsewhere.
    #[allow(dead_code, reason = "the tests of the processor keep everything")]
    pub(crate) async fn kept(prefix: &str, hot_days: i32, total_days: i32) -> anyhow::Result<Self> {
        Self::of(Stores::from_environment()?, testkit::Tenant::named(prefix).kept(hot_days, total_days)).await
    }

    /// Provisions the tenant again, as the operator does when something of it is gone.
    #[allow(dead_code, reason = "the tests of the processor lose nothing")]
    pub(crate) async fn reprovision(&self) -> anyhow::Result<()> {
        self.fixture.provision_again().await
    }

    /// Removes the tenant.
    pub(crate) async fn retire(self) -> anyhow::Result<()> {
        self.fixture.retire().await
    }

    /// Queues the lines as one request batch accepted now.
    pub(crate) async fn send(&self, lines: &[String]) -> anyhow::Result<BatchHeader> {
        let header = header(new_batch_id(), now(), lines);
        self.send_as(&header, lines).await?;
        Ok(header)
    }

    /// Queues the lines as one request batch accepted then.
    #[allow(dead_code, reason = "the tests of the processor send what is new")]
    pub(crate) async fn send_at(&self, accepted_at: Micros, lines: &[String]) -> anyhow::Result<BatchHeader> {
        let header = header(new_batch_id(), accepted_at, lines);
        self.send_as(&header, lines).await?;
        Ok(header)
    }

    /// Makes partitions of what was accepted from then on, as if the tenant were so old.
    #[allow(dead_code, reason = "the tests of the processor send what is new")]
    pub(crate) async fn keeps_from(&self, moment: Micros) -> anyhow::Result<()> {
        sqlx::query(
            "SELECT public.ensure_partitions($1, $2 + n * interval '1 day') FROM generate_series(0, 200) AS n
                     WHERE $2 + n * interval '1 day' <= now()",
        )
        .bind(self.tenant.name().database_schema())
        .bind(dataplane::event::date_time(moment))
        .execute(&self.admin)
        .await?;
        Ok(())
    }

    /// Queues the lines under this header.
    pub(crate) async fn send_as(&self, header: &BatchHeader, lines: &[String]) -> anyhow::Result<()> {
        self.send_to(&self.tenant, header, lines).await
    }

    /// Queues the lines for this tenant.
    pub(crate) async fn send_to(
        &self,
        tenant: &Arc<Tenant>,
        header: &BatchHeader,
        lines: &[String],
    ) -> anyhow::Result<()> {
        let batch = queue::Batch {
            tenant: Arc::clone(tenant),
            header: header.clone(),
            raw: lines.concat().into_bytes(),
            claim: Budget::new(1).claim(),
        };
        Ok(self.producer.send(batch).await?)
    }

    /// Queues these batches as one entry, as ingest does with what it gathers.
    pub(crate) async fn send_entry(&self, batches: &[BatchHeader], raw: &[u8]) -> anyhow::Result<()> {
        let header = postcard::to_stdvec(&Header { batches: batches.to_vec() })?;
        let events: usize = batches.iter().map(|batch| batch.events.len()).sum();
        let payload = zstd::encode_all(raw, 1)?;
        let lane = self.tenant.lane();
        let mut add = redis::pipe();
        add.atomic();
        add.cmd("XADD").arg(lane.stream()).arg(&["*", "v", "1", "t", self.tenant.name().as_str()]);
        add.arg("n").arg(events).arg("h").arg(header).arg("p").arg(&payload);
        add.cmd("INCRBY").arg(lane.events_counter()).arg(events);
        add.cmd("INCRBY").arg(lane.bytes_counter()).arg(payload.len());
        let _: redis::Value = add.query_async(&mut self.stores.queue()?.connection()?).await?;
        Ok(())
    }

    /// Settings of a processor of this tenant's pipeline.
    pub(crate) async fn settings(&self, consumer: &str) -> anyhow::Result<Settings> {
        Ok(Settings {
            admin: AdminSettings { admin_listen: ([127, 0, 0, 1], 0).into() },
            postgres: self.stores.as_data_role().await?,
            queue: self.stores.queue.clone(),
            cache: self.stores.cache.clone(),
            opensearch: self.stores.opensearch.clone(),
            tls: self.stores.tls.clone(),
            pipeline: self.pipeline.clone(),
            pipeline_generation: 1,
            stages: process::Stages::default(),
            consumer: consumer.to_owned(),
            batch_max_events: 2000,
            batch_max_bytes: 4 * 1024 * 1024,
            max_retries: 3,
            workers: 2,
            claim_idle_seconds: 1,
            spool: process::SpoolSettings::default(),
            trust: Default::default(),
        })
    }

    /// Starts a processor.
    pub(crate) async fn processor(&self, consumer: &str) -> anyhow::Result<Processor> {
        Processor::start(self.settings(consumer).await?).await
    }

    /// How many rows a statement about the tenant's schema counts; `{}` stands for the schema.
    pub(crate) async fn count(&self, statement: &str) -> anyhow::Result<i64> {
        let statement = statement.replace("{}", &self.tenant.name().database_schema());
        Ok(sqlx::query_scalar(&statement).fetch_one(&self.admin).await?)
    }

    /// Runs a statement in the tenant's schema as the administrator.
    pub(crate) async fn execute(&self, statement: &str) -> anyhow::Result<()> {
        let statement = statement.replace("{}", &self.tenant.name().database_schema());
        sqlx::query(&statement).execute(&self.admin).await?;
        Ok(())
    }

    /// Documents that the tenant's alias finds.
    pub(crate) async fn documents(&self) -> anyhow::Result<i64> {
        self.stores.documents(&self.tenant.name().index_alias()).await
    }

    /// Events that wait in the lanes.
    pub(crate) async fn backlog(&self) -> anyhow::Result<u64> {
        let lanes = self.lanes.status(std::slice::from_ref(&self.pipeline), 0).await?;
        Ok(lanes.iter().map(|lane| lane.events + lane.entries).sum())
    }

    /// Events and bytes that are billed, by the hour's roll-up.
    #[allow(dead_code, reason = "the tests of the processor bill nothing")]
    pub(crate) async fn used(&self) -> anyhow::Result<(i64, i64)> {
        let core = self.stores.postgres(crds::names::CORE_DATABASE)?;
        let statement = "SELECT coalesce(sum(events), 0)::bigint, coalesce(sum(bytes), 0)::bigint
                         FROM public.usage_hourly WHERE tenant = $1";
        Ok(sqlx::query_as(statement).bind(self.tenant.name().as_str()).fetch_one(&core).await?)
    }

    /// Counts the ledger as rolled up so far.
    #[allow(dead_code, reason = "the tests of the processor bill nothing")]
    pub(crate) async fn uses_counted(&self, ledger_id: i64) -> anyhow::Result<()> {
        let core = self.stores.postgres(crds::names::CORE_DATABASE)?;
        sqlx::query("INSERT INTO public.usage_watermarks (tenant, ledger_id) VALUES ($1, $2)")
            .bind(self.tenant.name().as_str())
            .bind(ledger_id)
            .execute(&core)
            .await?;
        Ok(())
    }

    /// Makes PostgreSQL forget which index is written to.
    #[allow(dead_code, reason = "the tests of the processor lose nothing")]
    pub(crate) async fn forget_series(&self) -> anyhow::Result<()> {
        let series = &self.tenant.registered().index_series;
        sqlx::query("DELETE FROM public.index_series WHERE series = $1").bind(series).execute(&self.admin).await?;
        Ok(())
    }

    /// Waits until the index has everything: what a processor gave up on a busy machine, too.
    #[allow(dead_code, reason = "the tests of the processor index by themselves")]
    pub(crate) async fn indexed(&self, rooms: &Rooms) -> anyhow::Result<()> {
        self.indexed_within(rooms, 4 * SOON).await
    }

    /// The same, for as long as this.
    #[allow(dead_code, reason = "the tests of the processor index by themselves")]
    pub(crate) async fn indexed_within(&self, rooms: &Rooms, within: Duration) -> anyhow::Result<()> {
        eventually("the index has every batch", within, async || {
            self.execute("UPDATE {}.batches SET stored_at = stored_at - interval '1 minute' WHERE indexed_at IS NULL")
                .await?;
            maintain::late_index(rooms, &self.tenant, now()).await?;
            ensure!(self.count("SELECT count(*) FROM {}.batches WHERE indexed_at IS NULL").await? == 0);
            Ok(())
        })
        .await
    }

    /// Waits until nothing waits in the lanes.
    pub(crate) async fn drained(&self) -> anyhow::Result<()> {
        self.drained_within(SOON).await
    }

    /// The same, for as long as this.
    pub(crate) async fn drained_within(&self, within: Duration) -> anyhow::Result<()> {
        eventually("the lanes are empty", within, async || {
            let backlog = self.backlog().await?;
            ensure!(backlog == 0, "{backlog} still wait");
            Ok(())
        })
        .await
    }

    /// Checks that these many events stand in every store, once.
    pub(crate) async fn holds(&self, events: i64) -> anyhow::Result<()> {
        ensure!(self.count("SELECT count(*) FROM {}.logs").await? == events, "rows");
        let billed = self.count("SELECT coalesce(sum(events), 0)::bigint FROM {}.usage_ledger").await?;
        ensure!(billed == events, "billed {billed}");
        let documents = self.documents().await?;
        ensure!(documents == events, "{documents} documents");
        Ok(())
    }
}

impl Processor {
    /// Starts a processor with these settings.
    pub(crate) async fn start(settings: Settings) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = runtime.spawn(async move {
            let listener = settings.admin.bind().await?;
            process::run_on(listener, settings, stopped).await
        });
        Ok(Self { stop, task, runtime: Some(runtime) })
    }

    /// Stops it as a signal would, and waits for its end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        (&mut self.task).await?
    }

    /// Ends everything that it does in the middle, as a crash would.
    #[allow(dead_code, reason = "the tests of `maintain` kill none")]
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Processor {
    /// Not waited for: a test that fails is to say why, and not that a runtime can't be dropped in it.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bench {
    /// What `maintain` works with, as its own role.
    pub(crate) async fn rooms(&self) -> anyhow::Result<Rooms> {
        Ok(Rooms::new(&maintain::StoreSettings {
            postgres: self.stores.as_maintain_role().await?,
            queue: self.stores.queue.clone(),
            s3: self.stores.s3.clone(),
            opensearch: self.stores.opensearch.clone(),
            tls: self.stores.tls.clone(),
            trust: Default::default(),
        })?)
    }
}

/// The header of one request batch.
pub(crate) fn header(batch_id: Uuid, accepted_at: Micros, lines: &[String]) -> BatchHeader {
    let events = lines.iter().map(|line| EventHeader { length: line.len() as u32, time: None, rejected: None });
    BatchHeader { batch_id, accepted_at, key_id: "testkey".into(), body_hash: None, events: events.collect() }
}

/// `count` lines as a service sends them.
pub(crate) fn lines(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!(r#"{{"service":"checkout","level":"info","message":"payment {n} declined","n":{n}}}"#))
        .collect()
}

/// Now, in microseconds since 1970.
pub(crate) fn now() -> Micros {
    dataplane::event::micros(time::OffsetDateTime::now_utc())
}
