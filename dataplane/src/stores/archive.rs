//! The archive: each tenant's raw lines in few large objects of the object store.
//!
//! The form of an object is in `object`, and whether one is still whole in `check`. A key and its bytes follow from what is archived, so an
//! object that was put twice is there once.

mod check;
mod object;
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::object::TRAILER_BYTES;

    /// Reads a footer whose checksum is right.
    pub(crate) fn read_footer(bytes: &[u8]) {
        let mut object = bytes.to_vec();
        let checksum = crc32c::crc32c(bytes).to_le_bytes();
        object.extend((bytes.len() as u64).to_le_bytes());
        object.extend(checksum);
        object.resize(bytes.len() + TRAILER_BYTES, 0);
        if let Some(footer) = super::object::read_footer(&object) {
            let places = footer.places();
            assert_eq!(places.starts.len(), footer.frames.len() + 1);
        }
    }
}

pub use check::Checked;
pub use object::{Builder, Built, Footer, FooterBatch, unpack};

use std::collections::HashMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use bytes::Bytes;
use runtime::stores::s3_put_timeouts;

use crate::tenancy::Tenant;

/// Why the archive did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store failed.
    #[error("{doing} `{key}`")]
    Store {
        /// What we were doing.
        doing: &'static str,
        /// The object.
        key: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such object.
    #[error("there is no object `{key}`")]
    Missing {
        /// The object.
        key: String,
    },
    /// The bytes are not what was archived.
    #[error("`{key}` is damaged: {reason}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Compression failed.
    #[error("compress an object")]
    Compress(#[from] std::io::Error),
    /// The footer can't be made.
    #[error("encode an object's footer")]
    Footer(#[from] postcard::Error),
}

/// What the store says of an object that it does not delete.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Objects that S3 deletes by one request.
pub const DELETED_AT_ONCE: usize = 1_000;

/// The archive of all tenants. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    client: Client,
}

/// Where an object's frames begin; one more entry marks the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// In the raw bytes.
    pub raw_starts: Vec<i64>,
    /// In the object.
    pub starts: Vec<i64>,
}

impl Archive {
    /// The archive behind this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Puts an object in place of itself, if it is there: within a time that its bytes take on a slow link.
    pub async fn put(&self, tenant: &Tenant, key: &str, bytes: Bytes) -> Result<(), Error> {
        let patient = aws_sdk_s3::config::Builder::new().timeout_config(s3_put_timeouts(bytes.len()));
        let put = self.client.put_object().bucket(bucket(tenant)).key(key).body(ByteStream::from(bytes));
        put.customize()
            .config_override(patient)
            .send()
            .await
            .map(|_| ())
            .map_err(|error| store_error("put object", key, error))
    }

    /// Removes an object; one that is gone already is success.
    pub async fn delete(&self, tenant: &Tenant, key: &str) -> Result<(), Error> {
        let delete = self.client.delete_object().bucket(bucket(tenant)).key(key);
        delete.send().await.map(|_| ()).map_err(|error| store_error("delete object", key, error))
    }

    /// Removes these objects, [`DELETED_AT_ONCE`] at most, by one request, or one by one where the store knows no such
    /// request. Gives back those that are gone, whoever removed them, and what went wrong with the first of the others.
    pub async fn delete_all(&self, tenant: &Tenant, keys: &[String]) -> (Vec<String>, Option<Error>) {
        let first = keys.first().map_or("", String::as_str);
        let named = keys.iter().map(|key| ObjectIdentifier::builder().key(key).build());
        let named = named.collect::<Result<Vec<_>, _>>();
        let delete = match named.and_then(|named| Delete::builder().set_objects(Some(named)).quiet(true).build()) {
            Ok(delete) => delete,
            Err(error) => return (Vec::new(), Some(store_error("name objects from", first, error))),
        };
        match self.client.delete_objects().bucket(bucket(tenant)).delete(delete).send().await {
            Ok(done) => {
                let left: HashMap<&str, &str> =
                    done.errors().iter().filter_map(|e| Some((e.key()?, e.code().unwrap_or("no code")))).collect();
                let gone = keys.iter().filter(|key| !left.contains_key(key.as_str())).cloned().collect();
                let failure =
                    left.iter().next().map(|(key, code)| store_error("delete object", key, Refused((*code).into())));
                (gone, failure)
            }
            // Not every store that speaks S3 knows this request.
            Err(error) if error.as_service_error().is_some() => self.delete_singly(tenant, keys).await,
            Err(error) => (Vec::new(), Some(store_error("delete objects from", first, error))),
        }
    }

    async fn delete_singly(&self, tenant: &Tenant, keys: &[String]) -> (Vec<String>, Option<Error>) {
        let mut gone = Vec::new();
        for key in keys {
            match self.delete(tenant, key).await {
                Ok(()) => gone.push(key.clone()),
                Err(error) => return (gone, Some(error)),
            }
        }
        (gone, None)
    }

