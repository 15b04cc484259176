//! A file system in memory, small enough to be filled, for a server of a run's own.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Room for what a run's Redis writes, which is less than the 64 MiB at which it would rewrite its file.
const SIZE: &str = "size=96m";

/// The file system. It is unmounted when this is dropped, also while somebody still has a file of it open.
#[derive(Debug)]
pub struct SmallDisk {
    place: PathBuf,
}

/// A disk without room. There is room again when this is dropped.
#[derive(Debug)]
pub struct Full {
    ballast: PathBuf,
}

impl SmallDisk {
    /// Mounts one on a folder; needs to be root.
    pub fn mount(place: &Path) -> anyhow::Result<Self> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(place).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mount a file system on {}: {said}", place.display());
        Ok(Self { place: place.to_owned() })
    }

    /// Fills it to the last page.
    pub fn fill(&self) -> anyhow::Result<Full> {
        let full = Full { ballast: self.place.join("ballast") };
        let mut file = File::create(&full.ballast)?;
        let page = [0; 4096];
        loop {
            match file.write_all(&page) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(full),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        fs::remove_file(&self.ballast).ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.place).status().ok();
    }
}
