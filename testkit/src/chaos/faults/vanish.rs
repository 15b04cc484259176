//! A store's machine that is gone without a word, and a Redis that is a replica from one moment to the next.
//!
//! A proxy stands for the machine: what is connected stays connected, the kernel's keepalives are answered, and no byte
//! ever comes again. So only our own time limits help, as where a firewall forgot a connection.

use std::time::Duration;

use anyhow::ensure;

use super::queue::accepts_again;
use super::{STRIKE, Struck};
use crate::chaos::house::House;
use crate::chaos::load::Load;
use crate::chaos::proxy::Proxy;
use crate::chaos::redis_server::RedisServer;
use crate::eventually;

/// Longer than the longest time limit of a call to the queue, after which a connection is given up.
const GIVEN_UP: Duration = Duration::from_secs(15);

/// What stood in connections is lost with them; its address leads to a machine that works. Twice: the second time in the
/// middle of what the first one left behind.
pub(super) async fn gone(proxy: &Proxy, load: &Load) -> anyhow::Result<Struck> {
    let mut struck = Struck::default();
    for _ in 0..2 {
        proxy.vanish();
        tokio::time::sleep(GIVEN_UP).await;
        accepts_again(load).await?;
        struck.seen.push("ingest accepts".to_owned());
    }
    Ok(struck)
}

/// Redis hands over to its replica and goes on as a replica of that, with every connection open: writes to it are
/// refused from now on. Its name leads to the new one. Then the same back again.
pub(super) async fn demoted(house: &House, load: &Load, other: &RedisServer) -> anyhow::Result<Struck> {
    let mut struck = Struck::default();
    for (from, to) in [(&house.redis, other), (other, &house.redis)] {
        let (host, port) = ("127.0.0.1", to.port.to_string());
        if role(to).await? != "slave" {
            to.command::<()>(&["REPLICAOF", host, &from.port.to_string()]).await?;
        }
        eventually("the replica follows", STRIKE, || async {
            let replication: String = to.command(&["INFO", "replication"]).await?;
            ensure!(replication.contains("master_link_status:up"), "{replication}");
            Ok(())
        })
        .await?;
        // It stops writes until the replica has everything.
        from.command::<()>(&["FAILOVER", "TO", host, &port]).await?;
        eventually("they have changed places", STRIKE, || async {
            let roles = (role(from).await?, role(to).await?);
            ensure!(roles == ("slave".to_owned(), "master".to_owned()), "{roles:?}");
            Ok(())
        })
        .await?;
        house.proxies.redis.lead_to(format!("{host}:{port}"));
        accepts_again(load).await?;
        struck.seen.push(format!("ingest writes to port {port}"));
    }
    Ok(struck)
}

async fn role(redis: &RedisServer) -> anyhow::Result<String> {
    let replication: String = redis.command(&["INFO", "replication"]).await?;
    let role = replication.lines().find_map(|line| line.strip_prefix("role:"));
    Ok(role.unwrap_or_default().trim().to_owned())
}
