//! One event's raw bytes: from the spool, or from the archive by one ranged GET.

use std::io::Read as _;

use aws_sdk_s3::Client;

use super::catalog::{Catalog, CatalogError, Object};
use super::show::Source;
use crate::tenancy::Tenant;

/// Where an event's raw bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawAt {
    /// The spool frame or the object; `None` if the catalog knows of neither.
    pub place: Option<Place>,
    /// First byte, counted in the raw bytes of that place.
    pub start: i64,
    /// How many bytes.
    pub length: i64,
}

/// What holds raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A frame of the spool.
    Spool(i64),
    /// An object of the archive.
    Object(i64),
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum RawError {
    /// The catalog.
    #[error("find the raw bytes")]
    Catalog(#[from] CatalogError),
    /// The object store.
    #[error("read object `{key}`")]
    Object {
        /// The object.
        key: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was read is not what the catalog says.
    #[error("the raw bytes are not where the catalog says")]
    Damaged,
    /// What was read is no zstd frame.
    #[error("decompress the raw bytes")]
    Decompress(#[source] std::io::Error),
}

impl RawAt {
    /// The place as clients see it: `spool:<id>`, or `s3://bucket/key#start-end` in raw bytes.
    pub fn path(&self, bucket: &str, key: Option<&str>) -> Option<String> {
        match (self.place?, key) {
            (Place::Spool(id), _) => Some(format!("spool:{id}")),
            (Place::Object(_), Some(key)) => {
                Some(format!("s3://{bucket}/{key}#{}-{}", self.start, self.start + self.length))
            }
            (Place::Object(_), None) => None,
        }
    }
}

/// The raw bytes of an event, and where they came from; `None` if they are there no more.
pub(super) async fn read(
    catalog: &Catalog,
    s3: &Client,
    tenant: &Tenant,
    at: RawAt,
) -> Result<Option<(Vec<u8>, Source)>, RawError> {
    match at.place {
        None => Ok(None),
        Some(Place::Spool(spool_id)) => {
            let Some(frame) = catalog.spooled(tenant, spool_id).await? else { return Ok(None) };
            Ok(Some((unpack(&frame, at.start, at.length)?, Source::Spool)))
        }
        Some(Place::Object(object_id)) => {
            let Some(object) = catalog.object(tenant, object_id).await? else { return Ok(None) };
            let range = frames_of(&object, at).ok_or(RawError::Damaged)?;
            let bytes = get(s3, &tenant.registered().archive.bucket, &object.key, range.bytes).await?;
            Ok(Some((unpack(&bytes, range.skip, at.length)?, Source::Archive)))
        }
    }
}

/// The part of an object that holds an event.
#[derive(Debug, PartialEq, Eq)]
struct Frames {
    /// First and last byte in the object.
    bytes: (i64, i64),
    /// Raw bytes before the event in what is read.
    skip: i64,
}

/// The frames that hold an event: one, or the next too where the event crosses their border.
fn frames_of(object: &Object, at: RawAt) -> Option<Frames> {
    let first = object.raw_starts.partition_point(|start| *start <= at.start).checked_sub(1)?;
    let after = object.raw_starts.partition_point(|start| *start < at.start + at.length);
    let bytes = (*object.starts.get(first)?, object.starts.get(after)? - 1);
    Some(Frames { bytes, skip: at.start - object.raw_starts[first] })
}

async fn get(s3: &Client, bucket: &str, key: &str, (first, last): (i64, i64)) -> Result<Vec<u8>, RawError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RawError::Object { key: key.to_owned(), source };
    let get = s3.get_object().bucket(bucket).key(key).range(format!("bytes={first}-{last}"));
    let object = get.send().await.map_err(|error| failed(error.into()))?;
    let bytes = object.body.collect().await.map_err(|error| failed(error.into()))?;
    Ok(bytes.into_bytes().into())
}

/// `length` bytes after `skip` of what zstd frames hold. Reads no further, so that its memory is the
/// event's, whatever the frames hold.
fn unpack(frames: &[u8], skip: i64, length: i64) -> Result<Vec<u8>, RawError> {
    let (skip, length) = (u64::try_from(skip), u64::try_from(length));
    let (Ok(skip), Ok(length)) = (skip, length) else { return Err(RawError::Damaged) };
    let mut reader = zstd::Decoder::with_buffer(frames).map_err(RawError::Decompress)?;
    let skipped = std::io::copy(&mut reader.by_ref().take(skip), &mut std::io::sink());
    let mut bytes = Vec::new();
    let read = reader.take(length).read_to_end(&mut bytes).map_err(RawError::Decompress)?;
    if skipped.map_err(RawError::Decompress)? == skip && u64::try_from(read) == Ok(length) {
        Ok(bytes)
    } else {
        Err(RawError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: i64, length: i64) -> RawAt {
        RawAt { place: Some(Place::Object(1)), start, length }
    }

    #[test]
    fn an_event_is_in_one_frame_or_crosses_into_the_next() {
        let object = Object { key: "k".into(), raw_starts: vec![0, 100, 200, 250], starts: vec![0, 40, 70, 90] };
        for (start, length, expected) in [
            (0, 10, Some(((0, 39), 0))),
            (90, 10, Some(((0, 39), 90))),
            (100, 1, Some(((40, 69), 0))),
            (90, 20, Some(((0, 69), 90))),
            (50, 200, Some(((0, 89), 50))),
            (249, 1, Some(((70, 89), 49))),
            (249, 2, None),
            (-1, 1, None),
        ] {
            let expected = expected.map(|(bytes, skip)| Frames { bytes, skip });
            assert_eq!(frames_of(&object, at(start, length)), expected, "{start}+{length}");
        }
    }

    #[test]
    fn bytes_are_cut_out_of_frames_end_to_end() {
        let mut frames = zstd::encode_all(&b"hello "[..], 1).unwrap();
        frames.extend(zstd::encode_all(&b"world"[..], 1).unwrap());
        assert_eq!(unpack(&frames, 3, 5).unwrap(), b"lo wo");
        assert_eq!(unpack(&frames, 0, 11).unwrap(), b"hello world");
        assert!(matches!(unpack(&frames, 8, 5), Err(RawError::Damaged)));
        assert!(matches!(unpack(b"nonsense", 0, 1), Err(RawError::Decompress(_))));
    }

    #[test]
    fn a_path_says_where_the_bytes_are() {
        assert_eq!(at(5, 3).path("b", Some("logs/x")).unwrap(), "s3://b/logs/x#5-8");
        let spooled = RawAt { place: Some(Place::Spool(7)), ..at(5, 3) };
        assert_eq!(spooled.path("b", None).unwrap(), "spool:7");
    }
}