    /// `length` raw bytes from `start`, by one ranged GET of the frames that hold them.
    pub async fn read(
        &self,
        tenant: &Tenant,
        key: &str,
        frames: &Frames,
        start: u64,
        length: u64,
    ) -> Result<Vec<u8>, Error> {
        let damaged = |reason| Error::Damaged { key: key.to_owned(), reason };
        let range = frames.range(start, length).ok_or_else(|| damaged("it has no such bytes"))?;
        let bytes = self.get(tenant, key, format!("bytes={}-{}", range.first, range.last)).await?;
        object::unpack(&bytes, range.skip, length).ok_or_else(|| damaged("a frame can't be decompressed"))
    }

    /// Neighbouring frames, as they are in the object, by one ranged GET.
    pub(in crate::stores) async fn frames(
        &self,
        tenant: &Tenant,
        key: &str,
        frames: &Frames,
        which: std::ops::Range<usize>,
    ) -> Result<Vec<u8>, Error> {
        let damaged = || Error::Damaged { key: key.to_owned(), reason: "it has no such frames" };
        let start = |at: usize| frames.starts.get(at).ok_or_else(damaged);
        let (first, end) = (start(which.start)?, start(which.end)?);
        self.get(tenant, key, format!("bytes={first}-{}", end - 1)).await
    }

    /// The footer of an object of `size` bytes: its batches and each line's length.
    pub async fn footer(&self, tenant: &Tenant, key: &str, size: u64) -> Result<Footer, Error> {
        let damaged = |reason| Error::Damaged { key: key.to_owned(), reason };
        let trailer_start =
            size.checked_sub(object::TRAILER_BYTES as u64).ok_or_else(|| damaged("it has no trailer"))?;
        let trailer = self.get(tenant, key, format!("bytes={trailer_start}-{}", size - 1)).await?;
        let length = object::footer_length(&trailer).ok_or_else(|| damaged("its trailer is not ours"))?;
        let start = trailer_start.checked_sub(length).ok_or_else(|| damaged("its footer is too long"))?;
        let footer = self.get(tenant, key, format!("bytes={start}-{}", size - 1)).await?;
        object::read_footer(&footer).ok_or_else(|| damaged("its footer can't be read"))
    }

    /// Every object of the tenant's logs, with its size, in the order of its first batch.
    pub async fn objects(&self, tenant: &Tenant) -> Result<Vec<(String, u64)>, Error> {
        let location = &tenant.registered().archive;
        let prefix = format!("{}logs/{}/", location.prefix, tenant.name());
        let mut pages = self.client.list_objects_v2().bucket(&location.bucket).prefix(&prefix).into_paginator().send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| store_error("list objects below", &prefix, error))?;
            for object in page.contents() {
                let Some(key) = object.key() else { continue };
                objects.push((key.to_owned(), object.size().unwrap_or(0).unsigned_abs()));
            }
        }
        Ok(objects)
    }

    async fn get(&self, tenant: &Tenant, key: &str, range: String) -> Result<Vec<u8>, Error> {
        let get = self.client.get_object().bucket(bucket(tenant)).key(key).range(range);
        let object = get.send().await.map_err(|error| match error.as_service_error() {
            Some(GetObjectError::NoSuchKey(_)) => Error::Missing { key: key.to_owned() },
            _ => store_error("get object", key, error),
        })?;
        let bytes = object.body.collect().await.map_err(|error| store_error("read object", key, error))?;
        Ok(bytes.into_bytes().into())
    }
}

/// The part of an object that holds some raw bytes.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    /// First byte in the object.
    first: i64,
    /// Last byte in the object.
    last: i64,
    /// Raw bytes in front of the wanted ones.
    skip: u64,
}

impl Frames {
    fn range(&self, start: u64, length: u64) -> Option<Range> {
        let span = self.span(start, length)?;
        let skip = u64::try_from(i64::try_from(start).ok()? - self.raw_starts.get(span.start)?).ok()?;
        Some(Range { first: *self.starts.get(span.start)?, last: self.starts.get(span.end)? - 1, skip })
    }

    /// The frames that hold these raw bytes.
    pub(in crate::stores) fn span(&self, start: u64, length: u64) -> Option<std::ops::Range<usize>> {
        let begin = i64::try_from(start).ok()?;
        let end = begin.checked_add(i64::try_from(length).ok()?)?;
        let first = self.raw_starts.partition_point(|at| *at <= begin).checked_sub(1)?;
        let after = self.raw_starts.partition_point(|at| *at < end).max(first + 1);
        (after < self.raw_starts.len() && after < self.starts.len()).then_some(first..after)
    }
}

fn bucket(tenant: &Tenant) -> &str {
    &tenant.registered().archive.bucket
}

fn store_error(doing: &'static str, key: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Store { doing, key: key.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_are_in_one_frame_or_in_neighbours() {
        let frames = Frames { raw_starts: vec![0, 100, 200, 250], starts: vec![0, 40, 70, 90] };
        for (start, length, expected) in [
            (0, 100, Some((0, 39, 0))),
            (100, 1, Some((40, 69, 0))),
            (150, 100, Some((40, 89, 50))),
            (249, 1, Some((70, 89, 49))),
            (100, 0, Some((40, 69, 0))),
            (249, 2, None),
            (300, 1, None),
        ] {
            let expected = expected.map(|(first, last, skip)| Range { first, last, skip });
            assert_eq!(frames.range(start, length), expected, "{start}+{length}");
        }
    }
}
