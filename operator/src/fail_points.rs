//! Where the operator may die or stand still in tests: see [`runtime::fail_points`]. They stand in the
//! order in which a Tenant meets them, as far as the stores are not worked on at once.

runtime::fail_points! {
    /// The Tenant has its finalizer, and nothing else has happened.
    Finalized = "create.finalized",
    /// The registry row is there.
    Registered = "create.registered",
    /// The bucket is made and carries no marker.
    BucketMade = "create.bucket-made",
    /// The bucket is marked and has no lifecycle.
    BucketMarked = "create.bucket-marked",
    /// The object store is done.
    BucketDone = "create.bucket-done",
    /// The schema is built, and that is not committed.
    SchemaUncommitted = "create.schema-uncommitted",
    /// The schema is there.
    SchemaBuilt = "create.schema-built",
    /// The series of indices is registered and has none.
    SeriesRegistered = "create.series-registered",
    /// The index is made and has no alias.
    IndexMade = "create.index-made",
    /// The tenant's alias is on the index.
    AliasAdded = "create.alias-added",
    /// The key is in its Secret, and no store knows it.
    SecretWritten = "create.secret-written",
    /// The key is registered, and ingest does not know of it.
    KeysRegistered = "create.keys-registered",
    /// Ingest knows the tenant, and the Tenant's status does not say so.
    Projected = "create.projected",
    /// Ingest refuses, and the registry row says nothing of it.
    Refused = "delete.refused",
    /// The registry row says that the tenant is being deleted.
    Deleting = "delete.deleting",
    /// The keys are revoked in the registry, and ingest still knows the tenant.
    KeysRevoked = "delete.keys-revoked",
    /// Ingest has forgotten the tenant.
    Forgotten = "delete.forgotten",
    /// The documents are gone from the shared index, and the alias is there.
    DocumentsRemoved = "delete.documents-removed",
    /// The alias is gone, and an index of the tenant's own is there.
    AliasRemoved = "delete.alias-removed",
    /// OpenSearch is done.
    SearchRetired = "delete.search-retired",
    /// The bucket is empty and still there.
    ObjectsRemoved = "delete.objects-removed",
    /// The object store is done.
    BucketRemoved = "delete.bucket-removed",
    /// What the tenant has used is billed, and its ledger is there.
    UsageSettled = "delete.usage-settled",
    /// The schema is dropped, and that is not committed.
    SchemaUndropped = "delete.schema-undropped",
    /// The schema is gone, and the registry row is there.
    SchemaDropped = "delete.schema-dropped",
    /// All that is left is the finalizer.
    Concluded = "delete.concluded",
}

impl Point {
    /// Whether a Tenant meets it when it goes.
    pub fn is_of_deletion(self) -> bool {
        self.name().starts_with("delete.")
    }
}
