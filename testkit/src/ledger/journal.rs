//! The ledger on disk: what was sent, and every answer, one JSON object a line.
//!
//! A 202 counts from the moment at which its line is on disk, so that whoever checks afterwards
//! reads what was promised from here and from nowhere else.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Record {
    /// A request is about to leave.
    Sent {
        /// Its number.
        request: u64,
        /// Events in it, good or bad.
        events: usize,
        /// Checksum of its body.
        crc32c: u32,
    },
    /// It was answered with 202.
    Accepted {
        /// Its number.
        request: u64,
        /// The batch that the answer names.
        batch_id: Uuid,
        /// Events that the answer says are kept.
        accepted: u64,
        /// Lines that the answer says are dead letters.
        rejected: u64,
    },
    /// It was refused: nothing of it may be kept.
    Refused {
        /// Its number.
        request: u64,
        /// The HTTP status.
        status: u16,
        /// The stable code.
        code: String,
    },
    /// No answer, or one that promises nothing either way.
    Unknown {
        /// Its number.
        request: u64,
        /// What was seen instead.
        why: String,
    },
}

impl Record {
    fn request(&self) -> u64 {
        match self {
            Self::Sent { request, .. }
            | Self::Accepted { request, .. }
            | Self::Refused { request, .. }
            | Self::Unknown { request, .. } => *request,
        }
    }
}

/// What a request came to, all its attempts taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Every attempt was refused, or none was made: nothing may be kept.
    Refused,
    /// It may be kept, as a whole or not at all.
    Unknown,
    /// It is promised.
    Accepted {
        /// As which batch.
        batch_id: Uuid,
    },
}

/// The open ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    file: Arc<Mutex<File>>,
    path: PathBuf,
}

impl Journal {
    /// An empty ledger in place of what was there.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(path);
        let file = file.with_context(|| format!("make the ledger {}", path.display()))?;
        Ok(Self { file: Arc::new(Mutex::new(file)), path: path.to_owned() })
    }

    /// Appends a record; a 202 is on disk when this returns.
    pub async fn append(&self, record: Record) -> anyhow::Result<()> {
        let file = Arc::clone(&self.file);
        let write = move || {
            let mut line = serde_json::to_vec(&record)?;
            line.push(b'\n');
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(&line)?;
            if matches!(record, Record::Accepted { .. }) {
                file.sync_data()?;
            }
            Ok(())
        };
        tokio::task::spawn_blocking(write).await?
    }

    /// What every request in the file came to.
    pub fn fates(&self) -> anyhow::Result<BTreeMap<u64, Fate>> {
        let file = File::open(&self.path).with_context(|| format!("read the ledger {}", self.path.display()))?;
        let lines = BufReader::new(file).lines();
        let records = lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<anyhow::Result<Vec<Record>>>()?;
        fates(&records)
    }
}

/// What each request came to. One answered with two batches is an error: a resend under one
/// Idempotency-Key is the same batch.
fn fates(records: &[Record]) -> anyhow::Result<BTreeMap<u64, Fate>> {
    let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
    for record in records {
        let fate = fates.entry(record.request()).or_insert(Fate::Refused);
        *fate = match (record, *fate) {
            (Record::Accepted { request, batch_id, .. }, Fate::Accepted { batch_id: before }) => {
                anyhow::ensure!(*batch_id == before, "request {request} was answered with {before} and {batch_id}");
                *fate
            }
            (Record::Accepted { batch_id, .. }, _) => Fate::Accepted { batch_id: *batch_id },
            (Record::Unknown { .. }, Fate::Refused) => Fate::Unknown,
            (_, fate) => fate,
        };
    }
    Ok(fates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: Uuid = Uuid::from_u128(7);

    fn accepted(batch_id: Uuid) -> Record {
        Record::Accepted { request: 1, batch_id, accepted: 1, rejected: 0 }
    }

    #[test]
    fn a_request_is_what_its_best_answer_promises() {
        let sent = || Record::Sent { request: 1, events: 1, crc32c: 0 };
        let refused = || Record::Refused { request: 1, status: 503, code: "queue_full".into() };
        let unknown = || Record::Unknown { request: 1, why: "timeout".into() };
        let promised = Fate::Accepted { batch_id: BATCH };
        for (records, expected) in [
            (vec![sent(), refused()], Fate::Refused),
            (vec![sent(), unknown(), refused()], Fate::Unknown),
            (vec![sent(), refused(), unknown()], Fate::Unknown),
            (vec![sent(), unknown(), accepted(BATCH)], promised),
            (vec![sent(), accepted(BATCH), unknown(), refused(), accepted(BATCH)], promised),
        ] {
            assert_eq!(fates(&records).unwrap()[&1], expected, "{records:?}");
        }
        let error = fates(&[accepted(BATCH), accepted(Uuid::nil())]).unwrap_err().to_string();
        assert!(error.contains("request 1"), "{error}");
    }

    #[tokio::test]
    async fn the_ledger_is_read_back_from_its_file() {
        let path = std::env::temp_dir().join(crate::unique("ledger"));
        let journal = Journal::create(&path).unwrap();
        journal.append(Record::Sent { request: 1, events: 2, crc32c: 3 }).await.unwrap();
        journal.append(accepted(BATCH)).await.unwrap();
        journal.append(Record::Unknown { request: 2, why: "reset".into() }).await.unwrap();
        let fates = journal.fates().unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(fates, BTreeMap::from([(1, Fate::Accepted { batch_id: BATCH }), (2, Fate::Unknown)]));
    }
}
