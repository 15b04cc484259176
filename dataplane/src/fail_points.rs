//! Fail points: the places between two steps where a build for tests may die or stand still.
//!
//! Only a build with the feature `failpoints` can be told to; in what is shipped, [`reach`] is an
//! empty function. A point does to its process what a power cut or a debugger does: it neither
//! unwinds nor flushes anything.

/// A place between two steps, in the order in which a log line meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Ingest has read a request and has not queued it.
    IngestParsed,
    /// The batch is on Redis's disk, and its 202 is not sent.
    IngestQueued,
    /// A flush was read from the queue.
    ProcessRead,
    /// Its lines are events.
    ProcessMapped,
    /// The rows are sent, and their COPY has not ended.
    ProcessCopying,
    /// Everything of the transaction is written, and it is not committed.
    ProcessUncommitted,
    /// The catalog has the flush.
    ProcessStored,
    /// The index has it, and the catalog does not know.
    ProcessIndexed,
    /// All that is left is to acknowledge.
    ProcessMarked,
    /// The queue has forgotten the entries.
    ProcessAcknowledged,
    /// The next object's rows are noted.
    ArchiveNoted,
    /// The object is put, and no row points to it.
    ArchivePut,
    /// Its rows are stamped, and that is not committed.
    ArchiveUncommitted,
    /// The object is archived as a whole.
    ArchiveStamped,
    /// Batches to be indexed late were read.
    LateRead,
    /// The index has them, and the catalog does not know.
    LateIndexed,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::IngestParsed,
        Self::IngestQueued,
        Self::ProcessRead,
        Self::ProcessMapped,
        Self::ProcessCopying,
        Self::ProcessUncommitted,
        Self::ProcessStored,
        Self::ProcessIndexed,
        Self::ProcessMarked,
        Self::ProcessAcknowledged,
        Self::ArchiveNoted,
        Self::ArchivePut,
        Self::ArchiveUncommitted,
        Self::ArchiveStamped,
        Self::LateRead,
        Self::LateIndexed,
    ];

    /// Its name, which begins with the role that reaches it.
    pub fn name(self) -> &'static str {
        match self {
            Self::IngestParsed => "ingest.parsed",
            Self::IngestQueued => "ingest.queued",
            Self::ProcessRead => "process.read",
            Self::ProcessMapped => "process.mapped",
            Self::ProcessCopying => "process.copying",
            Self::ProcessUncommitted => "process.uncommitted",
            Self::ProcessStored => "process.stored",
            Self::ProcessIndexed => "process.indexed",
            Self::ProcessMarked => "process.marked",
            Self::ProcessAcknowledged => "process.acknowledged",
            Self::ArchiveNoted => "maintain.archive-noted",
            Self::ArchivePut => "maintain.archive-put",
            Self::ArchiveUncommitted => "maintain.archive-uncommitted",
            Self::ArchiveStamped => "maintain.archive-stamped",
            Self::LateRead => "maintain.late-read",
            Self::LateIndexed => "maintain.late-indexed",
        }
    }
}

/// Says that the process is at `point`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reach(_point: Point) {}

#[cfg(feature = "failpoints")]
pub use armed::{Order, arm, reach};

#[cfg(feature = "failpoints")]
mod armed {
    use std::process::{self, Command};
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::Point;

    /// What to do where: `POINT=kill@N` or `POINT=stop@N`, at the Nth time that the point is reached.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Order {
        point: Point,
        action: Action,
        at: u32,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        /// Die, as by SIGKILL.
        Kill,
        /// Stand still until SIGCONT.
        Stop,
    }

    static ORDER: OnceLock<Order> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);

    impl FromStr for Order {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            let wrong = || format!("`{text}` is not POINT=kill@N or POINT=stop@N");
            let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
            let (action, at) = rest.split_once('@').ok_or_else(wrong)?;
            let point = Point::ALL.into_iter().find(|point| point.name() == name).ok_or_else(wrong)?;
            let action = match action {
                "kill" => Action::Kill,
                "stop" => Action::Stop,
                _ => return Err(wrong()),
            };
            Ok(Self { point, action, at: at.parse().map_err(|_| wrong())? })
        }
    }

    /// Gives the process its order; only the first counts.
    pub fn arm(order: Order) {
        ORDER.get_or_init(|| order);
    }

    /// Says that the process is at `point`.
    pub fn reach(point: Point) {
        let Some(order) = ORDER.get().filter(|order| order.point == point) else { return };
        if REACHED.fetch_add(1, Ordering::SeqCst) + 1 != order.at {
            return;
        }
        match order.action {
            Action::Kill => process::abort(),
            Action::Stop => stand_still(),
        }
    }

    /// Stops the whole process, this thread first of all.
    fn stand_still() {
        let sent = Command::new("kill").args(["-STOP", &process::id().to_string()]).status();
        if !sent.is_ok_and(|status| status.success()) {
            process::abort();
        }
        // The signal may take a moment; the step after this one must not happen before it.
        thread::sleep(Duration::from_millis(200));
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn an_order_names_a_point_an_action_and_a_time() {
            let order: Order = "process.copying=stop@3".parse().unwrap();
            assert_eq!(order, Order { point: Point::ProcessCopying, action: Action::Stop, at: 3 });
            for wrong in ["", "process.copying", "process.copying=stop", "nowhere=kill@1", "process.read=kill@x"] {
                assert!(wrong.parse::<Order>().is_err(), "{wrong}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: HashSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }
}
