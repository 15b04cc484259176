//! The object store: a bucket for each tenant, or a prefix in a shared bucket, with an owner
//! marker and a lifecycle rule as the backstop of retention.
//!
//! A tenant's own bucket is marked by tags. In a shared bucket an object beside the prefixes is the
//! marker, where no lifecycle rule reaches it. A bucket that holds nothing and has no tags is taken: a crash between making and
//! marking leaves one.

use std::collections::BTreeMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier, Tag, Tagging};

use crds::names::ArchiveLocation;

use crate::fail_points::{Point, reach};
use crate::provision::marker::Ownership;
use crate::provision::{DesiredTenant, Error, Failure, Outcome, Owner, Retired};

mod lifecycle;

pub use lifecycle::Backstop;

const INSTALLATION_TAG: &str = "loggerhub-installation";
const TENANT_TAG: &str = "loggerhub-tenant";
const UID_TAG: &str = "loggerhub-uid";
/// Where the marker objects of a shared bucket are.
const MARKERS: &str = ".loggerhub/";
/// Pages of 1,000 objects that one `retire` removes: at 8 MiB and more an object, 160 GB; then the
/// caller shows progress and comes again.
const RETIRE_PAGES: usize = 20;

/// The object store.
#[derive(Clone)]
pub struct ObjectStore {
    client: Client,
}

/// Tags of a bucket, or why there are none.
enum Bucket {
    Absent,
    Untagged,
    Tagged(BTreeMap<String, String>),
}

impl ObjectStore {
    /// Over a client that may make buckets.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Ensures bucket or prefix, marker, and lifecycle.
    pub async fn ensure(
        &self,
        desired: &DesiredTenant,
        archive: &ArchiveLocation,
        backstop: Backstop,
    ) -> Result<Outcome, Error> {
        let outcome = if archive.prefix.is_empty() {
            self.ensure_own_bucket(desired, &archive.bucket).await?
        } else {
            self.ensure_prefix(desired, archive).await?
        };
        reach(Point::BucketMarked);
        let lifecycle = self.ensure_lifecycle(archive, backstop).await?;
        reach(Point::BucketDone);
        Ok(outcome.and(lifecycle))
    }

    /// Keeps a tenant's objects for as long as nobody removes them: no lifecycle rule of ours reaches them any more.
    /// In a shared bucket, none of its tenants': `maintain` removes what is old of those that live.
    pub async fn keep(&self, owner: &Owner, archive: &ArchiveLocation) -> Result<(), Error> {
        let tags = self.look(&archive.bucket).await?;
        let marker = match (&tags, archive.prefix.is_empty()) {
            (Bucket::Absent, _) => return Ok(()),
            (_, false) => self.read_marker(archive).await?,
            (Bucket::Tagged(tags), true) => marker_of(tags),
            (Bucket::Untagged, true) => None,
        };
        // What is not marked as ours holds nothing of this tenant.
        if matches!(owner.judge(marker.as_deref()), Ownership::Ours | Ownership::OursBefore) {
            self.ensure_lifecycle(archive, Backstop::None).await?;
        }
        Ok(())
    }

    /// Removes a tenant's objects in all their versions, and its bucket if it has one. Only what carries our
    /// marker; whatever is gone already is fine.
    pub async fn retire(&self, owner: &Owner, archive: &ArchiveLocation) -> Result<Retired, Error> {
        let bucket = &archive.bucket;
        let own = archive.prefix.is_empty();
        let tags = self.look(bucket).await?;
        let marker = match (&tags, own) {
            (Bucket::Absent, _) => return Ok(Retired::Done),
            (_, false) => self.read_marker(archive).await?,
            (Bucket::Tagged(tags), true) => marker_of(tags),
            (Bucket::Untagged, true) => None,
        };
        let empty = self.list(archive, 1).await?.is_empty();
        match owner.judge(marker.as_deref()) {
            Ownership::Ours | Ownership::OursBefore => {}
            // Never marked, or already removed: what is empty holds nothing of anybody's.
            Ownership::Foreign { .. } if marker.is_none() && empty => return Ok(Retired::Done),
            Ownership::Foreign { says } => return Err(conflict(archive, says)),
        }
        for _ in 0..RETIRE_PAGES {
            let objects = self.versions(bucket, &archive.prefix).await?;
            if objects.is_empty() {
                self.abort_uploads(archive).await?;
                reach(Point::ObjectsRemoved);
                // The marker goes last: until then a second try knows that all of it is ours.
                let retired = if own { self.delete_bucket(bucket).await? } else { self.delete_marker(archive).await? };
                reach(Point::BucketRemoved);
                return Ok(retired);
            }
            self.delete(bucket, objects).await?;
        }
        Ok(Retired::More)
    }

