//! Which lanes a consumer reads, and who else is in their groups.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::PipelineName;
use crds::names::{CONSUMER_GROUP, Lane};
use redis::{RedisResult, Value};

use super::{Consumer, LaneReader};
use crate::queue::{Error, redis_error};

/// A consumer not heard of for this long, with nothing pending, is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

impl Consumer {
    /// Makes missing groups, takes up lanes of orphaned pipelines, forgets consumers long gone.
    pub(super) async fn housekeeping(&mut self) -> Result<(), Error> {
        let own: Vec<Lane> = self.settings.pipeline.lanes().collect();
        let orphaned: Vec<Lane> = if self.settings.pipeline == PipelineName::default_pipeline() {
            self.lanes.orphaned_pipelines().await?.iter().flat_map(PipelineName::lanes).collect()
        } else {
            Vec::new()
        };
        self.reading.retain(|reader| own.contains(&reader.lane) || orphaned.contains(&reader.lane));
        self.join(own, true).await?;
        // Nobody writes to the lanes of a pipeline that is gone: those that are not there stay so.
        self.join(orphaned, false).await?;
        self.forget_gone().await
    }

    /// Begins to read lanes, as a member of their groups; `make`: also where there is no stream yet.
    async fn join(&mut self, mut lanes: Vec<Lane>, make: bool) -> Result<(), Error> {
        lanes.retain(|lane| self.reading.iter().all(|reader| *reader.lane != *lane));
        if lanes.is_empty() {
            return Ok(());
        }
        // Redis at its memory limit makes no group, but says which there are.
        let mut look = redis::pipe();
        for lane in &lanes {
            look.cmd("XPENDING").arg(lane.stream()).arg(CONSUMER_GROUP);
        }
        let there: Vec<RedisResult<Value>> = self.pipelined(look).await.map_err(redis_error("look for groups"))?;
        for (lane, there) in lanes.into_iter().zip(there) {
            if there.is_err() && !self.make_group(&lane, make).await? {
                continue;
            }
            self.reading.push(LaneReader {
                lane: Arc::new(lane),
                own: Some("0".to_owned()),
                claim_from: super::FIRST.to_owned(),
            });
        }
        Ok(())
    }

    /// Makes a lane's group, or finds that there is none to be made now.
    async fn make_group(&mut self, lane: &Lane, make_stream: bool) -> Result<bool, Error> {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(lane.stream()).arg(CONSUMER_GROUP).arg("0");
        if make_stream {
            create.arg("MKSTREAM");
        }
        match create.query_async::<()>(&mut self.connection).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(true),
            Err(error) if error.code() == Some("OOM") || !make_stream => Ok(false),
            Err(source) => Err(Error::Redis { doing: "make a consumer group", source }),
        }
    }

    /// Forgets consumers long gone, where nothing is pending with them.
    async fn forget_gone(&mut self) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        for reader in &self.reading {
            pipe.cmd("XINFO").arg("CONSUMERS").arg(reader.lane.stream()).arg(CONSUMER_GROUP);
        }
        type Seen = HashMap<String, Value>;
        let lanes: Vec<RedisResult<Vec<Seen>>> = self.pipelined(pipe).await.map_err(redis_error("list consumers"))?;
        for (reader, consumers) in self.reading.iter().zip(lanes) {
            for mut seen in consumers.unwrap_or_default() {
                let mut take = |name| seen.remove(name).unwrap_or(Value::Nil);
                let idle = redis::from_redis_value::<u64>(take("idle")).unwrap_or(0);
                if let Ok(name) = redis::from_redis_value::<String>(take("name"))
                    && Duration::from_millis(idle) > FORGET_AFTER
                {
                    self.lanes.leave(&reader.lane, &name).await?;
                }
            }
        }
        Ok(())
    }
}
