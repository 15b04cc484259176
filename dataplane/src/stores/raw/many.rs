//! Raw bytes of many events: each frame is fetched and decompressed once, neighbours by one request.

use std::sync::Arc;

use api::event::Source;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use runtime::logging::chain;

use super::plan::{Run, Stretch, Wanted, by_place, portions, runs};
use super::{Place, RawAt, RawError};
use crate::stores::archive::{self, Archive, Frames, unpack};
use crate::stores::read::Catalog;
use crate::tenancy::Tenant;

/// Requests to the object store at once, for one list of lines.
const AT_ONCE: usize = 4;
/// Compressed bytes of the spool that are held at once, unless one frame has more.
const SPOOL_BYTES: u64 = 8 * 1024 * 1024;
/// Most raw bytes of neighbouring frames: more than any line has, and than any frame.
const MAX_STRETCH_BYTES: usize = 64 * 1024 * 1024;

/// A raw line.
#[derive(Debug, Clone)]
pub struct Line {
    /// As it was stored.
    pub bytes: Bytes,
    /// Where it was.
    pub source: Source,
}

/// The raw bytes of many events, in the order in which they are asked for; `None` where they are gone, or damaged. They
/// are all in memory at once: callers cut long lists by [`portions`].
pub async fn many(
    catalog: &Catalog,
    archive: &Archive,
    tenant: &Tenant,
    at: &[RawAt],
) -> Result<Vec<Option<Line>>, RawError> {
    let (mut spooled, mut archived) = (Vec::new(), Vec::new());
    for (place, lines) in by_place(at) {
        match place {
            Place::Spool(id) => spooled.push((id, lines)),
            Place::Object(id) => archived.push((id, lines)),
        }
    }
    // One after the other: a connection to the catalog at a time.
    let from_spool = of_spool(catalog, tenant, spooled).await?;
    let from_archive = of_archive(catalog, archive, tenant, archived).await?;
    let mut lines = vec![None; at.len()];
    for (found, source) in [(from_spool, Source::Spool), (from_archive, Source::Archive)] {
        for (index, bytes) in found {
            lines[index] = Some(Line { bytes, source });
        }
    }
    Ok(lines)
}

/// Lines that were found, by their index.
type Found = Vec<(usize, Bytes)>;

async fn of_spool(catalog: &Catalog, tenant: &Tenant, wanted: Vec<(i64, Vec<Wanted>)>) -> Result<Found, RawError> {
    let mut found = Vec::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let ids: Vec<i64> = wanted.iter().map(|(id, _)| *id).collect();
    let sizes = catalog.spool_sizes(tenant, &ids).await?;
    let there = wanted.into_iter().filter_map(|(id, lines)| Some((id, *sizes.get(&id)?, lines)));
    for portion in portions(there, SPOOL_BYTES, |(_, size, _)| *size) {
        let ids: Vec<i64> = portion.iter().map(|(id, ..)| *id).collect();
        let mut frames = catalog.spool_frames(tenant, &ids).await?;
        let unpacked = aside(move || {
            let mut found = Vec::new();
            for (id, _, lines) in portion {
                // Archived between the two looks.
                let Some(frame) = frames.remove(&id) else { continue };
                match unpack_spooled(&frame, &lines) {
                    Some(lines) => found.extend(lines),
                    None => tracing::error!("the frame of spool row {id} can't be decompressed"),
                }
            }
            found
        });
        found.extend(unpacked.await?);
    }
    Ok(found)
}

async fn of_archive(
    catalog: &Catalog,
    archive: &Archive,
    tenant: &Tenant,
    wanted: Vec<(i64, Vec<Wanted>)>,
) -> Result<Found, RawError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = wanted.iter().map(|(id, _)| *id).collect();
    let mut objects = catalog.objects(tenant, &ids).await?;
    let requests: Vec<_> = wanted
        .into_iter()
        .filter_map(|(id, lines)| {
            let (key, frames) = objects.remove(&id)?;
            let runs = runs(&frames, lines);
            let (key, frames) = (Arc::new(key), Arc::new(frames));
            Some(runs.into_iter().map(move |run| (Arc::clone(&key), Arc::clone(&frames), run)))
        })
        .flatten()
        .collect();
    let read = requests.into_iter().map(|(key, frames, run)| async move {
        let bytes = match archive.frames(tenant, &key, &frames, run.frames.clone()).await {
            Ok(bytes) => bytes,
            Err(error @ (archive::Error::Missing { .. } | archive::Error::Damaged { .. })) => {
                tracing::error!(error = %chain(&error), "raw lines can't be read");
                return Ok(Vec::new());
            }
            Err(error) => return Err(RawError::from(error)),
        };
        aside(move || unpack_run(&bytes, &frames, run, &key)).await
    });
    stream::iter(read)
        .buffer_unordered(AT_ONCE)
        .try_fold(Vec::new(), |mut all, found| async move {
            all.extend(found);
            Ok(all)
        })
        .await
}

/// Megabytes of zstd stay off the threads that serve everything else.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RawError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RawError::Broken)
}

/// The lines of a spooled frame, which is decompressed up to the last of them.
fn unpack_spooled(frame: &[u8], lines: &[Wanted]) -> Option<Found> {
    let end = lines.iter().map(|line| line.end).max()?;
    let raw = unpack(frame, 0, end)?;
    Some(cut(raw, 0, lines))
}

