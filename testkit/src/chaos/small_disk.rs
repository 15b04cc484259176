//! Disks that are filled, and a file system in memory that is small enough for it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Room for what a run's Redis writes, which is less than the 64 MiB at which it would rewrite its file.
const SIZE: &str = "size=96m";
/// The file that takes what room there is.
const BALLAST: &str = "ballast";

/// The file system. It is unmounted when this is dropped, also while somebody still has a file of it open.
#[derive(Debug)]
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts one on a folder; needs to be root.
    pub fn mount(place: &Path) -> anyhow::Result<Self> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(place).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mount a file system on {}: {said}", place.display());
        Ok(Self { place: place.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.place
    }
}

/// Fills the disk that a folder is on, to the last page.
pub fn fill(folder: &Path) -> anyhow::Result<()> {
    let mut ballast = File::create(folder.join(BALLAST))?;
    let page = [0; 4096];
    loop {
        match ballast.write_all(&page) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error).context("fill the disk"),
        }
    }
}

/// Undoes [`fill`].
pub fn make_room(folder: &Path) -> anyhow::Result<()> {
    fs::remove_file(folder.join(BALLAST)).context("remove the ballast")
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.place).status().ok();
    }
}
