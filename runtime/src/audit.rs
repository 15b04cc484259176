//! The audit log: one line for each act that changes who may do what, or what is kept.
//!
//! Its lines go where the other lines go, under the target [`TARGET`], whatever the log filter says. They tell
//! who did what to what, and how it ended; never a key, only its id.

/// Target of the lines.
pub const TARGET: &str = "audit";

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A Tenant is in the registry that was not there.
    TenantCreated,
    /// Ingest refuses a Tenant's events because its spec says so.
    TenantSuspended,
    /// It takes them again.
    TenantResumed,
    /// A Tenant is gone; the outcome says what became of its data.
    TenantDeleted,
    /// A Tenant was let go without its stores being asked.
    TenantForceFinalized,
    /// A key works that did not.
    KeyIssued,
    /// A key works in place of another of its name.
    KeyRotated,
    /// A key does not work any more.
    KeyRevoked,
    /// A key stood in the registry that nobody issued, and was taken out.
    KeyForged,
    /// Dead letters are to be tried again.
    LettersRedriven,
    /// Dead letters are gone.
    LettersPurged,
}

impl Action {
    /// As it stands in a line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TenantCreated => "tenant_created",
            Self::TenantSuspended => "tenant_suspended",
            Self::TenantResumed => "tenant_resumed",
            Self::TenantDeleted => "tenant_deleted",
            Self::TenantForceFinalized => "tenant_force_finalized",
            Self::KeyIssued => "key_issued",
            Self::KeyRotated => "key_rotated",
            Self::KeyRevoked => "key_revoked",
            Self::KeyForged => "key_forged",
            Self::LettersRedriven => "letters_redriven",
            Self::LettersPurged => "letters_purged",
        }
    }
}

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act<'a> {
    /// Who: `operator`, or `key:` and the id of the API key.
    pub actor: &'a str,
    /// What was done.
    pub action: Action,
    /// Whose it is.
    pub tenant: &'a str,
    /// To what, such as a key's id.
    pub object: &'a str,
    /// How it ended.
    pub outcome: &'a str,
}

/// Writes an act that is done. What was begun and not done is a warning elsewhere.
pub fn tell(act: &Act<'_>) {
    let Act { actor, action, tenant, object, outcome } = *act;
    let action = action.as_str();
    tracing::info!(target: TARGET, actor, action, tenant.name = tenant, object, outcome, "{action} {object}: {outcome}");
}
