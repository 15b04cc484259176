//! The lifecycle rule: the backstop of retention, two days behind what maintain removes itself.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
};

use crds::names::ArchiveLocation;

use super::ObjectStore;
use crate::provision::{Error, Outcome};

/// Id of our rule; other rules of the bucket are left as they are.
const RULE: &str = "loggerhub-backstop";
/// Days after retention that maintain has to remove what expired.
const BACKSTOP_DAYS: i32 = 2;

/// What the rule is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backstop {
    /// Objects expire two days after so many.
    Days(i32),
    /// None expires: the data of a tenant that is gone is retained.
    None,
    /// As it is: nobody knows for how long events are kept.
    AsItIs,
}

impl ObjectStore {
    /// Ensures the rule. In a shared bucket one rule covers all tenants, because a bucket holds no more than 1,000 rules:
    /// `backstop` is of the tenant that is kept longest, and the rule only ever grows. Each tenant's own days are kept
    /// by maintain.
    pub(super) async fn ensure_lifecycle(
        &self,
        archive: &ArchiveLocation,
        backstop: Backstop,
    ) -> Result<Outcome, Error> {
        let days = match backstop {
            Backstop::Days(days) => Some(days),
            Backstop::None => None,
            Backstop::AsItIs => return Ok(Outcome::Unchanged),
        };
        let bucket = &archive.bucket;
        let shared = !archive.prefix.is_empty();
        let rules = self.rules(bucket).await?;
        let Some(rules) = with_backstop(rules, days, shared) else { return Ok(Outcome::Unchanged) };
        if rules.is_empty() {
            // A bucket's list of rules can be taken away, and can't be empty.
            let removed = self.client.delete_bucket_lifecycle().bucket(bucket).send().await;
            removed.map_err(|source| Error::object_store("remove the lifecycle of bucket", bucket, source))?;
            return Ok(Outcome::Updated);
        }
        // The shared bucket's markers are outside of what expires: a lost one would look foreign.
        let prefix = archive.prefix.split_inclusive('/').next().unwrap_or_default();
        let rules: Result<Vec<LifecycleRule>, _> = rules.into_iter().map(|rule| build(rule, prefix)).collect();
        let failed = |source| Error::object_store("write the lifecycle of bucket", bucket, source);
        let configuration = rules
            .and_then(|rules| BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build())
            .map_err(|error| failed(aws_sdk_s3::error::SdkError::construction_failure(error)))?;
        let put = self.client.put_bucket_lifecycle_configuration().bucket(bucket);
        put.lifecycle_configuration(configuration).send().await.map_err(failed)?;
        Ok(Outcome::Updated)
    }

    async fn rules(&self, bucket: &str) -> Result<Vec<Rule>, Error> {
        match self.client.get_bucket_lifecycle_configuration().bucket(bucket).send().await {
            Ok(found) => Ok(found.rules().iter().cloned().map(Rule::read).collect()),
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Ok(Vec::new()),
            Err(error) => Err(Error::object_store("read the lifecycle of bucket", bucket, error)),
        }
    }
}

/// A rule of the bucket: our backstop, or any other, kept as it is.
#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Backstop { days: i32, enabled: bool },
    Other(Box<LifecycleRule>),
}

impl Rule {
    fn read(rule: LifecycleRule) -> Self {
        if rule.id() != Some(RULE) {
            return Self::Other(Box::new(rule));
        }
        let days = rule.expiration().and_then(LifecycleExpiration::days).unwrap_or(0);
        Self::Backstop { days, enabled: *rule.status() == ExpirationStatus::Enabled }
    }
}

/// The bucket's rules with the backstop in place, or without one, or `None` if they are so already.
fn with_backstop(rules: Vec<Rule>, total_days: Option<i32>, shared: bool) -> Option<Vec<Rule>> {
    let found = rules.iter().find_map(|rule| match rule {
        Rule::Backstop { days, enabled } => Some((*days, *enabled)),
        Rule::Other(_) => None,
    });
    let wanted = total_days.map(|days| {
        let days = days + BACKSTOP_DAYS;
        if shared { days.max(found.map_or(0, |(days, _)| days)) } else { days }
    });
    if found == wanted.map(|days| (days, true)) {
        return None;
    }
    let others = rules.into_iter().filter(|rule| matches!(rule, Rule::Other(_)));
    Some(others.chain(wanted.map(|days| Rule::Backstop { days, enabled: true })).collect())
}

fn build(rule: Rule, prefix: &str) -> Result<LifecycleRule, aws_sdk_s3::error::BuildError> {
    match rule {
        Rule::Other(rule) => Ok(*rule),
        Rule::Backstop { days, .. } => LifecycleRule::builder()
            .id(RULE)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .expiration(LifecycleExpiration::builder().days(days).build())
            .build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backstop(days: i32) -> Rule {
        Rule::Backstop { days, enabled: true }
    }

    fn with(rules: Vec<Rule>, days: i32, shared: bool) -> Option<Vec<Rule>> {
        with_backstop(rules, Some(days), shared)
    }

    #[test]
    fn what_is_retained_has_no_backstop() {
        for shared in [false, true] {
            assert_eq!(with_backstop(vec![backstop(32)], None, shared), Some(vec![]));
            assert_eq!(with_backstop(vec![], None, shared), None);
        }
    }

    #[test]
    fn the_backstop_is_two_days_behind_retention() {
        assert_eq!(with(vec![], 30, false), Some(vec![backstop(32)]));
        assert_eq!(with(vec![backstop(32)], 30, false), None);
        assert_eq!(with(vec![backstop(32)], 10, false), Some(vec![backstop(12)]));
        let disabled = Rule::Backstop { days: 32, enabled: false };
        assert_eq!(with(vec![disabled], 30, false), Some(vec![backstop(32)]));
    }

    #[test]
    fn a_shared_buckets_backstop_only_grows() {
        assert_eq!(with(vec![backstop(32)], 10, true), None);
        assert_eq!(with(vec![backstop(32)], 60, true), Some(vec![backstop(62)]));
    }

    #[test]
    fn other_rules_are_kept() {
        let rule = LifecycleRule::builder().id("theirs").status(ExpirationStatus::Enabled).build().unwrap();
        let other = Rule::read(rule);
        assert_eq!(with(vec![other.clone()], 1, false), Some(vec![other, backstop(3)]));
    }
}
