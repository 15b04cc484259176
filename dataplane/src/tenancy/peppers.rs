//! The platform's peppers in a mounted Secret: one file each, its name the pepper's id. Looked at
//! again and again: a pepper that is added there is known without a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crds::apikey::Pepper;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::folder::{self, Content};

/// Fewest bytes of a pepper: 256 bits even if each byte held eight.
const MINIMUM_BYTES: usize = 32;

/// The peppers by id. It has no `Debug`, so that they cannot slip into a log.
#[derive(Clone)]
pub struct Peppers {
    by_id: BTreeMap<String, Pepper>,
    newest: Pepper,
}

impl Peppers {
    /// Reads the folder.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Peppers { folder: folder.display().to_string(), source };
        let files = folder::files(folder).map_err(failed)?;
        Self::new(files.into_iter().map(|(id, bytes)| Pepper { id, bytes }))
            .ok_or_else(|| Error::NoPepper { folder: folder.display().to_string(), minimum: MINIMUM_BYTES })
    }

    /// The folder's peppers, and from then on until `stop` whatever it holds. While it can't be read
    /// or holds no good ones, the last ones stay.
    pub fn follow(folder: PathBuf, stop: CancellationToken) -> Result<watch::Receiver<Arc<Self>>, Error> {
        folder::follow(folder, Content { what: "peppers", load: Self::load, same: Self::is_same }, stop)
    }

    /// These and never others.
    pub(super) fn unchanging(self) -> watch::Receiver<Arc<Self>> {
        // The sender is dropped: a receiver keeps the last value.
        watch::channel(Arc::new(self)).1
    }

    fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&Pepper, &Pepper)| a.id == b.id && a.bytes == b.bytes;
        self.by_id.len() == other.by_id.len() && self.by_id.values().zip(other.by_id.values()).all(same)
    }

    /// These peppers; `None` if there is none, or one is too short.
    pub fn new(peppers: impl IntoIterator<Item = Pepper>) -> Option<Self> {
        let by_id: BTreeMap<_, _> = peppers.into_iter().map(|pepper| (pepper.id.clone(), pepper)).collect();
        if by_id.values().any(|pepper| pepper.bytes.len() < MINIMUM_BYTES) {
            return None;
        }
        let newest = by_id.values().max_by(|a, b| a.age().cmp(&b.age()))?.clone();
        Some(Self { by_id, newest })
    }

    /// For a process that checks no keys: no pepper matches any key.
    pub fn none() -> Self {
        let bytes = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()].iter().flat_map(|id| *id.as_bytes()).collect();
        let newest = Pepper { id: "none".into(), bytes };
        Self { by_id: BTreeMap::new(), newest }
    }

    /// The pepper of this id.
    pub fn get(&self, id: &str) -> Option<&Pepper> {
        self.by_id.get(id)
    }

    /// The newest pepper, by its id: what new receipts are signed under.
    pub fn newest(&self) -> &Pepper {
        &self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_a_pepper_for_each_file_less_its_line_end() {
        let folder = std::env::temp_dir().join(format!("loggerhub-peppers-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("..data")).unwrap();
        std::fs::write(folder.join("p1"), "a".repeat(43) + "\n").unwrap();
        std::fs::write(folder.join("p2"), "b".repeat(43)).unwrap();
        let peppers = Peppers::load(&folder).unwrap();
        assert_eq!(peppers.get("p1").unwrap().bytes, vec![b'a'; 43]);
        assert_eq!(peppers.newest().id, "p2");
        std::fs::write(folder.join("p3"), "short").unwrap();
        assert!(matches!(Peppers::load(&folder), Err(Error::NoPepper { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(Peppers::load(&folder), Err(Error::Peppers { .. })));
    }
}