    /// Whether the object store answers, whatever it says of a bucket that need not be there.
    pub async fn ping(&self) -> Result<(), Error> {
        let bucket = "loggerhub-ping";
        match self.client.head_bucket().bucket(bucket).send().await {
            Err(error) if error.raw_response().is_none_or(|answer| answer.status().as_u16() >= 500) => {
                Err(Error::object_store("look for bucket", bucket, error))
            }
            _ => Ok(()),
        }
    }

    async fn ensure_own_bucket(&self, desired: &DesiredTenant, bucket: &str) -> Result<Outcome, Error> {
        let archive = ArchiveLocation { bucket: bucket.to_owned(), prefix: String::new() };
        let (created, marker) = match self.look(bucket).await? {
            Bucket::Absent => (self.create_bucket(bucket).await?, None),
            Bucket::Untagged => (Outcome::Unchanged, None),
            Bucket::Tagged(tags) => (Outcome::Unchanged, marker_of(&tags)),
        };
        reach(Point::BucketMade);
        match desired.owner.judge(marker.as_deref()) {
            Ownership::Ours => return Ok(created),
            Ownership::Foreign { says } if !desired.adopt => {
                let fresh = marker.is_none() && self.list(&archive, 1).await?.is_empty();
                if !fresh {
                    return Err(conflict(&archive, says));
                }
            }
            Ownership::OursBefore | Ownership::Foreign { .. } => {}
        }
        self.tag(bucket, &desired.owner).await?;
        Ok(created.and(Outcome::Updated))
    }

    async fn ensure_prefix(&self, desired: &DesiredTenant, archive: &ArchiveLocation) -> Result<Outcome, Error> {
        let created = match self.look(&archive.bucket).await? {
            Bucket::Absent => self.create_bucket(&archive.bucket).await?,
            Bucket::Untagged | Bucket::Tagged(_) => Outcome::Unchanged,
        };
        let marker = self.read_marker(archive).await?;
        let outcome = match desired.owner.judge(marker.as_deref()) {
            Ownership::Ours => return Ok(created),
            Ownership::Foreign { says } if !desired.adopt => {
                if marker.is_some() || !self.list(archive, 1).await?.is_empty() {
                    return Err(conflict(archive, says));
                }
                Outcome::Created
            }
            Ownership::OursBefore | Ownership::Foreign { .. } => Outcome::Updated,
        };
        self.client
            .put_object()
            .bucket(&archive.bucket)
            .key(marker_key(archive))
            .body(ByteStream::from(desired.owner.marker().into_bytes()))
            .content_type("application/json")
            .send()
            .await
            .map_err(|source| Error::object_store("write the owner marker in bucket", &archive.bucket, source))?;
        Ok(created.and(outcome))
    }

    async fn look(&self, bucket: &str) -> Result<Bucket, Error> {
        match self.client.get_bucket_tagging().bucket(bucket).send().await {
            Ok(found) => {
                let tag = |tag: &Tag| (tag.key().to_owned(), tag.value().to_owned());
                Ok(Bucket::Tagged(found.tag_set().iter().map(tag).collect()))
            }
            Err(error) => match error.code() {
                Some("NoSuchBucket") => Ok(Bucket::Absent),
                // MinIO says so of a bucket that does not exist, too.
                Some("NoSuchTagSet" | "NoSuchTagSetError") => self.look_again(bucket).await,
                _ => Err(Error::object_store("read the tags of bucket", bucket, error)),
            },
        }
    }

