//! Entries that a processor set aside: held, without their bytes, and read again when their time comes.

use crds::names::CONSUMER_GROUP;
use redis::streams::StreamRangeReply;

use super::consumer::{Delivery, EntryRef};
use super::entry::{Entry, Fields};
use super::lanes::portions;
use super::{Error, Lanes, redis_error};

/// Entries that one call of a script takes: some tenths of a millisecond of Redis.
pub(super) const ENTRIES_A_CALL: usize = 256;

/// KEYS stream; ARGV group, consumer, then ids. What is still ours counts as never handed out.
pub(super) const FORGIVE: &str = r"
for i = 3, #ARGV do
    if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) == 1 then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'RETRYCOUNT', 0, 'JUSTID')
    end
end
return 0
";

impl Lanes {
    /// Takes it back that these entries were handed out: they wait for room, and nobody died of them.
    /// However often processors restart meanwhile, that makes none of them suspect.
    pub async fn forgive(&self, consumer: &str, entries: &[EntryRef]) -> Result<(), Error> {
        for (lane, entries) in portions(entries) {
            let mut call = self.scripts.forgive.prepare_invoke();
            call.key(lane.stream()).arg(CONSUMER_GROUP).arg(consumer);
            for entry in entries {
                call.arg(&entry.id);
            }
            let _: u64 =
                call.invoke_async(&mut self.connection.clone()).await.map_err(redis_error("set entries aside"))?;
        }
        Ok(())
    }

    /// Reads entries again. Those that are gone, because somebody else acknowledged them, come back
    /// apart, as the second.
    pub async fn read_again(&self, entries: Vec<(EntryRef, u64)>) -> Result<(Vec<Delivery>, Vec<EntryRef>), Error> {
        let mut pipe = redis::pipe();
        for (entry, _) in &entries {
            pipe.cmd("XRANGE").arg(entry.lane.stream()).arg(&entry.id).arg(&entry.id);
        }
        let doing = "read entries again";
        let replies: Vec<StreamRangeReply> =
            pipe.query_async(&mut self.connection.clone()).await.map_err(redis_error(doing))?;
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        for ((entry, deliveries), reply) in entries.into_iter().zip(replies) {
            match reply.ids.into_iter().next() {
                Some(read) => {
                    let fields: redis::RedisResult<Fields> = read
                        .map
                        .into_iter()
                        .map(|(name, value)| Ok((name.into_bytes(), redis::from_redis_value(value)?)))
                        .collect();
                    found.push((entry, deliveries, fields.map_err(redis_error(doing))?));
                }
                None => gone.push(entry),
            }
        }
        let decode = move || {
            let delivery = |(entry, deliveries, fields)| Delivery { entry, deliveries, content: Entry::decode(fields) };
            found.into_iter().map(delivery).collect()
        };
        match tokio::task::spawn_blocking(decode).await {
            Ok(deliveries) => Ok((deliveries, gone)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}
