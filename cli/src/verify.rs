//! `verify`: runs `loggerhub verify` where the stores can be reached: in a Job made from the pods of
//! `maintain`, which has their credentials. It is removed at the end, whatever the end is.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use tokio::time::{Instant, sleep, timeout};

use crate::args::{Global, VerifyArgs};
use crate::kubernetes::{Doing, Kubernetes, MANAGER};
use crate::output;

mod job;

use job::{KEPT, UNKNOWN, exit_code, job, phase, waits_for};

/// Longest wait until the Job's pod runs: a node may have to pull the image, or be made.
const START: Duration = Duration::from_secs(180);
/// Longest wait for the pod's end to be known once its log has ended.
const END: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the Job, and ends with the exit code of what it ran.
pub async fn run(global: &Global, args: VerifyArgs) -> ExitCode {
    match in_cluster(global, &args).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(UNKNOWN)
        }
    }
}

async fn in_cluster(global: &Global, args: &VerifyArgs) -> anyhow::Result<u8> {
    let kubernetes = Kubernetes::connect(global).await?;
    // Without this, a wrong name would be known only after a pod has started.
    kubernetes.tenant(args.tenant.as_str()).await?;
    let selected =
        ListParams::default().labels("app.kubernetes.io/name=loggerhub,app.kubernetes.io/component=maintain");
    let found = kubernetes.ours::<Deployment>().list(&selected).await;
    let found = found.doing("list", "deployments.apps", &kubernetes.namespace)?;
    let maintain = found.items.first();
    let maintain = maintain.with_context(|| format!("no Deployment of maintain in namespace {}", global.namespace))?;
    let job = job(maintain, args, global.output).context("the Deployment of maintain has no container")?;
    let jobs = kubernetes.ours::<Job>();
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
    let job = jobs.create(&params, &job).await.doing("create", "jobs.batch", &kubernetes.namespace)?.name_any();
    eprintln!("Job {}/{job} compares the stores of Tenant {}", kubernetes.namespace, args.tenant);

    let followed = tokio::select! {
        followed = timeout(args.timeout, follow(&kubernetes, &job)) => {
            followed.with_context(|| format!("it took longer than {} s: see --timeout", args.timeout.as_secs())).flatten()
        }
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and_then(|()| bail!("interrupted")),
    };
    let removed = jobs.delete(&job, &DeleteParams::background()).await;
    if let Err(error) = removed.doing("delete", "jobs.batch", &job) {
        eprintln!("the Job stays for {KEPT} s after its end: {error:#}");
    }
    followed
}

/// Prints what the Job prints, and gives back its exit code.
async fn follow(kubernetes: &Kubernetes, job: &str) -> anyhow::Result<u8> {
    let pods = kubernetes.ours::<Pod>();
    let of_job = ListParams::default().labels(&format!("job-name={job}"));
    let deadline = Instant::now() + START;
    let pod = loop {
        let found = pods.list(&of_job).await.doing("list", "pods", &kubernetes.namespace)?.items.into_iter().next();
        match found {
            Some(pod) if phase(&pod) != "Pending" => break pod.name_any(),
            pod if Instant::now() >= deadline => {
                let why = pod.as_ref().map_or("its pod could not be made: see the Job's events".to_owned(), waits_for);
                bail!("the Job has not started within {} s: {why}", START.as_secs())
            }
            _ => sleep(PAUSE).await,
        }
    };
    let log = pods.log_stream(&pod, &LogParams { follow: true, ..LogParams::default() }).await;
    let mut lines = pin!(log.doing("get", "pods/log", &pod)?.lines());
    while let Some(line) = lines.try_next().await.context("follow the Job's log")? {
        // Its standard error and standard output come as one: the log is one JSON object a line.
        if line.starts_with(r#"{"timestamp":"#) { eprintln!("{line}") } else { output::text(&format!("{line}\n"))? }
    }
    let deadline = Instant::now() + END;
    loop {
        let found = pods.get(&pod).await.doing("get", "pods", &pod)?;
        if let Some(code) = exit_code(&found) {
            return Ok(code);
        }
        if Instant::now() >= deadline {
            bail!("the Job's log has ended and its pod has not: {}", waits_for(&found));
        }
        sleep(PAUSE).await;
    }
}
