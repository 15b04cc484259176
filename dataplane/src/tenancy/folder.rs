//! Mounted folders with one file for each secret or key, its name an id: read, and looked at again and again, so that
//! a change there needs no restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtime::logging::chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Error;

/// Time between two looks: the kubelet itself takes up to a minute to mount a change.
const INTERVAL: Duration = Duration::from_secs(5);

/// Names and contents of the folder's files, less their line ends. Hidden entries (what Kubernetes mounts has
/// `..data`) are passed over.
pub(super) fn files(folder: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let id = file.file_name().to_string_lossy().into_owned();
        if id.starts_with('.') || !file.path().is_file() {
            continue;
        }
        let mut bytes = std::fs::read(file.path())?;
        while matches!(bytes.last(), Some(b'\r' | b'\n')) {
            bytes.pop();
        }
        files.push((id, bytes));
    }
    Ok(files)
}

/// How a folder is read.
pub(super) struct Content<T> {
    /// What it holds, for the log.
    pub(super) what: &'static str,
    /// Reads it.
    pub(super) load: fn(&Path) -> Result<T, Error>,
    /// Whether two readings are the same.
    pub(super) same: fn(&T, &T) -> bool,
}

/// What the folder holds, and from then on until `stop` whatever it holds. While it can't be read, the last stays.
pub(super) fn follow<T: Send + Sync + 'static>(
    folder: PathBuf,
    content: Content<T>,
    stop: CancellationToken,
) -> Result<watch::Receiver<Arc<T>>, Error> {
    let (publish, followed) = watch::channel(Arc::new((content.load)(&folder)?));
    tokio::spawn(stop.run_until_cancelled_owned(watch_folder(folder, content, publish)));
    Ok(followed)
}

async fn watch_folder<T: Send + Sync + 'static>(
    folder: PathBuf,
    Content { what, load, same }: Content<T>,
    publish: watch::Sender<Arc<T>>,
) {
    let mut failing = false;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let at = folder.clone();
        let Ok(loaded) = tokio::task::spawn_blocking(move || load(&at)).await else { return };
        match loaded {
            Ok(found) => {
                failing = false;
                let changed = publish.send_if_modified(|known| {
                    let changed = !same(known, &found);
                    if changed {
                        *known = Arc::new(found);
                    }
                    changed
                });
                if changed {
                    tracing::info!("read the {what} anew: they have changed");
                }
            }
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(error = chain(&error), "can't read the {what}: those of before stay");
            }
            Err(_) => {}
        }
    }
}
