//! Where a role may die or stand still in tests: see [`runtime::fail_points`]. A name begins with the
//! role that reaches the point; they stand in the order in which a log line meets them.

runtime::fail_points! {
    /// Ingest has read a request and has not queued it.
    IngestParsed = "ingest.parsed",
    /// The batch is on Redis's disk, and its 202 is not sent.
    IngestQueued = "ingest.queued",
    /// A flush was read from the queue.
    ProcessRead = "process.read",
    /// Its lines are events.
    ProcessMapped = "process.mapped",
    /// The rows are sent, and their COPY has not ended.
    ProcessCopying = "process.copying",
    /// Everything of the transaction is written, and it is not committed.
    ProcessUncommitted = "process.uncommitted",
    /// The catalog has the flush.
    ProcessStored = "process.stored",
    /// The index has it, and the catalog does not know.
    ProcessIndexed = "process.indexed",
    /// All that is left is to acknowledge.
    ProcessMarked = "process.marked",
    /// The queue has forgotten the entries.
    ProcessAcknowledged = "process.acknowledged",
    /// The next object's rows are noted.
    ArchiveNoted = "maintain.archive-noted",
    /// The object is put, and no row points to it.
    ArchivePut = "maintain.archive-put",
    /// Its rows are stamped, and that is not committed.
    ArchiveUncommitted = "maintain.archive-uncommitted",
    /// The object is archived as a whole.
    ArchiveStamped = "maintain.archive-stamped",
    /// Batches to be indexed late were read.
    LateRead = "maintain.late-read",
    /// The index has them, and the catalog does not know.
    LateIndexed = "maintain.late-indexed",
}
