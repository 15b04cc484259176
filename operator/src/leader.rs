//! What only the operator does that leads: everything that writes.

use std::sync::Arc;

use crds::apikey::Pepper;
use futures::Stream;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::health::StoresUp;
use crate::metrics::OperatorMetrics;
use crate::plans::{self, Plans};
use crate::provision::{Claim, Stores};
use crate::scaler::{self, Pipelines};
use crate::settings::Settings;
use crate::{canary, default_pipeline, pipeline, platform, signing, sweep, tenant};

/// What a leader works with.
pub struct Work {
    /// The Kubernetes API.
    pub client: Client,
    /// The installation.
    pub settings: Settings,
    /// The plans as they are now.
    pub plans: watch::Receiver<Plans>,
    /// The stores.
    pub stores: Stores,
    /// Which stores answer.
    pub health: watch::Receiver<StoresUp>,
    /// Metrics.
    pub metrics: OperatorMetrics,
    /// What the installation is bound to.
    pub claim: Claim,
    /// Told when it is bound to something else by now: all of it has to end.
    pub displaced: CancellationToken,
}

/// Begins all of it. Each task ends by itself after `shutdown`, when what it has in flight is done;
/// dropping the set ends them at once.
pub fn begin(work: Work, shutdown: &CancellationToken) -> JoinSet<()> {
    let Work { client, settings, plans, mut stores, health, metrics, claim, displaced } = work;
    let mut tasks = JoinSet::new();
    let (pepper_sender, peppers) = watch::channel(Vec::new());
    let (publish, signed_by) = watch::channel(None);
    stores.registry = stores.registry.signed_by(signed_by);
    let keeper = signing::Keeper {
        client: client.clone(),
        settings: settings.clone(),
        stores: stores.clone(),
        publish,
        memory: Default::default(),
    };
    tasks.spawn(keeper.run(shutdown.clone()));
    tasks.spawn(platform::run(
        client.clone(),
        settings.clone(),
        stores.postgres.clone(),
        pepper_sender,
        health.clone(),
        (claim, displaced),
        shutdown.clone(),
    ));
    let reporter = Reporter { controller: "loggerhub-operator".to_owned(), instance: Some(settings.release.clone()) };
    let ctx = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        settings,
        plans: plans.clone(),
        stores,
        health: health.clone(),
        peppers: peppers.clone(),
        metrics,
        tenant_backoff: Default::default(),
        pipeline_backoff: Default::default(),
        refused_since: Default::default(),
        unneeded_since: Default::default(),
    });
    let pipelines = Pipelines::default();
    let wake = |ctx: &Arc<Context>| wakes(Arc::clone(ctx), health.clone(), peppers.clone(), plans.clone());
    tasks.spawn(plans::project::run(Arc::clone(&ctx), plans.clone(), shutdown.clone()));
    tasks.spawn(tenant::run(Arc::clone(&ctx), wake(&ctx), shutdown.clone()));
    tasks.spawn(pipeline::run(Arc::clone(&ctx), pipelines.clone(), wake(&ctx), shutdown.clone()));
    tasks.spawn(default_pipeline::run(ctx.client.clone(), ctx.settings.clone(), shutdown.clone()));
    tasks.spawn(scaler::run(Arc::clone(&ctx), pipelines.clone(), shutdown.clone()));
    tasks.spawn(canary::run(Arc::clone(&ctx), pipelines, shutdown.clone()));
    tasks.spawn(sweep::run(ctx, shutdown.clone()));
    tasks
}

/// One item each time that what Tenants wait for is there: a store answers again, peppers are known,
/// the plans are others.
fn wakes(
    ctx: Arc<Context>,
    health: watch::Receiver<StoresUp>,
    peppers: watch::Receiver<Vec<Pepper>>,
    plans: watch::Receiver<Plans>,
) -> impl Stream<Item = ()> + Send + 'static {
    let before = *health.borrow();
    futures::stream::unfold((ctx, health, peppers, plans, before), |waits| async move {
        let (ctx, mut health, mut peppers, mut plans, mut before) = waits;
        loop {
            tokio::select! {
                changed = health.changed() => {
                    changed.ok()?;
                    let now = *health.borrow_and_update();
                    let recovered = now.recovered_since(before);
                    before = now;
                    if !recovered {
                        continue;
                    }
                }
                changed = peppers.changed() => changed.ok()?,
                () = next_plans(&mut plans) => {}
            }
            ctx.tenant_backoff.clear();
            ctx.pipeline_backoff.clear();
            return Some(((), (ctx, health, peppers, plans, before)));
        }
    })
}

/// Waits for other plans; for ever if nobody looks for them.
async fn next_plans(plans: &mut watch::Receiver<Plans>) {
    if plans.changed().await.is_err() {
        std::future::pending().await
    }
}