    async fn look_again(&self, bucket: &str) -> Result<Bucket, Error> {
        match self.client.head_bucket().bucket(bucket).send().await {
            Ok(_) => Ok(Bucket::Untagged),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(Bucket::Absent),
            Err(error) => Err(Error::object_store("look for bucket", bucket, error)),
        }
    }

    async fn create_bucket(&self, bucket: &str) -> Result<Outcome, Error> {
        let region = self.client.config().region().map(|region| region.as_ref().to_owned());
        // us-east-1 is the one region that must not be named.
        let elsewhere = region.filter(|region| region != "us-east-1").map(|region| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region.as_str()))
                .build()
        });
        let create = self.client.create_bucket().bucket(bucket).set_create_bucket_configuration(elsewhere);
        match create.send().await {
            Ok(_) => Ok(Outcome::Created),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(Outcome::Unchanged),
            Err(error) => Err(Error::object_store("create bucket", bucket, error)),
        }
    }

    async fn tag(&self, bucket: &str, owner: &Owner) -> Result<(), Error> {
        let failed = |source| Error::object_store("tag bucket", bucket, source);
        let tags = [
            (INSTALLATION_TAG, owner.installation.as_str()),
            (TENANT_TAG, owner.tenant.as_str()),
            (UID_TAG, owner.uid.as_str()),
        ];
        let tag = |(key, value): (&str, &str)| Tag::builder().key(key).value(value).build();
        let tags: Result<Vec<Tag>, _> = tags.into_iter().map(tag).collect();
        let tagging = tags
            .and_then(|tags| Tagging::builder().set_tag_set(Some(tags)).build())
            .map_err(|error| failed(aws_sdk_s3::error::SdkError::construction_failure(error)))?;
        self.client.put_bucket_tagging().bucket(bucket).tagging(tagging).send().await.map_err(failed)?;
        Ok(())
    }

    async fn read_marker(&self, archive: &ArchiveLocation) -> Result<Option<String>, Error> {
        let bucket = &archive.bucket;
        let found = self.client.get_object().bucket(bucket).key(marker_key(archive)).send().await;
        let object = match found {
            Ok(object) => object,
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(Error::object_store("read the owner marker in bucket", bucket, error)),
        };
        let body = object.body.collect().await.map_err(|source| Error::ObjectStore {
            doing: "read the owner marker in bucket",
            bucket: bucket.clone(),
            failure: Failure::Unavailable,
            source: source.into(),
        })?;
        Ok(Some(String::from_utf8_lossy(&body.into_bytes()).into_owned()))
    }

    async fn list(&self, archive: &ArchiveLocation, most: i32) -> Result<Vec<String>, Error> {
        let bucket = &archive.bucket;
        let found = self.client.list_objects_v2().bucket(bucket).prefix(&archive.prefix).max_keys(most).send().await;
        match found {
            Ok(found) => Ok(found.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()),
            Err(error) if error.code() == Some("NoSuchBucket") => Ok(Vec::new()),
            Err(error) => Err(Error::object_store("list bucket", bucket, error)),
        }
    }

    /// Up to a page of what is stored below a prefix: every version of each object, and what marks one as deleted.
    /// In a bucket that was never versioned, that is each object.
    async fn versions(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectIdentifier>, Error> {
        let found = self.client.list_object_versions().bucket(bucket).prefix(prefix).send().await;
        let found = match found {
            Ok(found) => found,
            Err(error) if error.code() == Some("NoSuchBucket") => return Ok(Vec::new()),
            // A store that has no versions.
            Err(error) if error.code() == Some("NotImplemented") => return self.objects(bucket, prefix).await,
            Err(error) => return Err(Error::object_store("list the versions of bucket", bucket, error)),
        };
        let versions = found.versions().iter().map(|one| (one.key(), one.version_id()));
        let markers = found.delete_markers().iter().map(|one| (one.key(), one.version_id()));
        let all = versions.chain(markers).filter_map(|(key, version)| Some((key?, version)));
        all.map(|(key, version)| identifier(bucket, key, version)).collect()
    }

    async fn objects(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectIdentifier>, Error> {
        let archive = ArchiveLocation { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        self.list(&archive, 1000).await?.iter().map(|key| identifier(bucket, key, None)).collect()
    }

    async fn delete(&self, bucket: &str, objects: Vec<ObjectIdentifier>) -> Result<(), Error> {
        let failed = |source| Error::object_store("delete objects of bucket", bucket, source);
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
        let delete = delete.map_err(|error| failed(aws_sdk_s3::error::SdkError::construction_failure(error)))?;
        let deleted = self.client.delete_objects().bucket(bucket).delete(delete).send().await.map_err(failed)?;
        // One that may not be deleted, such as one that is locked, would be tried again for ever.
        let Some(refused) = deleted.errors().first() else { return Ok(()) };
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let said = format!("{}: {} ({})", text(refused.key()), text(refused.message()), text(refused.code()));
        Err(Error::ObjectStore {
            doing: "delete objects of bucket",
            bucket: bucket.to_owned(),
            failure: Failure::Rejected,
            source: said.into(),
        })
    }

    async fn abort_uploads(&self, archive: &ArchiveLocation) -> Result<(), Error> {
        let bucket = &archive.bucket;
        let uploads = match self.client.list_multipart_uploads().bucket(bucket).prefix(&archive.prefix).send().await {
            Ok(uploads) => uploads,
            Err(error) if error.code() == Some("NoSuchBucket") => return Ok(()),
            Err(error) => return Err(Error::object_store("list the uploads of bucket", bucket, error)),
        };
        for upload in uploads.uploads() {
            let abort = self.client.abort_multipart_upload().bucket(bucket);
            let abort = abort.set_key(upload.key.clone()).set_upload_id(upload.upload_id.clone());
            match abort.send().await {
                Ok(_) => {}
                Err(error) if error.code() == Some("NoSuchUpload") => {}
                Err(error) => return Err(Error::object_store("abort an upload of bucket", bucket, error)),
            }
        }
        Ok(())
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<Retired, Error> {
        match self.client.delete_bucket().bucket(bucket).send().await {
            Ok(_) => Ok(Retired::Done),
            Err(error) => match error.code() {
                Some("NoSuchBucket") => Ok(Retired::Done),
                // Something was written meanwhile: the next try removes it.
                Some("BucketNotEmpty") => Ok(Retired::More),
                _ => Err(Error::object_store("delete bucket", bucket, error)),
            },
        }
    }

    async fn delete_marker(&self, archive: &ArchiveLocation) -> Result<Retired, Error> {
        let key = marker_key(archive);
        let mut versions = self.versions(&archive.bucket, &key).await?;
        // Another tenant's name may begin like this one's.
        versions.retain(|version| version.key() == key);
        if !versions.is_empty() {
            self.delete(&archive.bucket, versions).await?;
        }
        Ok(Retired::Done)
    }
}

fn identifier(bucket: &str, key: &str, version: Option<&str>) -> Result<ObjectIdentifier, Error> {
    let identifier = ObjectIdentifier::builder().key(key).set_version_id(version.map(str::to_owned)).build();
    identifier.map_err(|error| Error::ObjectStore {
        doing: "name an object of bucket",
        bucket: bucket.to_owned(),
        failure: Failure::Rejected,
        source: error.into(),
    })
}

fn marker_key(archive: &ArchiveLocation) -> String {
    format!("{MARKERS}{}", archive.prefix.trim_end_matches('/'))
}

/// The tags as a marker's text; none if the bucket carries no tag of ours.
fn marker_of(tags: &BTreeMap<String, String>) -> Option<String> {
    let tag = |name: &str| tags.get(name).cloned().unwrap_or_default();
    let marked = [INSTALLATION_TAG, TENANT_TAG, UID_TAG].iter().any(|name| tags.contains_key(*name));
    marked.then(|| {
        serde_json::json!({"installation": tag(INSTALLATION_TAG), "tenant": tag(TENANT_TAG), "uid": tag(UID_TAG)})
            .to_string()
    })
}

fn conflict(archive: &ArchiveLocation, says: String) -> Error {
    let thing = if archive.prefix.is_empty() {
        format!("bucket `{}`", archive.bucket)
    } else {
        format!("prefix `{}` of bucket `{}`", archive.prefix, archive.bucket)
    };
    Error::OwnershipConflict { thing, says }
}
