//! Whether an object is still what was archived: its footer, and the checksum of every frame.

use std::ops::Range;

use super::object::unpack;
use super::{Archive, Error, Footer, Frames};
use crate::tenancy::Tenant;

/// Bytes of an object that are read at once.
const READ_BYTES: i64 = 8 * 1024 * 1024;

/// An object that was read from one end to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What it says of itself.
    pub footer: Footer,
    /// Raw bytes whose frames are damaged.
    pub damaged: Vec<Range<u64>>,
}

impl Archive {
    /// Reads every frame of an object of `size` bytes and compares it with the footer.
    pub async fn check(&self, tenant: &Tenant, key: &str, size: u64) -> Result<Checked, Error> {
        let footer = self.footer(tenant, key, size).await?;
        let places = footer.places();
        let mut damaged = Vec::new();
        for frames in reads(&places.starts) {
            let (first, last) = (places.starts[frames.start], places.starts[frames.end] - 1);
            let bytes = self.get(tenant, key, format!("bytes={first}-{last}")).await?;
            let (sums, places) = (footer.frames[frames.clone()].to_vec(), places.clone());
            let found = tokio::task::spawn_blocking(move || damaged_frames(&bytes, frames.start, &sums, &places));
            damaged.extend(found.await.map_err(|error| super::store_error("check object", key, error))?);
        }
        Ok(Checked { footer, damaged })
    }
}

/// Frames that are read together.
fn reads(starts: &[i64]) -> Vec<Range<usize>> {
    let frames = starts.len().saturating_sub(1);
    let mut reads: Vec<Range<usize>> = Vec::new();
    for frame in 0..frames {
        match reads.last_mut() {
            Some(read) if starts[frame + 1] - starts[read.start] <= READ_BYTES => read.end = frame + 1,
            _ => reads.push(frame..frame + 1),
        }
    }
    reads
}

/// The raw bytes of those frames that are not what the footer says. `bytes` begins with frame `first`.
fn damaged_frames(bytes: &[u8], first: usize, sums: &[(u32, u32, u32)], places: &Frames) -> Vec<Range<u64>> {
    let mut rest = bytes;
    let mut damaged = Vec::new();
    for (frame, (raw_length, length, checksum)) in (first..).zip(sums) {
        let (bytes, after) = rest.split_at((*length as usize).min(rest.len()));
        rest = after;
        let whole = crc32c::crc32c(bytes) == *checksum && unpack(bytes, 0, u64::from(*raw_length)).is_some();
        if !whole {
            let start = places.raw_starts[frame].unsigned_abs();
            damaged.push(start..start + u64::from(*raw_length));
        }
    }
    damaged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_together_up_to_a_bound() {
        const MIB: i64 = 1024 * 1024;
        for (starts, expected) in [
            (vec![], &[][..]),
            (vec![0], &[]),
            (vec![0, MIB], &[(0, 1)]),
            (vec![0, 4 * MIB, 8 * MIB, 9 * MIB], &[(0, 2), (2, 3)]),
            (vec![0, 20 * MIB, 21 * MIB], &[(0, 1), (1, 2)]),
        ] {
            let cut: Vec<(usize, usize)> = reads(&starts).iter().map(|read| (read.start, read.end)).collect();
            assert_eq!(cut, expected, "{starts:?}");
        }
    }

    #[test]
    fn a_damaged_frame_is_found_by_its_raw_bytes() {
        let frames: Vec<Vec<u8>> =
            ["one line", "another line"].iter().map(|text| zstd::bulk::compress(text.as_bytes(), 1).unwrap()).collect();
        let sums: Vec<(u32, u32, u32)> =
            frames.iter().zip([8, 12]).map(|(frame, raw)| (raw, frame.len() as u32, crc32c::crc32c(frame))).collect();
        let starts = vec![0, frames[0].len() as i64, (frames[0].len() + frames[1].len()) as i64];
        let places = Frames { raw_starts: vec![0, 8, 20], starts };
        let mut bytes = frames.concat();
        assert!(damaged_frames(&bytes, 0, &sums, &places).is_empty());
        let first =
            |bytes: &[u8]| damaged_frames(bytes, 0, &sums, &places).first().map(|range| (range.start, range.end));
        assert_eq!(first(&bytes[..bytes.len() - 1]), Some((8, 20)), "cut off");
        bytes[3] ^= 1;
        assert_eq!(first(&bytes), Some((0, 8)), "a bit");
    }
}
