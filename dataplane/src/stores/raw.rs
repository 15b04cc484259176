//! Raw bytes by where they are: of one event, from the spool or by one ranged GET from the archive; and of many.

mod many;
mod plan;

pub use many::{Line, many};
pub use plan::portions;

use api::event::Source;

use crate::stores::archive::{self, Archive, unpack};
use crate::stores::read::{Catalog, CatalogError};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A frame of the spool.
    Spool(i64),
    /// An object of the archive.
    Object(i64),
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The catalog.
    #[error("find the raw bytes")]
    Catalog(#[from] CatalogError),
    /// The archive.
    #[error("read the raw bytes")]
    Archive(#[from] archive::Error),
    /// What was read is not what the catalog says.
    #[error("the raw bytes are not where the catalog says")]
    Damaged,
    /// They did not come in time.
    #[error("the raw bytes did not come in time")]
    TooSlow,
    /// What decompressed them is gone.
    #[error("the raw bytes were not decompressed to their end")]
    Broken,
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
pub async fn read(
    catalog: &Catalog,
    archive: &Archive,
    tenant: &Tenant,
    at: RawAt,
) -> Result<Option<(Vec<u8>, Source)>, RawError> {
    let (Ok(start), Ok(length)) = (u64::try_from(at.start), u64::try_from(at.length)) else {
        return Err(RawError::Damaged);
    };
    match at.place {
        None => Ok(None),
        Some(Place::Spool(spool_id)) => {
            let Some(frame) = catalog.spooled(tenant, spool_id).await? else { return Ok(None) };
            let bytes = unpack(&frame, start, length).ok_or(RawError::Damaged)?;
            Ok(Some((bytes, Source::Spool)))
        }
        Some(Place::Object(object_id)) => {
            let Some((key, frames)) = catalog.object(tenant, object_id).await? else { return Ok(None) };
            let bytes = archive.read(tenant, &key, &frames, start, length).await?;
            Ok(Some((bytes, Source::Archive)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: i64, length: i64) -> RawAt {
        RawAt { place: Some(Place::Object(1)), start, length }
    }

    #[test]
    fn a_path_says_where_the_bytes_are() {
        assert_eq!(at(5, 3).path("b", Some("logs/x")).unwrap(), "s3://b/logs/x#5-8");
        let spooled = RawAt { place: Some(Place::Spool(7)), ..at(5, 3) };
        assert_eq!(spooled.path("b", None).unwrap(), "spool:7");
    }
}
