//! What a comparison found, for people and for programs.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

/// How the stores can differ. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The archive has batches that the catalog does not know.
    ObjectUnknown,
    /// Lines of a batch have neither an event row nor a dead letter.
    RowsMissing,
    /// The catalog has rows that no line of a batch stands for, or that are both event and dead letter.
    RowsExtra,
    /// Rows say that their raw lines are where they are not.
    RowsMisplaced,
    /// A batch's raw lines are gone.
    RawMissing,
    /// A batch's raw lines are damaged.
    RawDamaged,
    /// What stands beside the raw lines is not what the catalog says of them.
    RawDiffers,
    /// The index lacks events that it had.
    DocumentsMissing,
    /// The index has documents that no row stands for.
    DocumentsExtra,
    /// The usage ledger lacks a batch, or has other bytes for it.
    UsageDiffers,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What kind it is of.
    pub kind: Kind,
    /// The batch, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<Uuid>,
    /// How many events, documents or batches.
    pub count: u64,
    /// Which, and where.
    pub detail: String,
}

/// What was compared, and what differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The tenant.
    pub tenant: String,
    /// Compared from this time of acceptance on.
    pub from: String,
    /// Up to this one.
    pub to: String,
    /// Batches compared.
    pub batches: u64,
    /// Event rows compared.
    pub events: u64,
    /// Dead letters compared.
    pub dead_letters: u64,
    /// Documents compared.
    pub documents: u64,
    /// Batches that the index is still to get.
    pub waiting_batches: u64,
    /// Objects read from one end to the other.
    pub objects: u64,
    /// Raw bytes of the batches.
    pub raw_bytes: u64,
    /// How many differences there are.
    pub difference_count: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// What was done about differences that an earlier comparison found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
}

/// What a repair did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repaired {
    /// Differences that the first comparison found.
    pub differences_before: u64,
    /// Batches restored from objects that the catalog did not know.
    pub batches: u64,
    /// Event rows restored.
    pub rows: u64,
    /// Batches indexed again, or for the first time.
    pub indexed_batches: u64,
    /// Documents removed.
    pub documents_removed: u64,
}

impl Report {
    /// Whether the stores agree.
    pub fn is_clean(&self) -> bool {
        self.difference_count == 0
    }

    /// Notes a difference; of more than `most`, only how many.
    pub(super) fn add(&mut self, difference: Difference, most: usize) {
        self.difference_count += 1;
        if self.differences.len() < most {
            self.differences.push(difference);
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ObjectUnknown => "object-unknown",
            Self::RowsMissing => "rows-missing",
            Self::RowsExtra => "rows-extra",
            Self::RowsMisplaced => "rows-misplaced",
            Self::RawMissing => "raw-missing",
            Self::RawDamaged => "raw-damaged",
            Self::RawDiffers => "raw-differs",
            Self::DocumentsMissing => "documents-missing",
            Self::DocumentsExtra => "documents-extra",
            Self::UsageDiffers => "usage-differs",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(batch_id) = self.batch_id {
            write!(f, " batch {batch_id}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tenant {}, accepted from {} to {}", self.tenant, self.from, self.to)?;
        writeln!(
            f,
            "{} batches: {} events, {} dead letters, {} documents, {} raw bytes, {} objects read",
            self.batches, self.events, self.dead_letters, self.documents, self.raw_bytes, self.objects
        )?;
        if self.waiting_batches > 0 {
            writeln!(f, "{} batches wait for the index: no difference", self.waiting_batches)?;
        }
        if let Some(done) = &self.repaired {
            writeln!(
                f,
                "repaired {} differences: {} batches and {} rows restored, {} batches indexed, {} documents removed",
                done.differences_before, done.batches, done.rows, done.indexed_batches, done.documents_removed
            )?;
        }
        for difference in &self.differences {
            writeln!(f, "  {difference}")?;
        }
        let unlisted = self.difference_count - self.differences.len() as u64;
        if unlisted > 0 {
            writeln!(f, "  and {unlisted} more: see --max-differences")?;
        }
        match self.difference_count {
            0 => write!(f, "the stores agree"),
            1 => write!(f, "1 difference"),
            count => write!(f, "{count} differences"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_lists_so_many_and_counts_the_rest() {
        let mut report = Report { tenant: "acme".into(), ..Report::default() };
        assert!(report.is_clean() && report.to_string().ends_with("the stores agree"));
        for count in 1..=3 {
            let batch_id = Some(Uuid::from_u128(7));
            report.add(Difference { kind: Kind::RowsMissing, batch_id, count, detail: "1 of 5 lines".into() }, 2);
        }
        let text = report.to_string();
        assert!(!report.is_clean() && text.contains("and 1 more") && text.ends_with("3 differences"), "{text}");
        assert!(text.contains("rows-missing batch 00000000-0000-0000-0000-000000000007: 1 of 5 lines"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["differences"][0]["kind"], "rows-missing");
        assert_eq!(json["differenceCount"], 3);
    }
}