fn unpack_run(bytes: &[u8], frames: &Frames, run: Run, key: &str) -> Found {
    let mut found = Vec::new();
    let Ok(mut decompressor) = zstd::bulk::Decompressor::new() else { return found };
    for stretch in &run.stretches {
        match unpack_stretch(&mut decompressor, bytes, frames, run.frames.start, stretch) {
            Some(lines) => found.extend(lines),
            None => tracing::error!("frames {:?} of `{key}` can't be decompressed", stretch.frames),
        }
    }
    found
}

/// The lines of a stretch; `bytes` are the object's from its frame `first` on.
fn unpack_stretch(
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    bytes: &[u8],
    frames: &Frames,
    first: usize,
    stretch: &Stretch,
) -> Option<Found> {
    let between = |starts: &[i64], from: usize, to: usize| usize::try_from(starts.get(to)? - starts.get(from)?).ok();
    let length = between(&frames.raw_starts, stretch.frames.start, stretch.frames.end)?;
    if length > MAX_STRETCH_BYTES {
        return None;
    }
    let mut raw = vec![0; length];
    let mut rest = raw.as_mut_slice();
    for frame in stretch.frames.clone() {
        let (from, to) = (between(&frames.starts, first, frame)?, between(&frames.starts, first, frame + 1)?);
        let (piece, after) = rest.split_at_mut_checked(between(&frames.raw_starts, frame, frame + 1)?)?;
        let written = decompressor.decompress_to_buffer(bytes.get(from..to)?, piece).ok()?;
        if written != piece.len() {
            return None;
        }
        rest = after;
    }
    let start = u64::try_from(*frames.raw_starts.get(stretch.frames.start)?).ok()?;
    Some(cut(raw, start, &stretch.lines))
}

/// Lines out of raw bytes that begin at `start`: as parts of them, or as copies where most of them would be kept for
/// nothing.
fn cut(raw: Vec<u8>, start: u64, lines: &[Wanted]) -> Found {
    let wanted: u64 = lines.iter().map(|line| line.end - line.start).sum();
    let copied = wanted < raw.len() as u64 / 2;
    let raw = Bytes::from(raw);
    let part = |line: &Wanted| {
        let from = usize::try_from(line.start.checked_sub(start)?).ok()?;
        let to = usize::try_from(line.end.checked_sub(start)?).ok()?;
        let bytes = raw.get(from..to)?;
        Some((line.index, if copied { Bytes::copy_from_slice(bytes) } else { raw.slice(from..to) }))
    };
    lines.iter().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of frames that are cut between lines and one that is not, and its lines.
    fn object() -> (Vec<u8>, Frames, Vec<(u64, String)>) {
        let lines: Vec<String> = (0..40).map(|n| format!("line {n} {}\n", "x".repeat(n))).collect();
        let raw = lines.concat();
        let starts: Vec<u64> =
            lines.iter().scan(0, |at, line| Some(std::mem::replace(at, *at + line.len() as u64))).collect();
        let mut frames = Frames { raw_starts: vec![0], starts: vec![0] };
        let mut object = Vec::new();
        for end in [starts[5], starts[17], starts[30] + 3, raw.len() as u64] {
            let from = frames.raw_starts[frames.raw_starts.len() - 1] as usize;
            object.extend(zstd::encode_all(&raw.as_bytes()[from..end as usize], 1).unwrap());
            frames.raw_starts.push(end as i64);
            frames.starts.push(object.len() as i64);
        }
        (object, frames, starts.into_iter().zip(lines).collect())
    }

    #[test]
    fn lines_are_what_they_were_whichever_frames_they_are_in() {
        let (object, frames, lines) = object();
        for (name, chosen) in [
            ("all", (0..40).collect::<Vec<_>>()),
            ("the first", vec![0]),
            ("the last", vec![39]),
            ("of two frames", vec![29, 30, 31]),
            ("far apart", vec![2, 38]),
        ] {
            let wanted = chosen.iter().enumerate().map(|(index, n)| {
                let (start, line) = &lines[*n];
                Wanted { start: *start, end: start + line.len() as u64, index }
            });
            let mut found = Vec::new();
            for run in runs(&frames, wanted.collect()) {
                let bytes = &object[frames.starts[run.frames.start] as usize..frames.starts[run.frames.end] as usize];
                found.extend(unpack_run(bytes, &frames, run, "key"));
            }
            found.sort();
            let expected: Vec<_> =
                chosen.iter().enumerate().map(|(index, n)| (index, Bytes::from(lines[*n].1.clone()))).collect();
            assert_eq!(found, expected, "{name}");
        }
        let mut damaged = object.clone();
        damaged[10] ^= 0xff;
        let run = || runs(&frames, vec![Wanted { start: 0, end: 5, index: 0 }]).remove(0);
        assert!(unpack_run(&damaged, &frames, run(), "key").is_empty());
        assert!(unpack_run(&object[..10], &frames, run(), "key").is_empty());
    }

    #[test]
    fn a_spooled_frame_is_read_up_to_the_last_line() {
        let frame = zstd::encode_all(&b"onetwothree"[..], 1).unwrap();
        let lines = [Wanted { start: 3, end: 6, index: 1 }, Wanted { start: 6, end: 11, index: 0 }];
        let found = unpack_spooled(&frame, &lines).unwrap();
        assert_eq!(found, [(1, Bytes::from("two")), (0, Bytes::from("three"))]);
        assert_eq!(unpack_spooled(&frame, &[Wanted { start: 6, end: 12, index: 0 }]), None);
        assert_eq!(unpack_spooled(b"no frame", &lines), None);
    }
}
